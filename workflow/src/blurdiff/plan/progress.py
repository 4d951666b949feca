"""How far the models of a config are: in the store, being trained, at which iteration, with how much time left."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from blurdiff.errors import UserError
from blurdiff.store.listing import Need, StoredModel, needs_of, read_store


@dataclass
class Progress:
    """One model that runs of the config need. Times are in seconds."""

    runs: list[str]
    iterations: int  # of the longest of these runs
    certain: bool  # False when the images are not known yet: then it is a model that is otherwise the same
    at: int = 0  # the iteration that training would go on from now
    finished: bool = False
    holder: str | None = None  # who trains it
    fingerprint: str | None = None  # None when it is not in the store
    seconds_per_iteration: float | None = None  # as its own history has it, on the device that it is trained on
    checkpoint_age: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds until it is trained, at its own rate; what a running job did since its checkpoint is done."""
        if self.finished or self.seconds_per_iteration is None:
            return 0.0 if self.finished else None
        left = (self.iterations - self.at) * self.seconds_per_iteration
        return max(0.0, left - self.checkpoint_age) if self.holder and self.checkpoint_age else left


def progress_of(config: dict, name: str) -> tuple[list[Progress], dict[tuple[str, str], int]]:
    """(the distinct models of a config, {(run, seed): iterations that it has left to do} of the runs that are trained).

    Runs that differ in sampling alone share a model; of those that differ in length, one goes on from the other.
    """
    needs = needs_of(config, name)
    try:
        stored = read_store(config["store"]).models
    except UserError:
        stored = []
    groups: list[list[Need]] = []
    for need in needs:
        same = next(
            (group for group in groups if group[0].value == need.value and group[0].dataset == need.dataset), None
        )
        same.append(need) if same else groups.append([need])
    models, left = [], dict.fromkeys(((need.run, str(need.seed)) for need in needs), 0)
    for group in groups:
        longest = max(group, key=lambda need: need.iterations)
        fitting = [model for model in stored if longest.fits(model)]
        model = max(fitting, key=lambda model: start_of(model, longest.iterations), default=None)
        models.append(_progress(group, longest, model))
        reached = 0
        for need in group:
            start = max(start_of(model, need.iterations) if model else 0, reached if reached <= need.iterations else 0)
            left[need.run, str(need.seed)] = need.iterations - start
            reached = max(reached, need.iterations)
    return models, left


def start_of(model: StoredModel, iterations: int) -> int:
    """The iteration from which a training of so many iterations would go on: all of them if it is finished."""
    if iterations in model.trained:
        return iterations
    return max((iteration for iteration in model.checkpoints if iteration <= iterations), default=0)


def _progress(group: list[Need], longest: Need, model: StoredModel | None) -> Progress:
    """How far the model of a group of runs is."""
    found = Progress([need.name for need in group], longest.iterations, certain=not longest.unknown)
    if model is None:
        return found
    found.at, found.finished = start_of(model, longest.iterations), longest.iterations in model.trained
    found.holder, found.fingerprint = model.holder, model.fingerprint
    if not found.finished and (checkpoint := model.checkpoints.get(found.at)):
        found.seconds_per_iteration = seconds_per_iteration(checkpoint)
        with contextlib.suppress(OSError):  # the trainer has replaced it meanwhile
            found.checkpoint_age = max(0.0, time.time() - os.stat(checkpoint).st_mtime)
    return found


def seconds_per_iteration(checkpoint: Path) -> float | None:
    """From the last row of the history in a checkpoint, or from its whole time; None when it cannot be read.

    The file is mapped, so that of gigabytes only the history is read.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        rows = [(0, 0.0), *((row[0], row[1]) for row in state["history"])]
        if len(rows) == 1:
            rows.append((state["iteration"], state["seconds"]))
        (first, start), (last, end) = rows[-2:]
        return (end - start) / (last - first)
    except Exception:  # damaged: training will say so and go back to the checkpoint before
        return None
