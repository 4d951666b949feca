"""A wait that may become long says what it waits for."""

import contextlib
import sys
import threading
from collections.abc import Iterator

SILENT_SECONDS = 5.0


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Say on stderr, once, what is waited for when what is done inside takes more than some seconds."""

    def say() -> None:
        print(f"waiting for {what} …", file=sys.stderr, flush=True)

    timer = threading.Timer(SILENT_SECONDS, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
