"""Work spread over processes, with results in the order of the tasks and a bounded number of them in memory."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice

from tqdm import tqdm

from blurdiff.errors import UserError


def available_cores() -> int:
    """The number of cores that this process may use (a batch system or a container may grant fewer than exist)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable, tasks: Iterable, workers: int) -> Iterator:
    """Yield function(task) for each task, in order, computed by `workers` processes.

    Tasks are drawn lazily, and at most 3 a worker are waiting, running or finished: memory stays constant however slow
    the consumer is. `function` is one of a module's (processes are spawned, so nothing is inherited: no open LMDB, no
    lock held by a thread). Its exceptions are raised here; UserError when a worker process dies. Close the iterator
    (contextlib.closing) when it may be left before its end.
    """
    tasks = iter(tasks)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_follow_parent) as pool:
        pending = deque()
        try:
            pending.extend(pool.submit(function, task) for task in islice(tasks, 3 * workers))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, task) for task in islice(tasks, 1))
                yield result
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory, killed, or a disk that cannot be read): use fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when the parent dies: killed, it cannot tell its workers to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def progress(total: int, unit: str, description: str) -> Iterator[Callable[[int], None]]:
    """Show progress with rate and time left on stderr; gives the function to call with the number just done.

    On a terminal it is a tqdm bar; in a log file, one line every half a minute and one at the end.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, unit=f" {unit}", desc=description, smoothing=0.05) as bar:
            yield bar.update
        return
    done, start = 0, time.monotonic()
    last = start

    def update(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= 30 or done >= total:
            last = now
            line = tqdm.format_meter(done, total, now - start, ncols=0, unit=f" {unit}", prefix=description)
            print(line, file=sys.stderr, flush=True)

    yield update
