"""Every few seconds one line on how far a training is, for a terminal that several trainings share."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator

from blurdiff.config.settings import Settings
from blurdiff.runtime.text import duration


class Teller:
    """Writes "RUN seed SEED: 600 of 1200 iterations, loss 0.151, 590 images/s, 1.0 min left" to a file descriptor.

    At most one line in `seconds`, the first so long after the first call; rate and time left are those since the line
    before. A line is one write, so that lines of several trainings stay whole. A reader that is slow or gone costs
    lines and nothing else.
    """

    def __init__(self, settings: Settings, seconds: float, descriptor: int):
        self.name = f"{settings.run} seed {settings.seed}"
        self.iterations, self.batch_size = settings.training.iterations, settings.training.batch_size
        self.seconds, self.descriptor = seconds, descriptor
        self.told: tuple[int, float] | None = None  # iteration and time of the last line

    def __call__(self, iteration: int, loss: float | None) -> None:
        """Told after every iteration: its number, and the newest loss of the history (None before there is one)."""
        now = time.monotonic()
        if self.told is None:
            self.told = iteration, now
        done, passed = iteration - self.told[0], now - self.told[1]
        if done == 0 or passed < max(self.seconds, 1e-6):
            return
        self.told = iteration, now
        left = duration((self.iterations - iteration) * passed / done)
        shown = "" if loss is None else f" loss {loss:.3f},"
        line = f"{self.name}: {iteration} of {self.iterations} iterations,{shown} "
        line += f"{done * self.batch_size / passed:.0f} images/s, {left} left\n"
        with contextlib.suppress(OSError):
            # A pipe that has room takes a line whole and at once.
            if select.select([], [self.descriptor], [], 0)[1]:
                os.write(self.descriptor, line.encode())


@contextlib.contextmanager
def own_stdout() -> Iterator[int]:
    """A descriptor of standard output for this process alone; what else is printed goes to standard error meanwhile."""
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    try:
        yield descriptor
    finally:
        sys.stdout.flush()
        os.dup2(descriptor, 1)
        os.close(descriptor)
