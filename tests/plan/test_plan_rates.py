"""Hours from work, rates and devices."""

import pytest

from blurdiff.plan.graph import Job
from blurdiff.plan.rates import Machine, Rate, key_of, seconds_of, wall_seconds
from blurdiff.plan.work import Work


def job(*sources, threads=1, gpus=0, done=False):
    return Job("train", {}, threads, gpus, done, list(sources))


@pytest.mark.parametrize(
    ("jobs", "seconds", "cores", "gpus", "expected"),
    [
        ([job(), job(), job()], [1, 2, 3], 1, 1, 6),
        ([job(), job(), job()], [1, 2, 3], 2, 1, 4),  # the 3 waits for the 1
        ([job(done=True)], [0], 1, 1, 0),
        ([job(gpus=1, threads=4) for _ in range(6)], [1] * 6, 16, 1, 6),
        ([job(gpus=1, threads=4) for _ in range(6)], [1] * 6, 16, 3, 2),
        ([job(gpus=1, threads=4) for _ in range(6)], [1] * 6, 8, 3, 3),
        ([job(gpus=1, threads=4) for _ in range(6)], [1] * 6, 2, 3, 6),  # a job takes no more cores than there are
        ([job(gpus=8)], [1], 1, 1, 1),
    ],
)
def test_jobs_share_the_machine(jobs, seconds, cores, gpus, expected):
    assert wall_seconds(jobs, seconds, Machine(cores, gpus)) == expected


def test_one_core_takes_the_sum_and_many_the_longest_way():
    first = job()
    jobs, seconds = [first, job(first), job(first), job(first)], [1.0, 2.0, 3.0, 4.0]
    assert [wall_seconds(jobs, seconds, Machine(cores, 1)) for cores in (1, 2, 3)] == [10, 1 + 2 + 4, 1 + 4]
    first.done = True
    assert wall_seconds(jobs, seconds, Machine(1, 1)) == 9


def test_seconds_of_a_job():
    work = {"features": Work("features", "inception", 10), "preprocess": Work("preprocess", "rooms", 100)}
    machine = Machine(4, 1, rates={key_of(work["features"]): Rate(0.5, ""), key_of(work["preprocess"]): Rate(0.1, "")})

    def seconds(*works, of=None, **options):
        return seconds_of(job(**options), works, lambda work: work.amount * 1e9, of or machine)

    assert seconds() == 0
    assert seconds(work["features"]) == 5
    assert seconds(work["features"], work["features"]) == 10
    assert seconds(work["preprocess"], threads=4) == pytest.approx(100 * 0.1 / 4)
    unknown = Work("features", "efficientnet-lite0", 10)
    assert seconds(unknown) is None
    assert seconds(unknown._replace(amount=0)) == 0
    assert seconds(unknown, of=Machine(4, 1, tflops=2.0)) == pytest.approx(10 * 1e9 / 2e12)
    # Only jobs that load PyTorch pay for its start.
    machine.start = 3.0
    assert seconds(work["features"]) == 8
    assert seconds(work["preprocess"]) == 10
