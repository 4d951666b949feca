"""Two processes at the same work, and clocks that jump: who comes second waits, and nothing depends on the time."""

import os
import random
import shutil
import signal
import subprocess
import time
from functools import partial

from fault_helpers import (
    DATA,
    ITERATIONS,
    RUN,
    STORE,
    Stage,
    check_same,
    checkpoints,
    commands,
    remove,
    run_well,
    shorten_training,
)


def test_second_trainer_takes_over_from_a_killed_one(finished, undisturbed, faults, tmp_path):
    """Two folders share a store. The one waits for the other, and goes on from its last checkpoint when it dies."""
    remove(finished / STORE)
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", str(finished), str(other)], check=True)
    remove(other / RUN / "model.safetensors", other / RUN / "history.csv")
    command = commands(store=str(finished / STORE))["train"][0]
    faults.inject("two trainers of one model")
    first = Stage(finished, command)
    deadline = time.monotonic() + 120
    while not checkpoints(finished):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(first.process.pid, signal.SIGSTOP)  # so that it does not end before the second has started
    assert list(checkpoints(finished))[-1] < ITERATIONS
    second = Stage(other, command)
    second.read_until("waiting for it to end")
    faults.inject("SIGKILL train, another waits")
    first.process.kill()
    assert first.end().status == -signal.SIGKILL
    assert second.end().status == 0
    assert "the store has this model" in run_well(finished, "train")
    check_same(finished, undisturbed)
    assert (other / RUN / "model.safetensors").read_bytes() == (finished / RUN / "model.safetensors").read_bytes()
    faults.settle()


def test_two_at_once_write_the_same_files(finished, undisturbed, faults):
    """As when Snakemake is killed, its jobs go on, and a new Snakemake starts them too."""
    for stage in ("preprocess", "sample"):
        remove(*(finished / output for output in commands()[stage][1]))
        faults.inject(f"two jobs of {stage} at once")
        both = [Stage(finished, commands()[stage][0]) for _ in range(2)]
        assert [one.end().status for one in both] == [0, 0]
    check_same(finished, undisturbed)
    faults.settle()


def jumping_clock(seed: int) -> None:
    """Let the calling process see a wall clock that jumps by up to a year at every look."""
    rng, real = random.Random(seed), time.time
    time.time = lambda: real() + rng.uniform(-1, 1) * 365 * 86400
    time.time_ns = lambda: int(time.time() * 1e9)


def test_clock_jumps_under_a_process(finished, undisturbed, faults):
    shorten_training(finished)
    shutil.rmtree(finished / DATA)
    for stage in ("preprocess", "train", "sample"):
        faults.inject("a clock that jumps at every look")
        ended = Stage(finished, commands()[stage][0], partial(jumping_clock, 0)).end()
        assert ended.status == 0, ended.output
    check_same(finished, undisturbed)
    faults.settle()
