"""Train one model, or resume it from its last checkpoint.

One model is a data set, a process and a seed. Checkpoints and finished models live in the store, keyed by a fingerprint
of the settings that determine the weights; --output and --history are links to what is kept there. A model that the
store has already is not trained again.
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


def run(arguments: argparse.Namespace) -> int:
    from blurdiff.config.runs import read_settings
    from blurdiff.data.manifest import read_manifest
    from blurdiff.store import store
    from blurdiff.training.distributed import joined
    from blurdiff.training.train import finished, train

    settings = read_settings(arguments.settings)
    manifest = read_manifest(arguments.manifest, "sha256")
    iterations = settings["training"]["iterations"]
    with joined(settings["training"]) as ranks, contextlib.ExitStack() as held:
        folder = done = None
        if ranks.is_first:
            folder = store.model_folder(arguments.store, settings, manifest.sha256)
            held.enter_context(store.locked(folder))
            store.remove_leftovers(folder)
            done = finished(folder, iterations)
        folder, done = ranks.of_first((folder, done))
        if not done and not train(settings, arguments.images, folder, arguments.threads, ranks):
            return EXIT_INTERRUPTED
        if ranks.is_first:
            store.publish(store.find(folder, "history", ".csv")[iterations], Path(arguments.history))
            store.publish(store.find(folder, "model", ".safetensors")[iterations], Path(arguments.output))
        ranks.wait_for_all()  # torchrun ends the others when one has ended
    return 0
