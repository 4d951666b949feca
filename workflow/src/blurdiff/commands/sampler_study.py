"""Fréchet distance against the number of network evaluations, for one trained model and several samplers.

Every sampler draws the same number of images from the same noise on each number of steps; the distance is to the
reference statistics, with the features of the main evaluation. One CSV row for each sampler, grid and number of steps.
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    from blurdiff.evaluation.features import add_network_arguments

    parser.add_argument("--settings", help="the run's settings: JSON, or the path of a JSON/YAML file (default: those"
                        " in the model's file)")  # fmt: skip
    parser.add_argument("--model", required=True, help="model.safetensors of the run")
    parser.add_argument("--reference", required=True, help="statistics.npz of the real images")
    parser.add_argument("--samplers", required=True, metavar="JSON", help='[{"sampler": "ddim", "grid": "snr"}, …]')
    parser.add_argument(
        "--n-steps", type=int, nargs="+", required=True, help="numbers of steps to try with each sampler"
    )
    parser.add_argument("--n-samples", type=int, required=True, help="images a combination")
    add_network_arguments(parser)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--output", required=True, metavar="CSV", help="samplers.csv to make")
    parser.add_argument(
        "--drawn", required=True, metavar="NPZ", help="the first images of each row, samplers.npz to make"
    )


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.evaluation.study import study
    from blurdiff.network.model_file import model_settings

    study(
        model_settings(arguments.model, arguments.settings),
        arguments.model,
        arguments.reference,
        arguments.output,
        arguments.drawn,
        samplers=json.loads(arguments.samplers),
        n_steps=arguments.n_steps,
        n_samples=arguments.n_samples,
        network=arguments.network,
        weights=arguments.weights,
        threads=arguments.threads,
    )
