"""Hours from work, rates and devices."""

import pytest

from blurdiff.plan.calibrate import Rate
from blurdiff.plan.estimate import Machine, seconds_of, wall_seconds
from blurdiff.plan.jobs import Job, Work


def job(sources=(), threads=1, gpus=0, work=(), rule="train", done=False):
    device = "cuda" if gpus else "cpu"
    return Job(rule, "", [], list(sources), device, threads, gpus, list(work), torch=False, done=done)


def test_one_core_takes_the_sum_and_many_the_longest_way():
    first = job()
    jobs = [first, job([first]), job([first]), job([first])]
    seconds = [1.0, 2.0, 3.0, 4.0]
    assert wall_seconds(jobs, seconds, Machine(cores=1, gpus=1)) == 10
    assert wall_seconds(jobs, seconds, Machine(cores=3, gpus=1)) == 1 + 4
    assert wall_seconds(jobs, seconds, Machine(cores=2, gpus=1)) == 1 + 2 + 4  # the 4 waits for the 2


def test_what_is_done_costs_nothing():
    first = job(done=True)
    assert wall_seconds([first, job([first])], [0.0, 2.0], Machine(cores=1, gpus=1)) == 2
    assert wall_seconds([first], [0.0], Machine(cores=1, gpus=1)) == 0


def test_gpus_are_shared_and_threads_count():
    jobs = [job(gpus=1, threads=4) for _ in range(6)]
    assert wall_seconds(jobs, [1.0] * 6, Machine(cores=16, gpus=1)) == 6
    assert wall_seconds(jobs, [1.0] * 6, Machine(cores=16, gpus=3)) == 2
    assert wall_seconds(jobs, [1.0] * 6, Machine(cores=8, gpus=3)) == 3
    assert wall_seconds(jobs, [1.0] * 6, Machine(cores=2, gpus=3)) == 6  # a job takes no more cores than there are
    assert wall_seconds([job(gpus=8)], [1.0], Machine(cores=1, gpus=1)) == 1


def test_seconds_of_a_job():
    machine = Machine(cores=4, gpus=1, start=0.0)
    rates = {"train": Rate(0.5, ""), "preprocess": Rate(0.1, ""), "sample": None}

    def seconds(rule="train", machine=machine, **options):
        return seconds_of(
            job(rule=rule, **options), rates, lambda work: work.kind, lambda work: work.amount * 1e9, machine
        )

    assert seconds(work=[Work("train", "0", 10)]) == 5
    assert seconds(work=[Work("train", "0", 20)]) == 2 * seconds(work=[Work("train", "0", 10)])
    assert seconds(work=[Work("train", "0", 10)], gpus=2) == 2.5
    assert seconds(work=[Work("preprocess", "0", 100)], threads=16) == pytest.approx(100 * 0.1 / 4)  # four cores
    assert seconds(work=[Work("preprocess", "0", 100)], threads=2) == pytest.approx(100 * 0.1 / 2)
    assert seconds(work=[Work("sample", "0", 10)], gpus=1) is None
    assert seconds(work=[Work("sample", "0", 0)], gpus=1) == 0
    assert seconds(work=[Work("sample", "0", 10)], done=True) == 0
    guessed = Machine(cores=4, gpus=1, tflops=2.0)
    assert seconds(work=[Work("sample", "0", 10)], machine=guessed) == pytest.approx(10 * 1e9 / 2e12)


def test_the_start_of_a_process_counts():
    machine = Machine(cores=1, gpus=1, start=3.0)
    with_torch = Job("gather", "", [], [])
    assert seconds_of(with_torch, {}, None, None, machine) == 3
    assert seconds_of(job(), {}, None, None, machine) == 0
