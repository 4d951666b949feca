"""Work spread over processes, with results in the order of the tasks and a bounded number of them in memory."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from blurdiff.errors import UserError
from blurdiff.runtime.allocator import keep_freed_memory
from blurdiff.runtime.text import say


class WorkerDied(UserError):
    """A worker process ended without a word."""


def ordered_map(function: Callable, tasks: Iterable, workers: int) -> Generator:
    """Yield function(task) for each task, in order, computed by `workers` processes.

    Tasks are drawn lazily, and at most 3 a worker are waiting, running or finished: memory stays constant however slow
    the consumer is. `function` is one of a module's (processes are spawned, so nothing is inherited: no open LMDB, no
    lock held by a thread). Its exceptions are raised here; WorkerDied when a worker process dies. Close the iterator
    (contextlib.closing) when it may be left before its end: workers then end at once, whatever they are doing.
    """
    tasks, context = iter(tasks), multiprocessing.get_context("spawn")
    # Nothing is ever sent: only this process has the writing end, and when that is closed, or this process dies, ...
    lifeline, end = context.Pipe(duplex=False)
    with lifeline, end, ProcessPoolExecutor(workers, context, _start, (lifeline,)) as pool:
        pending: deque = deque()
        try:
            pending.extend(pool.submit(function, task) for task in islice(tasks, 3 * workers))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, task) for task in islice(tasks, 1))
                yield result
            pool.shutdown()
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a worker process died (out of memory, killed, or a disk that cannot be read): use fewer --workers"
            ) from error
        finally:
            # Workers end at once, and are waited for: one that is still starting must not outlive what it starts from.
            end.close()
            pool.shutdown(cancel_futures=True)


def _start(lifeline: Connection) -> None:
    """The beginning of a worker."""
    keep_freed_memory()
    _follow_parent(lifeline)


def _follow_parent(lifeline: Connection) -> None:
    """Leave Ctrl-C and Slurm's warning to the parent; end when it closes the lifeline (killed, it cannot tell us)."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        lifeline.poll(None)  # ... a worker sees the end of the pipe
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def progress(total: int, unit: str, description: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress with rate and time left on stderr; gives the function to call with the number just done.

    `done` of them were done in an earlier run, and do not count for the rate. Bytes (unit "B") are shown in kB, MB or
    GB. On a terminal it is a tqdm bar; in a log file, one line every half a minute and one at the end.
    """
    look: dict[str, Any] = {"unit": "B", "unit_scale": True} if unit == "B" else {"unit": f" {unit}"}
    if sys.stderr.isatty():
        with tqdm(total=total, desc=description, smoothing=0.05, initial=done, **look) as bar:
            yield bar.update
        return
    initial, start = done, time.monotonic()
    last = start

    def update(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= 30 or done >= total:
            last = now
            say(tqdm.format_meter(done, total, now - start, ncols=0, prefix=description, initial=initial, **look))

    yield update
