"""From jobs and rates to hours: how long a config takes on given devices."""

import heapq
import json
from dataclasses import dataclass

from blurdiff.plan import calibrate
from blurdiff.plan.calibrate import Rate
from blurdiff.plan.jobs import Dataset, Job, Work


@dataclass
class Machine:
    """Where the jobs run, and what is known of its speed. `tflops` is the user's guess where nothing is measured."""

    cores: int
    gpus: int
    tflops: float | None = None
    start: float = 0.0  # of a process that loads PyTorch, seconds


def key_of(work: Work, config: dict, runs: list[dict], has_images: bool = True) -> str:
    """What decides the cost of a unit: work of one key is measured once."""
    chosen: list = [work.kind]
    if work.kind in ("train", "sample"):
        settings = runs[int(work.of)]
        section = settings["training" if work.kind == "train" else "sampling"]
        keys = ("batch_size", "micro_batch_size", "precision", "device", "threads", "gpus", "nodes", "sampler")
        chosen += [settings["resolution"], settings["network"], {key: section[key] for key in keys if key in section}]
    elif work.kind == "features":
        chosen.append(config["evaluation"])
    else:
        chosen.append(work.of)
    return json.dumps(chosen, sort_keys=True)


def measure(work: Work, config: dict, runs: list[dict], datasets: dict[str, Dataset], seconds: float, compiled: bool):
    """The Rate of a unit of this work on the present device; None where that device is not here."""
    import torch

    def absent(section: dict) -> bool:
        return section["device"] == "cuda" and not torch.cuda.is_available()

    if work.kind == "train":
        settings = runs[int(work.of)]
        return None if absent(settings["training"]) else calibrate.training(settings, seconds, compiled)
    if work.kind == "sample":
        settings = runs[int(work.of)]
        return None if absent(settings["sampling"]) else calibrate.sampling(settings, seconds, compiled)
    if work.kind == "features":
        evaluation = config["evaluation"]
        return None if absent(evaluation) else calibrate.features(evaluation, config["resolution"], seconds)
    if work.kind == "preprocess":
        return calibrate.preprocess(datasets[work.of], config["resolution"], seconds)
    if work.kind == "synthesize":
        return calibrate.synthesize(datasets[work.of].section, seconds)
    return calibrate.distance(int(work.of), seconds)


def seconds_of(job: Job, rates: dict[str, Rate | None], key, flops, machine: Machine) -> float | None:
    """Seconds that a job takes; None when a rate that it needs is not known. `key` and `flops` are functions of Work.

    A training on several GPUs is taken to be as many times as fast, and data are read and drawn by as many processes as
    the job has cores.
    """
    if job.done:
        return 0.0
    total = machine.start if job.torch else 0.0
    for work in job.work:
        if not work.amount:
            continue
        rate = rates.get(key(work))
        at_once = 1
        if work.kind == "train":
            at_once = max(1, job.gpus)
        elif work.kind in ("preprocess", "synthesize"):
            at_once = min(job.threads, machine.cores)
        if rate is not None:
            total += work.amount * rate.seconds / at_once
        elif machine.tflops and flops(work):
            total += flops(work) / (machine.tflops * 1e12) / at_once
        else:
            return None
    return total


def wall_seconds(jobs: list[Job], seconds: list[float], machine: Machine) -> float:
    """Seconds until all jobs are done: each starts when its sources are and enough cores and GPUs are free.

    A job takes its threads, but no more than there are, and its GPUs; among those that can start the first in the list
    does, as Snakemake's own choice is not known beforehand.
    """
    waiting = [(job, time) for job, time in zip(jobs, seconds, strict=True) if not job.done]
    done = {id(job) for job in jobs if job.done}
    running: list[tuple[float, int, Job]] = []
    cores, gpus, now = machine.cores, machine.gpus, 0.0
    while waiting or running:
        still = []
        for job, time in waiting:
            needs = min(job.threads, machine.cores), min(job.gpus, machine.gpus)
            if needs[0] <= cores and needs[1] <= gpus and all(id(source) in done for source in job.sources):
                cores, gpus = cores - needs[0], gpus - needs[1]
                heapq.heappush(running, (now + time, id(job), job))
            else:
                still.append((job, time))
        waiting = still
        now, _, job = heapq.heappop(running)
        cores, gpus = cores + min(job.threads, machine.cores), gpus + min(job.gpus, machine.gpus)
        done.add(id(job))
    return now
