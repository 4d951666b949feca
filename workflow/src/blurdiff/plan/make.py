"""The whole plan of a config: what it will cost before anything starts, and how far it is.

Jobs are Snakemake's; operations, disk and memory are counted; times come from short measurements on this machine and
are estimates. What is there already is left out. Neither data nor a GPU is needed: where a GPU is wanted and absent,
GPU-hours are not guessed, only the operations are given.
"""

import argparse
import sys

import torch

from blurdiff.config.runs import resolve_runs
from blurdiff.errors import UserError
from blurdiff.plan import counts, rates, space
from blurdiff.plan.graph import Job, jobs_of
from blurdiff.plan.progress import progress_of
from blurdiff.plan.work import QUICK, WORK, Facts, Work, datasets_of, work_of
from blurdiff.runtime.parallel import available_cores


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
    cores = arguments.cores or available_cores()
    models, left = progress_of(config, name)
    runs = {(settings["run"], str(settings["seed"])): settings for settings in resolve_runs(config)}
    runs = {key: runs[key] for key in left}
    used = [run["dataset"] for run in config["runs"]]
    facts = Facts(config, runs, left, datasets_of(config, used, counts_given(arguments.n_images)))
    jobs = [job for job in jobs_of(config, cores) if job.rule not in QUICK]
    works = [work_of(job, facts) for job in jobs]

    def flops(work: Work) -> int:
        if work.kind == "features":
            return int(work.amount * counts.feature_flops(work.of, config["resolution"]))
        if work.kind not in ("train", "sample"):
            return 0
        network = counts.count_network(work.of["resolution"], work.of["network"])
        return int(work.amount * (network.training if work.kind == "train" else network.forward))

    machine = rates.Machine(cores, arguments.gpus or max(1, torch.cuda.device_count()), arguments.tflops)
    process = None
    todo = {rates.key_of(work): work for all_work in works for work in all_work if work.amount}
    if not arguments.no_calibration and not all(job.done for job in jobs):
        threads = torch.get_num_threads()
        machine.start, process = rates.start()
        for number, (key, work) in enumerate(todo.items(), 1):
            print(f"measuring {number} of {len(todo)}: {work.kind}", file=sys.stderr, flush=True)
            machine.rates[key] = rates.measure(work, facts, arguments.calibration_seconds, arguments.compile)
        torch.set_num_threads(threads)
    seconds = [rates.seconds_of(job, all_work, flops, machine) for job, all_work in zip(jobs, works, strict=True)]
    trainings = {
        f"{job.wildcards['run']} seed {job.wildcards['seed']}": taken
        for job, taken in zip(jobs, seconds, strict=True)
        if job.rule == "train"
    }
    return {
        "config": name,
        "results": config["results"],
        "store": config["store"],
        "gpu_here": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": cores,
        "gpus": machine.gpus,
        "tflops": arguments.tflops,
        "datasets": {
            key: {name: value for name, value in vars(dataset).items() if name != "section"}
            for key, dataset in facts.datasets.items()
        },
        "network": vars(counts.count_network(config["resolution"], config["network"])),
        "models": [{**vars(model), "left": time_left(model, trainings)} for model in models],
        "stages": stages_of(jobs, works, seconds, flops, machine),
        "totals": totals_of(jobs, works, seconds, flops, machine),
        "start_seconds": machine.start or None,
        "disk": space.disk(facts, models),
        "free": space.free(config),
        "memory": {
            "training": space.trainings(facts),
            "evaluation_arrays": space.evaluation_memory(facts),
            "process": process,
        },
    }


def time_left(model, seconds: dict[str, float | None]) -> float | None:
    """Seconds until a model is trained: at the rate of its own history, or else as estimated for its jobs."""
    if model.finished or model.left is not None:
        return model.left
    times = [seconds.get(run) for run in model.runs]
    return None if None in times else sum(times)


def stages_of(jobs: list[Job], works: list[list[Work]], seconds: list, flops, machine) -> list[dict]:
    """One entry per rule: jobs, work left, operations, seconds of its devices."""
    stages: dict[str, dict] = {}
    for job, all_work, taken in zip(jobs, works, seconds, strict=True):
        empty = {"device": "cuda" if job.gpus else "cpu", "jobs": 0, "done": 0, "work": {}, "flops": 0, "seconds": 0.0}
        stage = stages.setdefault(job.rule, {"rule": job.rule, **empty, "rates": []})
        stage["jobs"] += 1
        stage["done"] += job.done
        for work in all_work:
            stage["work"][work.kind] = stage["work"].get(work.kind, 0) + work.amount
            stage["flops"] += flops(work)
            rate = machine.rates.get(rates.key_of(work))
            if rate and (work.kind, rate.note, rate.seconds) not in stage["rates"]:
                stage["rates"].append((work.kind, rate.note, rate.seconds))
        unknown = taken is None or stage["seconds"] is None or (job.rule not in WORK and not job.done)
        stage["seconds"] = None if unknown else stage["seconds"] + taken
    return list(stages.values())


def totals_of(jobs: list[Job], works: list[list[Work]], seconds: list, flops, machine) -> dict:
    """Operations and hours of all jobs together; None where a rate is missing."""

    def hours(shares: list[int]) -> float | None:
        times = [None if taken is None else taken * n for taken, n in zip(seconds, shares, strict=True) if n]
        return None if None in times else sum(times) / 3600

    per_job = [sum(map(flops, all_work)) for all_work in works]
    return {
        "flops": sum(per_job),
        "gpu_flops": sum(n for job, n in zip(jobs, per_job, strict=True) if job.gpus),
        "gpu_hours": hours([job.gpus for job in jobs]),
        "cpu_hours": hours([0 if job.gpus else job.threads for job in jobs]),
        "starts": sum(map(rates.starts_torch, works)),  # of processes that load PyTorch
        "wall_hours": None if None in seconds else rates.wall_seconds(jobs, seconds, machine) / 3600,
    }
