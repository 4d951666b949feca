import os
import time

import numpy as np
import pytest

from blurdiff.benchmark import worker
from blurdiff.benchmark.memory import TreeMemory, peak_rss
from blurdiff.benchmark.rows import Row, Work
from blurdiff.benchmark.worker import elsewhere, measure

# What rows build, in processes of their own that find this module by its name.


def logging_row(device, threads, path, name):
    def call():
        time.sleep(0.01)
        with open(path, "a", encoding="utf-8") as file:
            file.write(name)

    return Work(call, 5, batch=3, note="as it was", result=lambda: np.array([float(os.environ["OMP_NUM_THREADS"])]))


def counted_row(device, threads):
    import torch

    a = torch.ones(4, 4)
    return Work(lambda: a @ a, 2, counted=lambda: a @ a)


def missing_row(device, threads):
    import a_package_that_nobody_has  # noqa: F401


def failing_row(device, threads):
    raise ValueError("it cannot\nbe built")


def dying_row(device, threads):
    calls = []

    def call():
        calls.append(1)
        if len(calls) > 1:
            os._exit(3)

    return Work(call, 1)


def warning_row(device, threads):
    import sys

    print("warning: slower than it could be", file=sys.stderr)
    return Work(lambda: print("progress", file=sys.stderr), 1)


def test_rows_are_timed_in_turns_and_one_that_fails_leaves_the_others_alone(tmp_path, capfd):
    path = str(tmp_path / "log")
    rows = [
        Row("stage", "a", logging_row, {"path": path, "name": "a"}),
        Row("stage", "missing", missing_row),
        Row("stage", "failing", failing_row),
        Row("stage", "dying", dying_row),
        Row("stage", "b", logging_row, {"path": path, "name": "b"}),
    ]
    found = {m.row.implementation: m for m in measure(rows, "cpu", threads=2, repeats=3, seconds=0.02)}
    assert list(found) == ["a", "missing", "failing", "dying", "b"]
    assert found["missing"].told["note"] == "not installed: a-package-that-nobody-has"
    assert found["failing"].told["note"] == "failed: ValueError: it cannot be built"
    assert found["dying"].told["note"].startswith("its process ended with 3")
    assert not any(found[name].seconds for name in ("missing", "failing", "dying"))
    error = capfd.readouterr().err
    assert "stage, failing: failed: ValueError" in error and "stage, dying: its process ended" in error
    for name in "ab":
        m = found[name]
        assert len(m.seconds) == 3 and (m.told["items"], m.told["batch"], m.told["note"]) == (5, 3, "as it was")
        assert all(seconds >= 0.01 * m.calls for seconds in m.seconds)
        assert m.told["result"] == [2.0]  # the threads that were asked for
        assert m.told["peak_memory_bytes"] > 1e7 and m.told["memory_kind"] == "RSS"
    timed = (tmp_path / "log").read_text()
    # Two calls each to warm up; then the rounds, every other one reversed.
    a, b = found["a"].calls, found["b"].calls
    assert timed == "aabb" + "a" * a + "b" * b + "b" * b + "a" * a + "a" * a + "b" * b


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells")
def test_rows_that_do_not_fit_into_memory_together_come_one_after_another(tmp_path, capfd, monkeypatch):
    assert 1e6 < worker.available() < 1e15
    path = str(tmp_path / "log")
    rows = [Row("stage", name, logging_row, {"path": path, "name": name}) for name in "ab"]
    monkeypatch.setattr(worker, "available", lambda: 1e6)
    found = measure(rows, "cpu", threads=1, repeats=2, seconds=0.0)
    assert (tmp_path / "log").read_text() == "aaaabbbb"
    assert [m.told["note"] for m in found] == [
        f"as it was; timed in group {k} of 2, as memory did not hold all" for k in (1, 2)
    ]
    assert "no memory for 1 more processes" in capfd.readouterr().err


def test_rows_of_one_process_and_what_is_counted():
    rows = [Row("stage", "one", counted_row, host="both"), Row("stage", "two", warning_row, host="both")]
    one, two = measure(rows, "cpu", threads=1, repeats=2, seconds=0.0)
    assert (one.calls, one.told["flops_per_item"], one.told["bytes_per_item"]) == (1, 2 * 4**3 / 2, 3 * 64 / 2)
    assert one.told["peak_memory_bytes"] is None  # of both together, which says nothing of either
    assert two.told["note"] == "warning: slower than it could be" and len(two.seconds) == 2


def test_what_runs_elsewhere_raises_here():
    assert elsewhere(os.getppid) == os.getpid()
    with pytest.raises(ZeroDivisionError):
        elsewhere(divmod, 1, 0)


def test_peak_memory_grows():
    before = peak_rss()
    block = np.ones(before // 8 + 1_000_000)
    assert peak_rss() > before and block.sum() > 0


PARENT = """
import subprocess, sys, time
child = "block = bytearray(30_000_000); print(flush=True); import time; time.sleep(60)"
children = [subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) for _ in range(int(sys.argv[1]))]
for each in children:
    each.stdout.readline()
print(flush=True)
sys.stdin.read()
for each in children:
    each.kill()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells")
def test_memory_of_a_process_and_its_children():
    import subprocess
    import sys

    def peak(n_children):
        # Not of this process: what it shares with others that come and go counts less the more they are.
        command = [sys.executable, "-c", PARENT, str(n_children)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
            parent.stdout.readline()
            with TreeMemory(parent.pid) as memory:
                time.sleep(0.5)
        return memory.peak

    own = peak(0)
    assert own > 1e6 and peak(2) > own + 5e7
