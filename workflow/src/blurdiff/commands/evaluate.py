"""Fréchet distance of a run's samples to the statistics of the real images, and other metrics.

The features are those of the reference: the same network, weights and input size, or the stage refuses. fid.json holds
the distance with its name (FID, or FD-EfficientNet-Lite0), the kernel distance with its standard error, precision,
recall, density and coverage, the floor of each (what as many real images get), the counts and the run's settings;
statistics.npz holds mean and covariance of the samples' features. Options that are not given are taken from the
evaluation section of the settings.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    from blurdiff.evaluation.features import add_network_arguments

    parser.add_argument("--samples", required=True, metavar="NPZ", help="the samples: arr_0, uint8 (n, R, R, 3)")
    parser.add_argument("--reference", required=True, metavar="NPZ", help="statistics of the real images")
    parser.add_argument("--settings", required=True, metavar="JSON", help="the run's settings, JSON itself or a file")
    add_network_arguments(parser)
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at once (default: as in the settings)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="(default: as in the settings)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as in the settings)")
    parser.add_argument("--output", required=True, metavar="JSON", help="fid.json, the evaluation to write")
    parser.add_argument("--statistics", required=True, metavar="NPZ", help="the samples' mu, sigma and n to write")
    parser.add_argument("--features", metavar="NPY", help="the samples' features, float32 (n, d), to write")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.config.runs import read_settings
    from blurdiff.evaluation.evaluate import evaluate

    found = evaluate(
        read_settings(arguments.settings),
        arguments.samples,
        arguments.reference,
        arguments.output,
        arguments.statistics,
        network=arguments.network,
        weights=arguments.weights,
        features_path=arguments.features,
        batch_size=arguments.batch_size,
        device=arguments.device,
        threads=arguments.threads,
    )
    of_run = found.run or {}
    floor = "no floor" if found.floor_mean is None else f"floor {found.floor_mean:.4g}"
    print(
        f"{arguments.output}: {of_run['run']}, seed {of_run['seed']}: {found.metric} {found.value:.4g}"
        f" of {found.n_samples:,} samples ({floor})"
    )
