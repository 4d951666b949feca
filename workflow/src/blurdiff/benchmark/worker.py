"""Rows measured in processes of their own, turn by turn.

A process of its own gives every implementation the settings that it wants (of the allocator, of TF32) and a peak memory
of its own. The rows of a stage stand ready side by side and are timed in turn, round by round, so that a slow moment of
the machine meets them all; while one is timed, the others wait for their turn and do nothing. Where memory does not
hold all of a stage, those that fit come first.
"""

import contextlib
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from blurdiff.benchmark.memory import TreeMemory, available, peak_rss
from blurdiff.benchmark.rows import Measurement, NotInstalled, Row, Work

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LONG_CALL = 3.0
# What the worker tells about a Work, besides its timings.
DESCRIPTION = ("items", "precision", "batch", "resolution", "parameters", "note")


def measure(rows: Sequence[Row], device: str, threads: int, repeats: int, seconds: float) -> list[Measurement]:
    """Time the rows of one stage, each `repeats` times about `seconds` long, and count what they compute.

    A stage with a call of more than LONG_CALL seconds is repeated three times at most. Rows whose processes do not fit
    into memory together are timed in groups, one after another, and their notes say so. A row that cannot run says why
    in its note (and on stderr) and has no seconds; the others do not suffer.
    """
    measurements = {row.implementation: Measurement(row) for row in rows}
    waiting: dict[str, list[Row]] = {}
    for row in rows:
        waiting.setdefault(row.host or row.implementation, []).append(row)
    groups: list[list[Row]] = []
    most = 0  # bytes that a process of this stage has taken
    while waiting:
        with ExitStack() as stack:
            host_of: dict[str, Host] = {}
            alive: list[Row] = []
            longest, room = 0.0, 1
            # Those that are there show how much memory one takes; at most as many more are built at once (imports and
            # compiling take longest) as there is room for beside the one that computes while the rest stand ready.
            while waiting and room > 0:
                fresh = []
                for name in list(waiting)[:room]:
                    fresh += (of_host := waiting.pop(name))
                    host = stack.enter_context(Host(of_host, "cpu" if of_host[0].on_cpu else device, threads))
                    host_of |= {row.implementation: host for row in of_host}
                longest = max(longest, _warm_up(measurements, alive, host_of, fresh, seconds))
                most = max(most, *(host.most for host in host_of.values()))
                room = min(len(set(host_of.values())), int(min(available() / (1.2 * max(most, 1)), 1e9)) - 1)
            if waiting:
                print(f"{rows[0].stage}: no memory for {len(waiting)} more processes of {most / 1e9:.1f} GB beside"
                      f" {len(set(host_of.values()))}; they come when these are timed", file=sys.stderr)  # fmt: skip
            groups.append([row for row in rows if row in alive])
            for number in range(repeats if longest < LONG_CALL else min(repeats, 3)):
                for row in [row for row in rows if row in alive][:: -1 if number % 2 else 1]:
                    measurement = measurements[row.implementation]
                    taken = _ask(measurements, alive, host_of, row, "time", measurement.calls)
                    if taken is not None:
                        measurement.seconds.append(taken)
            for row in list(alive):
                extras = _ask(measurements, alive, host_of, row, "finish")
                for name, value in (extras or {}).items():
                    setattr(measurements[row.implementation], name, value)
    for number, group in enumerate(groups, 1):
        for row in group if len(groups) > 1 else ():
            note = f"timed in group {number} of {len(groups)}, as memory did not hold all"
            found = measurements[row.implementation]
            found.note = "; ".join(filter(None, [found.note, note]))
    return list(measurements.values())


def _warm_up(measurements: dict, alive: list[Row], host_of: dict, rows: Sequence[Row], seconds: float) -> float:
    """Wait until `rows` are built and have run once; those that can are `alive`. Returns the longest call's seconds."""
    longest = 0.0
    built = []
    for row in rows:
        measurement = measurements[row.implementation]
        description = host_of[row.implementation].description(row.implementation)
        if isinstance(description, str):
            measurement.note = description
            print(f"{row.stage}, {row.implementation}: {description}", file=sys.stderr, flush=True)
            continue
        for name in DESCRIPTION:
            setattr(measurement, name, description[name])
        built.append(row)
    alive += built
    for row in built:
        once = _ask(measurements, alive, host_of, row, "warm")
        if once is not None:
            measurements[row.implementation].calls = max(1, round(seconds / max(once, 1e-9)))
            longest = max(longest, once)
    return longest


def _ask(measurements: dict, alive: list[Row], host_of: dict, row: Row, what: str, *arguments) -> object | None:
    """The answer of a row's process; None when the row fails, which is noted and ends its part."""
    host, name = host_of[row.implementation], row.implementation
    kind, value = host.ask(what, name, *arguments)
    if kind == "failed":
        measurements[name].seconds.clear()
        measurements[name].note = value
        print(f"{row.stage}, {name}: {value}", file=sys.stderr, flush=True)
        alive.remove(row)
        return None
    return value


