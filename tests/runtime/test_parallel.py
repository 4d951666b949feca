import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing

import pytest

from blurdiff.errors import UserError
from blurdiff.runtime.machine import available_cores
from blurdiff.runtime.parallel import WorkerDied, ordered_map, progress


def slow_square(n):
    time.sleep(0.02 * (n % 3 == 0))
    return n * n, os.getpid()


def fail_at_three(n):
    if n == 3:
        raise UserError("record three")
    return n


def die_at_three(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_results_come_in_the_order_of_the_tasks_from_several_processes():
    results = list(ordered_map(slow_square, range(30), 2))
    assert [result for result, _ in results] == [n * n for n in range(30)]
    assert len({process for _, process in results} - {os.getpid()}) == 2


def test_tasks_are_drawn_as_they_are_needed():
    drawn = []

    def tasks():
        for n in range(1000):
            drawn.append(n)
            yield n

    for yielded, _ in enumerate(ordered_map(slow_square, tasks(), 2)):
        assert len(drawn) <= yielded + 1 + 3 * 2
        if yielded == 20:
            break


def test_an_error_in_a_worker_is_raised_here():
    results = ordered_map(fail_at_three, range(10), 1)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(UserError, match="record three"):
        next(results)


@pytest.mark.timeout(60)
def test_a_killed_worker_is_an_error_and_not_a_hang():
    with pytest.raises(WorkerDied, match="worker process died"):
        list(ordered_map(die_at_three, range(10), 2))


@pytest.mark.timeout(60)
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from blurdiff.runtime.parallel import ordered_map

            def work(n):
                print(os.getpid(), flush=True)
                time.sleep(60)

            if __name__ == "__main__":
                list(ordered_map(work, range(2), 1))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it lives
    parent.kill()
    parent.wait()
    # The worker holds the other end of the pipe: its end is the end of the file.
    assert parent.stdout.read() == ""
    parent.stdout.close()


@pytest.mark.timeout(60)
def test_workers_end_at_once_when_the_rest_is_not_wanted():
    with closing(ordered_map(time.sleep, [0, 300, 300], 2)) as results:
        next(results)


def test_available_cores_is_what_this_process_may_use():
    assert 1 <= available_cores() <= os.cpu_count()


def test_progress_in_a_log_file_is_whole_lines(capsys):
    with progress(10, "images", "preprocess") as advance:
        advance(4)
        advance(6)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("preprocess: 100%")
    assert "images/s" in lines[0]


def test_progress_goes_on_from_what_was_done_before(capsys, monkeypatch):
    """That was done at another time: it must not count for the rate."""
    now = iter([0.0, 40.0, 50.0])
    monkeypatch.setattr("blurdiff.runtime.parallel.time.monotonic", lambda: next(now))
    with progress(1000, "images", "preprocess", 900) as advance:
        advance(80)
        advance(20)
    first, last = capsys.readouterr().err.splitlines()
    assert "980/1000" in first and "2.00 images/s" in first
    assert "1000/1000" in last and "2.00 images/s" in last


def test_a_worker_that_starts_late_says_nothing_when_all_is_over(tmp_path):
    """One worker does all and fails while the others still start: one error, and no traceback of theirs beside it.

    In a process of multiprocessing's own, which frees what workers start from before it waits for them.
    """
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, os, sys, time\n"
        "from blurdiff.runtime.parallel import ordered_map\n\n"
        "if __name__ == '__mp_main__':  # in a worker: all but the first take their time\n"
        "    try:\n"
        "        os.close(os.open('first', os.O_CREAT | os.O_EXCL))\n"
        "    except FileExistsError:\n"
        "        time.sleep(1)\n\n"
        "def fail_at_last(task):\n"
        "    if task == 2:\n"
        "        raise ValueError('bad record')\n\n"
        "def stage():\n"
        "    try:\n"
        "        list(ordered_map(fail_at_last, range(3), 3))\n"
        "    except ValueError as error:\n"
        "        print(f'error: {error}', file=sys.stderr)\n\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('fork').Process(target=stage)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Until the last process has closed its end of the pipe: whatever late workers say is in here.
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == "error: bad record\n"
