"""Rows measured in processes of their own, turn by turn.

A process of its own gives every implementation the settings that it wants (of the allocator, of TF32) and a peak memory
of its own. The rows of a stage stand ready side by side and are timed in turn, round by round, so that a slow moment of
the machine meets them all; while one is timed, the others wait for their turn and do nothing. Where memory does not
hold all of a stage, those that fit come first.
"""

import contextlib
import gc
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar
from unittest import mock

import torch

from blurdiff.benchmark.counting import count
from blurdiff.benchmark.memory import TreeMemory, available, peak_rss
from blurdiff.benchmark.rows import Measurement, Row, Work
from blurdiff.runtime.devices import CUDNN, pick_device

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LONG_CALL = 3.0
WHOLE_TREE = "PSS of all its processes"
T = TypeVar("T")
# What a process tells of a Work before it runs.
DESCRIPTION = ("items", "precision", "batch", "resolution", "parameters", "note")


def measure(rows: Sequence[Row], device: str, threads: int, repeats: int, seconds: float) -> list[Measurement]:
    """Time the rows of one stage, each `repeats` times about `seconds` long, and count what they compute.

    A stage with a call of more than LONG_CALL seconds is repeated three times at most. Rows whose processes do not fit
    into memory together are timed in groups, one after another, and their notes say so. A row that cannot run says why
    in its note (and on stderr) and has no seconds; the others do not suffer.
    """
    measurements = [Measurement(row) for row in rows]
    shared: dict[str, list[Measurement]] = {}
    for each in measurements:
        shared.setdefault(each.row.host or each.row.implementation, []).append(each)
    waiting, groups = list(shared.values()), []
    most = 0  # bytes that a process of this stage has taken
    while waiting:
        with contextlib.ExitStack() as stack:
            hosts: list[Host] = []
            room, longest = 1, 0.0
            # Those that are there show how much memory one takes; at most as many more are built at once (imports and
            # compiling take longest) as there is room for beside the one that computes while the rest stand ready.
            while waiting and room > 0:
                fresh = [stack.enter_context(Host(each, device, threads)) for each in waiting[:room]]
                del waiting[:room]
                for host in fresh:
                    host.describe()
                for host in fresh:
                    longest = max(longest, host.warm_up(seconds))
                hosts += fresh
                most = max(most, *(host.most for host in hosts))
                room = min(len(hosts), int(min(available() / (1.2 * max(most, 1)), 1e9)) - 1)
            if waiting:
                print(f"{rows[0].stage}: no memory for {len(waiting)} more processes of {most / 1e9:.1f} GB beside"
                      f" {len(hosts)}; they come when these are timed", file=sys.stderr)  # fmt: skip
            turns = [(host, each) for host in hosts for each in host.measurements]
            groups.append([each for _, each in turns if not each.failed])
            for number in range(repeats if longest < LONG_CALL else min(repeats, 3)):
                for host, each in turns[:: -1 if number % 2 else 1]:
                    host.time(each)
            for host, each in turns:
                host.finish(each)
    for number, group in enumerate(groups, 1):
        for each in group if len(groups) > 1 else ():
            together = f"timed in group {number} of {len(groups)}, as memory did not hold all"
            each.told["note"] = _joined(each.told["note"], together)
    return measurements


class Failure(Exception):
    """Why a row's process has no answer; the text stands in the table."""