class Host:
    """The process of one or several rows. While entered it waits for questions; then it is gone."""

    def __init__(self, rows: Sequence[Row], device: str, threads: int):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, rows, device, threads))
        with _environment({name: str(threads) for name in THREAD_VARIABLES}):
            self.process.start()
        other.close()
        self.descriptions: dict[str, object] | None = None
        self.tree_peak = 0  # bytes, of the process and those that its work starts, while it warms up
        self.most = 0  # the same, while it is built as well

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.connection.close()
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def description(self, name: str) -> object:
        """What the row's Work says of itself, once it is built; text when it cannot be."""
        if self.descriptions is None:
            with TreeMemory(self.process.pid) as memory:
                kind, self.descriptions = self._receive()
            self.most = memory.peak
            if kind == "failed":
                self.descriptions = dict.fromkeys([name], self.descriptions)
        return self.descriptions.get(name, "its process failed")

    def ask(self, what: str, name: str, *arguments) -> tuple[str, object]:
        try:
            self.connection.send((what, name, *arguments))
        except OSError:
            return "failed", "its process ended"
        if what == "warm":
            with TreeMemory(self.process.pid) as memory:
                answer = self._receive()
            self.tree_peak = memory.peak
            self.most = max(self.most, memory.peak)
            return answer
        kind, value = self._receive()
        if what == "finish" and kind == "done" and value.pop("has_processes"):
            value |= {"peak_memory": self.tree_peak or None, "memory_kind": "PSS of all its processes"}
        return kind, value

    def _receive(self) -> tuple[str, object]:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return "failed", f"its process ended with {self.process.exitcode} (killed, or out of memory?)"


@contextlib.contextmanager
def _environment(values: dict[str, str]):
    """Set environment variables for a while: a process that is started then has them from its first line."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def serve(connection, rows: Sequence[Row], device_name: str, threads: int) -> None:
    """The process's whole life: build the rows, then answer until the parent ends or says None."""
    # A spawned process would spawn its own, too; what is measured shall start them as it does elsewhere.
    multiprocessing.set_start_method(None, force=True)
    works: dict[str, Work | str] = {}
    device = None
    for row in rows:
        try:
            device = device or _device(device_name, threads)
            with contextlib.redirect_stderr(io.StringIO()) as log:
                works[row.implementation] = work = row.build(device, threads, **row.arguments)
            warnings = [line[:200] for line in log.getvalue().splitlines() if line.startswith("warning")]
            work.note = "; ".join([*filter(None, [work.note]), *warnings])
        except (NotInstalled, ModuleNotFoundError) as error:
            works[row.implementation] = f"not installed: {getattr(error, 'name', error)}"
        except Exception as error:
            works[row.implementation] = _failure(error)
    described = {
        name: work if isinstance(work, str) else {key: getattr(work, key) for key in DESCRIPTION}
        for name, work in works.items()
    }
    _free(device)
    connection.send(("ready", described))
    with contextlib.suppress(EOFError, OSError):
        while (question := connection.recv()) is not None:
            what, name, *arguments = question
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # progress
                    function = {"warm": _warm, "time": _time, "finish": _finish}[what]
                    answer = function(works[name], device, *arguments)
                    if what == "finish":
                        _free(device)
                        if len(rows) > 1 and device.type == "cpu":
                            answer |= {"peak_memory": None, "memory_kind": ""}  # of all its rows together
                connection.send(("done", answer))
            except Exception as error:
                connection.send(("failed", _failure(error)))
                _free(device)


def _device(name: str, threads: int):
    """The device, and a process as PyTorch makes it but for the number of threads: what a job of ours sets up beyond
    that, its row sets up itself."""
    import torch

    from blurdiff.runtime.devices import pick_device

    if name == "cpu":
        torch.set_num_threads(threads)
        return torch.device("cpu")
    default = torch.backends.cudnn.conv.fp32_precision
    device = pick_device(name, threads)
    torch.backends.cudnn.conv.fp32_precision = default
    return device


def _failure(error: Exception) -> str:
    return " ".join(f"failed: {type(error).__name__}: {error}".split())[:300]


def _wait(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _warm(work: Work, device) -> float:
    """Call once, which fills caches and picks algorithms, and again if that does not take long; the last seconds."""
    start = time.perf_counter()
    work.call()
    _wait(device)
    first = time.perf_counter() - start
    return first if first > LONG_CALL and device.type == "cpu" else _time(work, device, 1)


def _time(work: Work, device, calls: int) -> float:
    """Seconds of `calls` calls. On a GPU one more goes before."""
    if device.type == "cuda":
        work.call()
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        work.call()
    _wait(device)
    seconds = time.perf_counter() - start
    _free(device)
    return seconds


def _free(device) -> None:
    """Give GPU memory that is not in use back: the next row's turn may need it."""
    if device is not None and device.type == "cuda":
        import gc

        import torch

        gc.collect()  # a training step that was made to be counted refers to itself
        torch.cuda.empty_cache()


def _finish(work: Work, device) -> dict:
    """Peak memory so far, then FLOPs and bytes an item, then the result to be compared."""
    from blurdiff.benchmark.counting import count

    answer = {"has_processes": work.has_processes, **_peak_memory(device)}
    if device.type == "cuda":
        import torch

        reserved = f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB of GPU memory reserved"
        work.note = "; ".join(filter(None, [work.note, reserved]))
    if work.counted is not None:
        flops, n_bytes = count(work.counted)
        answer["flops"] = flops / work.items or None
        answer["n_bytes"] = None if work.fused else n_bytes / work.items
    if work.n_bytes is not None:
        answer["n_bytes"] = work.n_bytes
    if work.result is not None:
        answer["result"] = work.result()
    return {**answer, "note": work.note}


def _peak_memory(device) -> dict:
    import torch

    if device.type == "cuda":
        return {"peak_memory": torch.cuda.max_memory_allocated(), "memory_kind": "GPU, allocated"}
    return {"peak_memory": peak_rss(), "memory_kind": "RSS"}


def prepare(function: Callable, *arguments) -> object:
    """function(*arguments) in a process of its own, so that this one stays small; its exceptions are raised here."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
