"""Hours from work, rates and devices."""

import pytest

from blurdiff.plan.graph import Job
from blurdiff.plan.rates import Machine, Rate, key_of, seconds_of, wall_seconds
from blurdiff.plan.work import Work, flops_of_work


def job(*sources, seconds=1.0, threads=1, gpus=0, done=False, work=()):
    return Job("train", {}, threads, gpus, done, list(sources), list(work), seconds)


def jobs(n, **options):
    return [job(**options) for _ in range(n)]


@pytest.mark.parametrize(
    ("jobs", "cores", "gpus", "expected"),
    [
        ([job(), job(seconds=2), job(seconds=3)], 1, 1, 6),
        ([job(), job(seconds=2), job(seconds=3)], 2, 1, 4),  # the 3 waits for the 1
        ([job(done=True)], 1, 1, 0),
        (jobs(6, gpus=1, threads=4), 16, 1, 6),
        (jobs(6, gpus=1, threads=4), 16, 3, 2),
        (jobs(6, gpus=1, threads=4), 8, 3, 3),
        (jobs(6, gpus=1, threads=4), 2, 3, 6),  # a job takes no more cores than there are
        (jobs(1, gpus=8), 1, 1, 1),
    ],
)
def test_jobs_share_the_machine(jobs, cores, gpus, expected):
    assert wall_seconds(jobs, Machine(cores, gpus)) == expected


def test_one_core_takes_the_sum_and_many_the_longest_way():
    first = job()
    all_jobs = [first, *(job(first, seconds=n) for n in (2, 3, 4))]
    assert [wall_seconds(all_jobs, Machine(cores, 1)) for cores in (1, 2, 3)] == [10, 1 + 2 + 4, 1 + 4]
    first.done = True
    assert wall_seconds(all_jobs, Machine(1, 1)) == 9


def test_seconds_of_a_job():
    features, preprocess = Work("features", "inception", 10), Work("preprocess", "rooms", 100)
    unknown = Work("features", "efficientnet-lite0", 10)
    machine = Machine(4, 1, rates={key_of(features): Rate(0.5, ""), key_of(preprocess): Rate(0.1, "")})

    def seconds(*work, of=machine, threads=1):
        return seconds_of(job(work=work, threads=threads), 16, of)

    assert seconds() == 0
    assert seconds(features) == 5
    assert seconds(features, features) == 10
    assert seconds(preprocess, threads=4) == pytest.approx(100 * 0.1 / 4)
    assert seconds(unknown) is None
    assert seconds(unknown._replace(amount=0)) == 0
    guessed = flops_of_work(unknown, 16) / 2e12
    assert seconds(unknown, of=Machine(4, 1, tflops=2.0)) == pytest.approx(guessed)
    # Only jobs that load PyTorch pay for its start.
    machine.start = 3.0
    assert seconds(features) == 8
    assert seconds(preprocess) == 10
