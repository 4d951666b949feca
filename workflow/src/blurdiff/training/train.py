"""Train one model, or resume it from its last checkpoint, in the store.

One model is a data set, a process and a seed. A model that the store has already is not trained again.
"""

import contextlib
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from blurdiff.config.settings import Settings
from blurdiff.data.manifest import checked_digest, read_manifest
from blurdiff.diffusion import families
from blurdiff.diffusion.prior import Prior
from blurdiff.errors import UserError
from blurdiff.runtime.arrays import open_images
from blurdiff.runtime.devices import pick_device
from blurdiff.runtime.signals import StopSignals
from blurdiff.store import store
from blurdiff.training.distributed import Ranks, joined
from blurdiff.training.feed import batches
from blurdiff.training.state import load_checkpoint, newest_checkpoint, save_checkpoint, save_model
from blurdiff.training.step import TrainingStep
from blurdiff.training.telling import Teller


def train_in_store(
    settings: Settings,
    images: str,
    manifest_path: str,
    store_path: str,
    model: Path,
    history: Path,
    threads: int,
    teller: Teller | None = None,
) -> bool:
    """Train a run's model in the store at `store_path` and publish it as `model` and its `history`.

    `images` is images.npy, and `manifest_path` that of the manifest that was written with it, whose digest of the
    images the fingerprint holds: before the first iteration it is compared with the images. `teller` hears of every
    iteration. False when a signal asked to stop first: the state is saved then, and the same call goes on from there.
    """
    manifest = read_manifest(manifest_path, "sha256")
    iterations = settings.training.iterations
    with joined(settings.training) as ranks, contextlib.ExitStack() as held:
        folder, done = Path(), False
        if ranks.is_first:
            folder = store.model_folder(Path(store_path), settings, str(manifest.sha256))
            held.enter_context(store.locked(folder))
            store.remove_leftovers(folder)
            done = finished(folder, iterations)
            if not done and not store.find(folder, "checkpoint", ".pt"):
                checked_digest(open_images(images, settings.resolution), images, manifest, manifest_path)
        folder, done = ranks.broadcast((folder, done))
        if not done and not train(settings, images, folder, threads, ranks, teller):
            return False
        if ranks.is_first:
            store.publish(store.find(folder, "history", ".csv")[iterations], history)
            store.publish(store.find(folder, "model", ".safetensors")[iterations], model)
        ranks.barrier()  # torchrun ends the others when one has ended
    return True


def finished(folder: Path, iterations: int) -> bool:
    """Whether the store has this model, intact; a damaged one is removed."""

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


def train(
    settings: Settings, images_path: str, folder: Path, threads: int, ranks: Ranks, teller: Teller | None = None
) -> bool:
    """Train to the wanted iteration; False when a signal asked to stop first (the state is then saved).

    `ranks` are the processes that train together, of which this is one.
    """
    try:
        with StopSignals() as stop:
            return _train(settings, images_path, folder, threads, ranks, stop, teller if ranks.is_first else None)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"GPU memory is full ({str(error).splitlines()[0]}); give training.micro_batch_size, or less of it,"
            f" or training.data_on_device: false"
        ) from error


def _train(
    settings: Settings,
    images_path: str,
    folder: Path,
    threads: int,
    ranks: Ranks,
    stop: StopSignals,
    teller: Teller | None,
) -> bool:
    training = settings.training
    device = pick_device(training.device, max(1, threads // ranks.local_size))
    images = open_images(images_path, settings.resolution)
    step = TrainingStep(
        settings, device, images.shape[-1], ranks.rank, ranks.size, shared_prior(images, settings, ranks)
    )
    state = step.state
    resume(folder, state, device, training.iterations, ranks)
    step.model = ranks.share_gradients(step.model)
    bar = tqdm(total=training.iterations, initial=state.iteration, unit="it", dynamic_ncols=True,
               mininterval=0.5 if sys.stderr.isatty() else 30, disable=not ranks.is_first)  # fmt: skip
    loss: float | None = None
    feed = batches(images, training, settings.seed, state.iteration, step.own, device)
    with bar, contextlib.closing(feed):
        while state.iteration < training.iterations:
            start = time.perf_counter()
            with ranks.step():
                step(next(feed))
            # The only moments at which a GPU is waited for.
            if device.type == "cpu" or state.iteration % training.log_every == 0:
                check_finite(ranks.all_reduce_min(step.first_bad.item()), step.bad_quartiles, settings, folder)
            state.seconds += time.perf_counter() - start
            last = state.iteration == training.iterations
            if state.iteration % training.log_every == 0 or last:
                ranks.reduce_sum(state.loss_sums, state.loss_counts)
                row = state.finish_row()
                loss = row["loss"]
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {row['images_per_second']:.0f} images/s", refresh=False)
            bar.update(1)
            if teller:
                teller(state.iteration, loss)
            stopping = ranks.any(stop.received is not None)
            if stopping or last or state.iteration % training.checkpoint_every == 0:
                limit = math.inf if state.weights_are_finite() else state.iteration
                first_bad = ranks.all_reduce_min(min(step.first_bad.item(), limit))
                check_finite(first_bad, step.bad_quartiles, settings, folder)
                ranks.reduce_sum(state.loss_sums, state.loss_counts)
                if ranks.is_first:
                    save_checkpoint(folder, state)
            if stopping and not last:
                ranks.barrier()  # torchrun gives the others little time when one has ended
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


def shared_prior(images: np.ndarray, settings: Settings, ranks: Ranks) -> Prior | None:
    """The prior of the training images where prediction or process need it: computed once, for all processes. A
    checkpoint and the model hold it, so that nothing that comes later depends on how it was rounded here."""
    return ranks.broadcast(families.prior_of(settings.process, images) if ranks.is_first else None)


def resume(folder: Path, state, device, iterations: int, ranks) -> None:
    """Load the newest intact checkpoint, if there is one; the first process chooses it for all."""

    path = ranks.broadcast(newest_checkpoint(folder, iterations) if ranks.is_first else None)
    if path:
        load_checkpoint(path, state, device)
        if ranks.is_first:
            print(f"going on after iteration {state.iteration} of {iterations}", file=sys.stderr, flush=True)
    if not ranks.is_first:  # the sums that a checkpoint holds are of all
        state.loss_sums.zero_()
        state.loss_counts.zero_()


def check_finite(first_bad: float, bad_quartiles, settings: Settings, folder: Path) -> None:
    """Raise UserError if a loss or a weight has been NaN or infinite; the checkpoints in the store are from before.

    `bad_quartiles` has a number larger than 0 for each quartile of the timesteps in which a loss was not finite then.
    """

    if not math.isinf(first_bad):
        rate, run = settings.training.learning_rate, settings.run
        quartiles = [str(k) for k, count in enumerate(bad_quartiles.tolist(), 1) if count]
        where = f"loss of timestep quartile {', '.join(quartiles)} of {len(bad_quartiles)}" if quartiles else "weights"
        raise UserError(
            f"the loss or a weight is not finite at iteration {int(first_bad)} ({where}, learning rate {rate:g}, run"
            f" {run}); the last good state is kept in {folder}; try a lower training.learning_rate or precision fp32"
        )