class Host:
    """The process of one or several rows, which builds them and waits for questions. Once left, it is gone.

    What a row fails at is noted in its measurement, and it is asked nothing more. A `daemon` may start no processes.
    """

    def __init__(self, measurements: Sequence[Measurement], device: str, threads: int, daemon: bool = False):
        self.measurements = measurements
        rows = [each.row for each in measurements]
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        used = "cpu" if rows[0].on_cpu else device
        self.process = context.Process(target=serve, args=(other, rows, used, threads), daemon=daemon)
        with mock.patch.dict(os.environ, dict.fromkeys(THREAD_VARIABLES, str(threads))):  # from its first line on
            self.process.start()
        other.close()
        self.most = 0  # bytes, of the process and those that its work starts, until it is warm
        self.warm_peak = 0  # the same, while it warms up

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_) -> None:
        self.connection.close()  # the process sees the end
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def describe(self) -> None:
        """Wait until all is built."""
        with TreeMemory(self.process.pid) as memory:
            for each in self.measurements:
                each.told |= self._ask(each, describe) or {}
        self.most = memory.peak

    def warm_up(self, seconds: float) -> float:
        """Let each row run, and choose how many calls take so many seconds; returns those of the longest call."""
        longest = 0.0
        with TreeMemory(self.process.pid) as memory:
            for each in self.measurements:
                if (once := self._ask(each, warm)) is not None:
                    each.calls = max(1, round(seconds / max(once, 1e-9)))
                    longest = max(longest, once)
        self.warm_peak = memory.peak
        self.most = max(self.most, memory.peak)
        return longest

    def time(self, measurement: Measurement) -> None:
        if (taken := self._ask(measurement, time_calls, measurement.calls)) is not None:
            measurement.seconds.append(taken)

    def finish(self, measurement: Measurement) -> None:
        """What can be told once all is timed: memory, operations, and the result."""
        told = self._ask(measurement, finish) or {}
        if told.get("memory_kind") == WHOLE_TREE:
            told["peak_memory_bytes"] = self.warm_peak or None
        elif len(self.measurements) > 1 and told.get("memory_kind") == "RSS":
            told |= {"peak_memory_bytes": None, "memory_kind": ""}  # of all its rows together
        measurement.told |= told

    def _ask(self, measurement: Measurement, question: Callable, *arguments):
        """The answer; None from a row that fails, which ends its part."""
        if measurement.failed:
            return None
        try:
            self.send(measurement.row, question, *arguments)
            return self.receive()
        except Failure as failure:
            measurement.failed, measurement.told["note"] = True, str(failure)
            measurement.seconds.clear()
            row = measurement.row
            print(f"{row.stage}, {row.implementation}: {failure}", file=sys.stderr, flush=True)
            return None

    def send(self, row: Row, question: Callable, *arguments) -> None:
        """Ask for question(the row's work, *arguments)."""
        try:
            self.connection.send((question, row.implementation, *arguments))
        except OSError as error:
            raise Failure("its process ended") from error

    def receive(self):
        """The answer to the question that was sent; Failure instead of one."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join(5)
            ended = f"its process ended with {self.process.exitcode} (killed, or out of memory?)"
            raise Failure(ended) from error
        if isinstance(answer, Failure):
            raise answer
        return answer


def serve(connection, rows: Sequence[Row], device_name: str, threads: int) -> None:
    """The process's whole life: build the rows, then answer until nobody asks."""
    # A spawned process would spawn its own, too; what is measured shall start them as it does elsewhere.
    multiprocessing.set_start_method(None, force=True)
    works = {row.implementation: _caught(_build, row, device_name, threads) for row in rows}
    with contextlib.suppress(EOFError, OSError):
        while True:
            question, name, *arguments = connection.recv()
            work = works[name]
            answer = work if isinstance(work, Failure) else _caught(question, work, *arguments)
            _free()
            connection.send(answer)


def _caught(function: Callable, *arguments):
    """function(*arguments), or the Failure that tells why there is nothing."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress
            return function(*arguments)
    except Failure as failure:
        return failure
    except ModuleNotFoundError as error:
        return Failure(f"not installed: {(error.name or str(error)).replace('_', '-')}")
    except Exception as error:
        return Failure(" ".join(f"failed: {type(error).__name__}: {error}".split())[:300])


def _build(row: Row, device_name: str, threads: int) -> Work:
    """The work, in a process as PyTorch makes it but for the number of threads: what a job of ours sets up beyond
    that, its row sets up itself. Its warnings are noted."""
    if device_name == "cpu":
        torch.set_num_threads(threads)
        device = torch.device("cpu")
    else:
        default = CUDNN.conv.fp32_precision
        device = pick_device(device_name, threads)
        CUDNN.conv.fp32_precision = default
    with contextlib.redirect_stderr(io.StringIO()) as log:
        work = row.build(device, threads, **row.arguments)
    work.note = _joined(work.note, *(line[:200] for line in log.getvalue().splitlines() if line.startswith("warning")))
    work.on_gpu = device.type == "cuda"
    return work


def describe(work: Work) -> dict:
    """What is known of a work before it runs."""
    return {name: getattr(work, name) for name in DESCRIPTION}


def warm(work: Work) -> float:
    """Call once, which fills caches and picks algorithms, and again if that does not take long; the last seconds."""
    first = _timed(work, 1)
    return first if first > LONG_CALL and not work.on_gpu else time_calls(work, 1)


def time_calls(work: Work, calls: int) -> float:
    """Seconds of `calls` calls. On a GPU one more goes before."""
    if work.on_gpu:
        work.call()
    return _timed(work, calls)


def _timed(work: Work, calls: int) -> float:
    wait = torch.cuda.synchronize if work.on_gpu else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        work.call()
    wait()
    return time.perf_counter() - start


def _free() -> None:
    """Give GPU memory that is not in use back: the next row's turn may need it."""
    if torch.cuda.is_initialized():
        gc.collect()  # a training step that was made to be counted refers to itself
        torch.cuda.empty_cache()


def finish(work: Work) -> dict:
    """Peak memory so far, then FLOPs and bytes an item, then the result to be compared."""
    answer = {"peak_memory_bytes": peak_rss(), "memory_kind": "RSS"}
    if work.on_gpu:
        answer = {"peak_memory_bytes": torch.cuda.max_memory_allocated(), "memory_kind": "GPU, allocated"}
        reserved = f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB of GPU memory reserved"
        work.note = _joined(work.note, reserved)
    if work.has_processes:
        answer["memory_kind"] = WHOLE_TREE  # which is watched from outside
    if work.counted is not None:
        flops, n_bytes = count(work.counted)
        answer["flops_per_item"] = flops / work.items or None
        answer["bytes_per_item"] = None if work.fused else n_bytes / work.items
    if work.n_bytes is not None:
        answer["bytes_per_item"] = work.n_bytes
    if work.result is not None:
        answer["result"] = work.result()
    return {**answer, "note": work.note}


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def elsewhere(function: Callable[..., T], *arguments) -> T:
    """function(*arguments) in a process of its own; its exceptions are raised here."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
