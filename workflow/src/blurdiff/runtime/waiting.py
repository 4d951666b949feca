"""A wait that may become long says what it waits for."""

import contextlib
import threading
from collections.abc import Iterator

from blurdiff.runtime.text import say

SILENT_SECONDS = 5.0


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Say on stderr, once, what is waited for when what is done inside takes more than some seconds."""
    timer = threading.Timer(SILENT_SECONDS, say, [f"waiting for {what} …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
