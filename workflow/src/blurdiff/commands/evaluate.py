"""Fréchet distance of a run's samples to the statistics of the real images.

The features are those of the reference: the same network, weights and input size, or the stage refuses. fid.json holds
the distance with its name (FID, or FD-EfficientNet-Lite0), the floor (what as many real images get), the kernel
distance, the counts and the run's settings; statistics.npz holds mean and covariance of the samples' features. Options
that are not given are taken from the evaluation section of the settings.
"""

import argparse

from blurdiff.errors import UserError


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
    import numpy as np

    from blurdiff.config.runs import read_settings
    from blurdiff.evaluation.evaluate import check_features, check_reference, compare, describe_run, read_samples
    from blurdiff.evaluation.features import extract, load_network
    from blurdiff.evaluation.frechet import moments, read_statistics
    from blurdiff.runtime.arrays import write_npz
    from blurdiff.runtime.devices import pick_device
    from blurdiff.runtime.files import atomic_path, write_json

    settings = read_settings(arguments.settings)
    options = {}
    for name in ("batch_size", "threads", "device"):
        value = getattr(arguments, name)
        options[name] = settings["evaluation"][name] if value is None else value
        if name != "device" and options[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more, not {options[name]}")
    samples = read_samples(arguments.samples, settings["sampling"]["n_samples"], settings["resolution"])
    reference = read_statistics(arguments.reference)
    check_reference(reference, arguments.reference, arguments.network, settings["resolution"])
    described = describe_run(settings)
    device = pick_device(options["device"], options["threads"])
    network = load_network(arguments.network, arguments.weights, device)
    check_features(reference, arguments.reference, network)

    features = np.concatenate(list(extract(network, samples, options["batch_size"], arguments.samples)))
    result = compare(features, reference, network) | {"run": described}
    if arguments.features:
        with atomic_path(arguments.features) as temporary, open(temporary, "wb") as file:
            np.save(file, features)
    own = moments(features)
    identity = {key: result[key] for key in ("metric", "network", "weights_sha256", "input_size")}
    write_npz(arguments.statistics, {"mu": own.mu, "sigma": own.sigma, "n": np.int64(own.n), **identity})
    write_json(arguments.output, result)
    floor = "no floor" if result["floor_mean"] is None else f"floor {result['floor_mean']:.4g}"
    print(
        f"{arguments.output}: {described['run']}, seed {described['seed']}: {result['metric']} {result['value']:.4g}"
        f" of {result['n_samples']:,} samples ({floor})"
    )
