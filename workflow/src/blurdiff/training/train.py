"""Train one model, or resume it from its last checkpoint.

One model is a data set, a process and a seed. Checkpoints and finished models live in the store, keyed by a fingerprint
of the settings that determine the weights; --output and --history are links to what is kept there. A model that the
store has already is not trained again.
"""

import contextlib
import math
import sys
import time
from pathlib import Path

from blurdiff.runtime.signals import StopSignals


def finished(folder: Path, iterations: int) -> bool:
    """Whether the store has this model, intact; a damaged one is removed."""
    from blurdiff.store import store

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


def train(settings: dict, images_path: str, folder: Path, threads: int, ranks=None) -> bool:
    """Train to the wanted iteration; False when a signal asked to stop first (the state is then saved).

    `ranks` (see distributed.py) are the processes that train together, of which this is one; None is one alone.
    """
    import torch

    from blurdiff.errors import UserError
    from blurdiff.training.distributed import Ranks

    with StopSignals() as stop:
        try:
            return _train(settings, images_path, folder, threads, ranks or Ranks(), stop)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"GPU memory is full ({str(error).splitlines()[0]}); give training.micro_batch_size, or less of it,"
                f" or training.data_on_device: false"
            ) from error


def _train(settings: dict, images_path: str, folder: Path, threads: int, ranks, stop: StopSignals) -> bool:
    import torch
    from tqdm import tqdm

    from blurdiff.data.images import open_images
    from blurdiff.runtime.devices import pick_device
    from blurdiff.training.feed import batches
    from blurdiff.training.state import save_checkpoint, save_model
    from blurdiff.training.step import TrainingStep

    training = settings["training"]
    device = pick_device(training["device"], max(1, threads // ranks.local_size))
    images = open_images(images_path, settings["resolution"])
    step = TrainingStep(settings, device, images.shape[-1], ranks.rank, ranks.size)
    state = step.state
    resume(folder, state, device, training["iterations"], ranks)
    step.model = ranks.share_gradients(step.model)
    bar = tqdm(total=training["iterations"], initial=state.iteration, unit="it", dynamic_ncols=True,
               mininterval=0.5 if sys.stderr.isatty() else 30, disable=not ranks.is_first)  # fmt: skip
    feed = batches(images, training, settings["seed"], state.iteration, step.own, device)
    with bar, contextlib.closing(feed):
        while state.iteration < training["iterations"]:
            start = time.perf_counter()
            with ranks.step():
                step(next(feed))
            # The only moments at which a GPU is waited for.
            if device.type == "cpu" or state.iteration % training["log_every"] == 0:
                check_finite(ranks.smallest(step.first_bad.item()), step.bad_quartiles, settings, folder)
            state.seconds += time.perf_counter() - start
            last = state.iteration == training["iterations"]
            if state.iteration % training["log_every"] == 0 or last:
                ranks.sum_to_first(state.loss_sums, state.loss_counts)
                row = state.finish_row()
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {row['images_per_second']:.0f} images/s", refresh=False)
            bar.update(1)
            stopping = ranks.any(stop.received is not None)
            if stopping or last or state.iteration % training["checkpoint_every"] == 0:
                limit = math.inf if state.weights_are_finite() else state.iteration
                first_bad = ranks.smallest(min(step.first_bad.item(), limit))
                check_finite(first_bad, step.bad_quartiles, settings, folder)
                ranks.sum_to_first(state.loss_sums, state.loss_counts)
                if ranks.is_first:
                    save_checkpoint(folder, state)
            if stopping and not last:
                ranks.wait_for_all()  # torchrun gives the others little time when one has ended
                if ranks.is_first:
                    print(f"stopped by {stop.received or 'a signal to another process'} after iteration"
                          f" {state.iteration}; the state is saved, the same command goes on from here",
                          file=sys.stderr, flush=True)  # fmt: skip
                return False
    if ranks.is_first:
        save_model(folder, state, settings)
        if device.type == "cuda":
            print(f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB in use,"
                  f" {torch.cuda.max_memory_reserved(device) / 2**30:.2f} GiB reserved", file=sys.stderr)  # fmt: skip
    return True


def resume(folder: Path, state, device, iterations: int, ranks) -> None:
    """Load the newest intact checkpoint, if there is one; the first process chooses it for all."""
    from blurdiff.training.state import load_checkpoint, newest_checkpoint

    path = ranks.of_first(newest_checkpoint(folder, iterations) if ranks.is_first else None)
    if path:
        load_checkpoint(path, state, device)
        if ranks.is_first:
            print(f"going on after iteration {state.iteration} of {iterations}", file=sys.stderr, flush=True)
    if not ranks.is_first:  # the sums that a checkpoint holds are of all
        state.loss_sums.zero_()
        state.loss_counts.zero_()


def check_finite(first_bad: float, bad_quartiles, settings: dict, folder: Path) -> None:
    """Raise UserError if a loss or a weight has been NaN or infinite; the checkpoints in the store are from before.

    `bad_quartiles` has a number larger than 0 for each quartile of the timesteps in which a loss was not finite then.
    """
    from blurdiff.errors import UserError

    if not math.isinf(first_bad):
        rate, run = settings["training"]["learning_rate"], settings.get("run", "?")
        quartiles = [str(k) for k, count in enumerate(bad_quartiles.tolist(), 1) if count]
        where = f"loss of timestep quartile {', '.join(quartiles)} of {len(bad_quartiles)}" if quartiles else "weights"
        raise UserError(
            f"the loss or a weight is not finite at iteration {int(first_bad)} ({where}, learning rate {rate:g}, run"
            f" {run}); the last good state is kept in {folder}; try a lower training.learning_rate or precision fp32"
        )
