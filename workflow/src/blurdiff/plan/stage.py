"""Say what a config will cost before anything starts, and how far it is.

Jobs are those of the workflow; operations, disk and memory are counted; times come from short measurements on this
machine (a second or so for each kind of work) and are estimates. What is there already is left out. Neither data nor a
GPU is needed: where a GPU is wanted and absent, GPU-hours are not guessed, only the operations are given.
"""

import argparse
import sys
import time
from pathlib import Path

from blurdiff.config.runs import check_config
from blurdiff.config.schema import read_yaml
from blurdiff.errors import UserError


def read_config(paths: list[str]) -> tuple[str, dict]:
    """(name, complete config) of one or more files, laid over one another as Snakemake lays them."""
    merged: dict = {}
    for path in paths:
        value = read_yaml(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: must be a section of keys; config/README.md explains them")
        merged = laid_over(merged, value)
    name = " + ".join(paths)
    return name, check_config(merged, name)


def laid_over(base: dict, upper: dict) -> dict:
    """Sections are merged, everything else is replaced."""
    result = dict(base)
    for key, value in upper.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = laid_over(result[key], value) if both else value
    return result


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
    """The whole plan, as it is printed with --json: bytes, FLOPs and seconds are plain numbers."""
    import torch

    from blurdiff.plan import calibrate, counts, space
    from blurdiff.plan.estimate import Machine, key_of, measure, seconds_of, wall_seconds
    from blurdiff.plan.jobs import datasets_of, jobs_of, mark_done, trained_runs
    from blurdiff.plan.progress import progress_of
    from blurdiff.runtime.parallel import available_cores

    runs = trained_runs(config)
    datasets = datasets_of(config, counts_given(arguments.n_images))
    jobs = jobs_of(config, datasets)
    models, left = progress_of(config, name)
    trainings = [job for job in jobs if job.rule == "train"]
    for job, settings, iterations in zip(trainings, runs, left, strict=True):
        job.work = [job.work[0]._replace(amount=iterations * settings["training"]["batch_size"])]
    mark_done(jobs, dict(zip(map(id, trainings), runs, strict=True)))

    def flops(work) -> int:
        if work.kind == "features":
            return int(work.amount * counts.feature_flops(config["evaluation"]["network"], config["resolution"]))
        if work.kind not in ("train", "sample"):
            return 0
        network = counts.count_network(config["resolution"], runs[int(work.of)]["network"])
        return int(work.amount * (network.training if work.kind == "train" else network.forward))

    def key(work) -> str:
        return key_of(work, config, runs)

    gpus = arguments.gpus or max(1, torch.cuda.device_count())
    machine = Machine(arguments.cores or available_cores(), gpus, arguments.tflops)
    rates, host_bytes, share = {}, 0, None
    threads = torch.get_num_threads()
    if not arguments.no_calibration and not all(job.done for job in jobs):
        start, host_bytes = calibrate.start()
        machine.start = start.seconds
        todo = {key(work): work for job in jobs if not job.done for work in job.work if work.amount}
        wall, cpu = time.perf_counter(), time.process_time()
        for number, (label, work) in enumerate(todo.items(), 1):
            print(f"measuring {number} of {len(todo)}: {work.kind}", file=sys.stderr, flush=True)
            rates[label] = measure(work, config, runs, datasets, arguments.calibration_seconds, arguments.compile)
        if todo:
            share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        torch.set_num_threads(threads)
    seconds = [seconds_of(job, rates, key, flops, machine) for job in jobs]
    seconds_by_name = {job.name: taken for job, taken in zip(jobs, seconds, strict=True) if job.rule == "train"}
    return {
        "config": name,
        "results": config["results"],
        "store": config["store"],
        "gpu_here": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": machine.cores,
        "gpus": machine.gpus,
        "tflops": arguments.tflops,
        "datasets": {
            key: {"n_images": d.n_images, "known_from": d.how_known, "n_read": d.n_read, "holder": d.holder}
            for key, d in datasets.items()
        },
        "network": vars(counts.count_network(config["resolution"], config["network"])),
        "models": [{**vars(model), "left": time_left(model, seconds_by_name)} for model in models],
        "stages": stages_of(jobs, seconds, rates, key, flops, machine),
        "totals": totals_of(jobs, seconds, flops, machine, wall_seconds),
        "start_seconds": machine.start or None,
        "share_of_cpu": None if torch.cuda.is_available() else share,
        "disk": space.disk(config, datasets, models),
        "free": free_space(config),
        "memory": {
            "training": memory_of(runs, datasets, key_of, config),
            "evaluation_arrays": space.evaluation_memory(config, datasets),
            "process": host_bytes or None,
        },
    }


def time_left(model, seconds: dict[str, float | None]) -> float | None:
    """Seconds until a model is trained: at the rate of its own history, or else as estimated for its jobs."""
    if model.finished or model.left is not None:
        return model.left
    times = [seconds[run] for run in model.runs]
    return None if None in times else sum(times)


def stages_of(jobs: list, seconds: list, rates: dict, key, flops, machine) -> list[dict]:
    """One entry a rule: jobs, work left, operations, seconds of its devices."""
    stages: dict[str, dict] = {}
    for job, taken in zip(jobs, seconds, strict=True):
        stage = stages.setdefault(
            job.rule,
            {"rule": job.rule, "device": job.device, "jobs": 0, "done": 0, "work": {}, "flops": 0, "seconds": 0.0,
             "rates": []},
        )  # fmt: skip
        stage["jobs"] += 1
        stage["done"] += job.done
        if job.done:
            continue
        for work in job.work:
            stage["work"][work.kind] = stage["work"].get(work.kind, 0) + work.amount
            stage["flops"] += flops(work)
            rate = rates.get(key(work))
            if rate and (work.kind, rate.note, rate.seconds) not in stage["rates"]:
                stage["rates"].append((work.kind, rate.note, rate.seconds))
        if job.rule.startswith("download"):
            taken = None  # nobody knows
        stage["seconds"] = None if taken is None or stage["seconds"] is None else stage["seconds"] + taken
    return list(stages.values())


def totals_of(jobs: list, seconds: list, flops, machine, wall_seconds) -> dict:
    """Operations and hours of all jobs together; None where a rate is missing."""
    todo = [(job, time) for job, time in zip(jobs, seconds, strict=True) if not job.done]

    def hours(device: str, share) -> float | None:
        times = [None if time is None else time * share(job) for job, time in todo if job.device == device]
        return None if None in times else sum(times) / 3600

    return {
        "flops": sum(flops(work) for job, _ in todo for work in job.work),
        "gpu_flops": sum(flops(work) for job, _ in todo if job.device == "cuda" for work in job.work),
        "gpu_hours": hours("cuda", lambda job: job.gpus),
        "cpu_hours": hours("cpu", lambda job: min(job.threads, machine.cores)),
        "starts": sum(job.torch for job, _ in todo),  # of processes that load PyTorch
        "wall_hours": None if any(t is None for _, t in todo) else wall_seconds(jobs, seconds, machine) / 3600,
    }


def memory_of(runs: list[dict], datasets: dict, key_of, config: dict) -> list[dict]:
    """What trainings need, each distinct kind once."""
    from blurdiff.plan import space
    from blurdiff.plan.jobs import Work

    found = {}
    for number, settings in enumerate(runs):
        label = key_of(Work("train", str(number), 0), config, runs)
        images = space.images_on_device(settings, datasets[settings["dataset"]])
        entry = {key: settings["training"][key] for key in ("device", "precision", "batch_size")}
        if label not in found:
            found[label] = entry | {"bytes": space.training_memory(settings), "images": images}
        found[label]["images"] = max(images, found[label]["images"])
    return list(found.values())


def free_space(config: dict) -> dict[str, int]:
    """Bytes free where results and store are; one entry when they share a file system."""
    from blurdiff.plan import space

    places = [config["results"]]
    if space.device_of(config["store"]) != space.device_of(config["results"]):
        places.append(config["store"])
    return {str(Path(place)): space.free_space(place) for place in places}
