"""A GPU for each of several jobs that run side by side on one machine."""

import fcntl
import os
from itertools import count
from pathlib import Path


def claim(names: list[str], folder: Path) -> int:
    """The index of the name that the fewest living processes have claimed in `folder`, held until this process ends.

    The claims are locks of the system on files in `folder`, so that a killed process keeps none.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for round_ in count():
        for index, name in enumerate(names):
            descriptor = os.open(folder / f"{name}.{round_}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return index  # the descriptor stays open, and with it the lock
    raise AssertionError("not reached")
