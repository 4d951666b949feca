"""Train one model, or resume it from its last checkpoint.

One model is a data set, a process and a seed. Checkpoints and finished models live in the store, keyed by a fingerprint
of the settings that determine the weights; --output and --history are links to what is kept there. A model that the
store has already is not trained again.
"""

import argparse
import math
import signal
import sys
import time
from pathlib import Path

EXIT_INTERRUPTED = 75  # "temporary failure": the work is saved, the same command goes on with it


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
    from blurdiff.config import read_settings
    from blurdiff.errors import UserError
    from blurdiff.files import read_json
    from blurdiff.training import store

    settings = read_settings(arguments.settings)
    manifest = read_json(arguments.manifest)
    if not isinstance(manifest, dict) or "sha256" not in manifest:
        raise UserError(f"{arguments.manifest} has no sha256; it is not the manifest of images")
    folder = store.model_folder(arguments.store, settings, manifest["sha256"])
    iterations = settings["training"]["iterations"]
    with store.locked(folder):
        store.remove_leftovers(folder)
        if not finished(folder, iterations) and not train(settings, arguments.images, folder, arguments.threads):
            return EXIT_INTERRUPTED
    store.publish(store.find(folder, "history", ".csv")[iterations], Path(arguments.history))
    store.publish(store.find(folder, "model", ".safetensors")[iterations], Path(arguments.output))
    return 0


def finished(folder: Path, iterations: int) -> bool:
    """Whether the store has this model, intact; a damaged one is removed."""
    from blurdiff.training import store

    files = [
        store.find(folder, "history", ".csv").get(iterations),
        store.find(folder, "model", ".safetensors").get(iterations),
    ]
    damaged = [path for path in files if path and not store.intact(path)]
    for path in damaged:
        print(f"warning: {path} is damaged and made again", file=sys.stderr)
        path.unlink()
    if damaged or None in files:
        return False
    print(f"the store has this model: {files[1]}", file=sys.stderr)
    return True


def train(settings: dict, images_path: str, folder: Path, threads: int) -> bool:
    """Train to the wanted iteration; False when a signal asked to stop first (the state is then saved)."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from blurdiff.data.images import batch_indices, open_images, to_model_range
    from blurdiff.devices import autocast, memory_format, pick_device
    from blurdiff.diffusion.families import build_process
    from blurdiff.diffusion.objectives import per_image_loss, training_pair
    from blurdiff.seeding import INIT, STEP, derive_seed
    from blurdiff.training.state import N_QUARTILES, TrainingState, load_checkpoint, save_checkpoint, save_model
    from blurdiff.unet import UNet

    training, seed = settings["training"], settings["seed"]
    objective, value_range = settings["process"]["objective"], settings["process"]["range"]
    device = pick_device(training["device"], threads)
    layout = memory_format(device)
    images = open_images(images_path, settings["resolution"])
    process = build_process(settings["process"], settings["resolution"], images.shape[-1]).to(device)
    last_timestep = process.n_timesteps - settings["process"]["skip_last_timestep"]
    torch.manual_seed(derive_seed(INIT, seed))
    network = UNet(settings["resolution"], image_channels=images.shape[-1], **settings["network"])
    network = network.to(device, memory_format=layout).train()
    state = TrainingState(network, settings, device)
    load_checkpoint(folder, state, device, training["iterations"])
    first_bad = torch.full((), math.inf, device=device)

    def step() -> None:
        nonlocal first_bad
        index = batch_indices(len(images), training["batch_size"], state.iteration, seed)
        batch = torch.from_numpy(np.ascontiguousarray(images[index])).to(device, non_blocking=True)
        x_0 = to_model_range(batch, value_range)
        # A step's randomness depends on (seed, step) alone, dropout's included: then resuming is exact.
        torch.manual_seed(derive_seed(STEP, seed, state.iteration))
        i = torch.randint(1, last_timestep + 1, (len(x_0),), device=device)
        noise = torch.randn(x_0.shape, device=device)
        x_i, target = training_pair(process, objective, x_0, i, noise)
        with autocast(device, training["precision"]):
            prediction = network(x_i.contiguous(memory_format=layout), i)
        losses = per_image_loss(process, objective, prediction, target, i)
        state.optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        state.optimizer.step()
        state.update_ema()
        with torch.no_grad():
            quartile = (i * N_QUARTILES - 1) // process.n_timesteps
            state.loss_sums.index_add_(0, quartile, losses)
            state.loss_counts.index_add_(0, quartile, torch.ones_like(losses))
            bad = torch.where(losses.isfinite().all(), math.inf, float(state.iteration + 1))
            first_bad = torch.minimum(first_bad, bad)
        state.iteration += 1

    stop = StopSignals()
    with tqdm(total=training["iterations"], initial=state.iteration, unit="it", dynamic_ncols=True,
              mininterval=0.5 if sys.stderr.isatty() else 30) as bar, stop:  # fmt: skip
        while state.iteration < training["iterations"]:
            start = time.perf_counter()
            step()
            if device.type == "cpu" or state.iteration % training["log_every"] == 0:
                check_finite(first_bad, settings, folder)
            state.seconds += time.perf_counter() - start
            last = state.iteration == training["iterations"]
            if state.iteration % training["log_every"] == 0 or last:
                row = state.finish_row()
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {row['images_per_second']:.0f} images/s", refresh=False)
            bar.update(1)
            if stop.received or last or state.iteration % training["checkpoint_every"] == 0:
                if not state.weights_are_finite():
                    first_bad = first_bad.clamp(max=state.iteration)
                check_finite(first_bad, settings, folder)
                save_checkpoint(folder, state)
            if stop.received and not last:
                print(f"stopped by {stop.received} after iteration {state.iteration}; the state is saved,"
                      f" the same command goes on from here", file=sys.stderr, flush=True)  # fmt: skip
                return False
    save_model(folder, state, settings)
    return True


def check_finite(first_bad, settings: dict, folder: Path) -> None:
    """Raise UserError if a loss or a weight has been NaN or infinite; the checkpoints in the store are from before."""
    from blurdiff.errors import UserError

    step = first_bad.item()
    if not math.isinf(step):
        rate, run = settings["training"]["learning_rate"], settings.get("run", "?")
        raise UserError(
            f"the loss or a weight is not finite at iteration {int(step)} (learning rate {rate:g}, run {run});"
            f" the last good state is kept in {folder}; try a lower training.learning_rate or precision fp32"
        )


class StopSignals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) only set `received`: a step can end first."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self):
        self.received: str | None = None

    def __enter__(self) -> "StopSignals":
        self.previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.received = signal.Signals(number).name
