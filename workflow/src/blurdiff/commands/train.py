"""Train one model, or resume it from its last checkpoint.

One model is a data set, a process and a seed. Checkpoints and finished models live in the store, keyed by a fingerprint
of the settings that determine the weights; --output and --history are links to what is kept there (copies, where
another run has a link already). A model that the store has already is not trained again.
"""

import argparse
import contextlib
from pathlib import Path

from blurdiff.runtime.signals import EXIT_INTERRUPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", required=True, help="the run's resolved settings: JSON, or the path of a JSON or YAML file"
    )
    parser.add_argument("--images", required=True, help="images.npy, uint8 (n, R, R, 3)")
    parser.add_argument("--manifest", required=True, help="the manifest.json that was written with the images")
    parser.add_argument("--store", required=True, help="folder of trained models and checkpoints")
    parser.add_argument("--output", required=True, help="model.safetensors to make (EMA weights)")
    parser.add_argument("--history", required=True, help="history.csv to make (loss against iteration)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--tell", type=float, metavar="S",
        help="print a line every S seconds on how far it is to stdout, and all else to stderr")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from blurdiff.config.runs import read_settings
    from blurdiff.training.telling import Teller, own_stdout
    from blurdiff.training.train import train_in_store

    settings = read_settings(arguments.settings)
    data = arguments.images, arguments.manifest
    model, history = Path(arguments.output), Path(arguments.history)
    with contextlib.ExitStack() as held:
        tell = arguments.tell
        teller = None if tell is None else Teller(settings, tell, held.enter_context(own_stdout()))
        done = train_in_store(settings, *data, arguments.store, model, history, arguments.threads, teller)
    return 0 if done else EXIT_INTERRUPTED
