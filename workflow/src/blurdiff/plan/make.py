"""The whole plan of a config: what it will cost before anything starts, and how far it is.

Jobs are Snakemake's; operations, disk and memory are counted; times come from short measurements on this machine and
are estimates. What is there already is left out. Neither data nor a GPU is needed: where a GPU is wanted and absent,
GPU-hours are not guessed, only the operations are given.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from blurdiff.config.runs import resolve_runs
from blurdiff.errors import UserError
from blurdiff.plan import counts, rates, space
from blurdiff.plan.graph import Job, jobs_of
from blurdiff.plan.progress import Progress, progress_of
from blurdiff.plan.work import QUICK, WORK, Facts, datasets_of, flops_of_work, work_of
from blurdiff.runtime.machine import available_cores


def counts_given(options: list[str]) -> dict[str, int]:
    """--n-images as {name: number}, "" for all data sets."""
    found = {}
    for option in options:
        name, _, number = option.rpartition("=")
        if not number.isdigit() or int(number) < 2:
            raise UserError(f"--n-images: {option!r} is neither a number of 2 or more nor NAME=NUMBER")
        found[name] = int(number)
    return found


def make_plan(config: dict, name: str, arguments: argparse.Namespace) -> dict:
    """The plan as it is printed with --json: bytes, FLOPs and seconds are plain numbers, None where nobody knows."""
    cores, here = arguments.cores or available_cores(), torch.cuda.is_available()
    models, left = progress_of(config, name)
    runs = {(settings["run"], str(settings["seed"])): settings for settings in resolve_runs(config)}
    used = [run["dataset"] for run in config["runs"]]
    datasets = datasets_of(config, used, counts_given(arguments.n_images))
    facts = Facts(config, {key: runs[key] for key in left}, left, datasets)
    machine = rates.Machine(cores, arguments.gpus or max(1, torch.cuda.device_count()), arguments.tflops)
    jobs = [job for job in jobs_of(config, cores) if job.rule not in QUICK]
    for job in jobs:
        job.work = work_of(job, facts)
    if not arguments.no_calibration and not all(job.done for job in jobs):
        threads = torch.get_num_threads()
        machine.start, machine.process = rates.start()
        todo = {rates.key_of(work): work for job in jobs for work in job.work if work.amount}
        for number, (key, work) in enumerate(todo.items(), 1):
            print(f"measuring {number} of {len(todo)}: {work.kind}", file=sys.stderr, flush=True)
            machine.rates[key] = rates.measure(work, facts, arguments.calibration_seconds, arguments.compile)
        torch.set_num_threads(threads)
    for job in jobs:
        job.seconds = rates.seconds_of(job, config["resolution"], machine)
    trainings = {"{run} seed {seed}".format(**job.wildcards): job.seconds for job in jobs if job.rule == "train"}
    return {
        **{key: config[key] for key in ("results", "store")},
        **{"config": name, "cores": cores, "gpus": machine.gpus, "tflops": arguments.tflops},
        "gpu_here": torch.cuda.get_device_name() if here else None,
        "datasets": {
            name: {key: value for key, value in vars(dataset).items() if key != "section"}
            for name, dataset in datasets.items()
        },
        "network": vars(counts.count_network(config["resolution"], config["network"])),
        "models": [{**vars(model), "left": time_left(model, trainings)} for model in models],
        "stages": stages_of(jobs, machine, config["resolution"]),
        "totals": totals_of(jobs, machine, config["resolution"]),
        "start_seconds": machine.start or None,
        "disk": space.disk(facts, models),
        "free": space.free(config),
        "memory": {
            "training": space.trainings(facts),
            "evaluation_arrays": space.evaluation_memory(facts),
            "process": machine.process,
        },
    }


def time_left(model: Progress, seconds: dict[str, float | None]) -> float | None:
    """Seconds until a model is trained: at the rate of its own history, or else as estimated for its jobs."""
    if model.finished or model.left is not None:
        return model.left
    return total([seconds.get(run) for run in model.runs])


def total(numbers: Sequence[float | None]) -> float | None:
    """The sum; None where a number is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def stages_of(jobs: list[Job], machine: rates.Machine, resolution: int) -> list[dict]:
    """One entry per rule: jobs, work left, operations, seconds of its devices."""
    stages: dict[str, dict] = {}
    for job in jobs:
        stage = stages.setdefault(job.rule, {
            "rule": job.rule, "device": "cuda" if job.gpus else "cpu", "jobs": 0, "done": 0, "work": {}, "flops": 0,
            "seconds": 0.0, "rates": [],
        })  # fmt: skip
        stage["jobs"] += 1
        stage["done"] += job.done
        for work in job.work:
            stage["work"][work.kind] = stage["work"].get(work.kind, 0) + work.amount
            stage["flops"] += flops_of_work(work, resolution)
            rate = machine.rates.get(rates.key_of(work))
            if rate and (work.kind, rate.note, rate.seconds) not in stage["rates"]:
                stage["rates"].append((work.kind, rate.note, rate.seconds))
        unknown = None in (job.seconds, stage["seconds"]) or (job.rule not in WORK and not job.done)
        stage["seconds"] = None if unknown else stage["seconds"] + job.seconds
    return list(stages.values())


def totals_of(jobs: list[Job], machine: rates.Machine, resolution: int) -> dict:
    """Operations and hours of all jobs together; None where a rate is missing."""

    def hours(of_gpus: bool) -> float | None:
        chosen = [job for job in jobs if (job.gpus > 0) == of_gpus]
        seconds = total([job.seconds and job.seconds * (job.gpus or job.threads) for job in chosen])
        return None if seconds is None else seconds / 3600

    flops = {job: sum(flops_of_work(work, resolution) for work in job.work) for job in jobs}
    return {
        "flops": sum(flops.values()),
        "gpu_flops": sum(n for job, n in flops.items() if job.gpus),
        "gpu_hours": hours(of_gpus=True),
        "cpu_hours": hours(of_gpus=False),
        "starts": sum(rates.starts_torch(job) for job in jobs),  # of processes that load PyTorch
        "wall_hours": None if any(job.seconds is None for job in jobs) else rates.wall_seconds(jobs, machine) / 3600,
    }
