"""Short measurements on the present device: seconds for a unit of each kind of work, and from them hours.

Networks have random weights, which takes the same time. On a CPU, a batch that would take long is measured smaller.
"""

import heapq
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from blurdiff.config.settings import Settings, with_keys
from blurdiff.data import lsun, sources
from blurdiff.data.preprocess import squash
from blurdiff.data.scenes import draw_files
from blurdiff.diffusion.families import prior_of
from blurdiff.evaluation.features import FeatureNetwork, build_inception, compute, load_network
from blurdiff.evaluation.frechet import frechet_distance
from blurdiff.network.unet import UNet
from blurdiff.plan.graph import Job
from blurdiff.plan.work import Facts, Work, flops_of_work
from blurdiff.runtime.compiling import compile_or_plain
from blurdiff.runtime.devices import autocast, memory_format, pick_device
from blurdiff.training.step import TrainingStep

SECTIONS = {"train": "training", "sample": "sampling", "features": "evaluation"}  # which name the device of a work


class Rate(NamedTuple):
    """Seconds for a unit of work, and on what they were measured."""

    seconds: float
    note: str


@dataclass
class Machine:
    """Where the jobs run and what is known of its speed: `rates` by key, None where the device is not here."""

    cores: int
    gpus: int
    tflops: float | None = None  # the user's guess, for where nothing is measured
    start: float = 0.0  # seconds of a process that loads PyTorch
    process: int | None = None  # bytes of its memory
    rates: dict[str, Rate | None] = field(default_factory=dict)


def key_of(work: Work) -> str:
    """What decides the cost of a unit: work of one key is measured once."""
    if work.kind not in ("train", "sample"):
        return f"{work.kind} {work.of}"
    section = work.of[SECTIONS[work.kind]]
    keys = ("batch_size", "micro_batch_size", "shard_size", "precision", "device", "threads", "gpus", "nodes")
    return repr(
        [work.kind, work.of["resolution"], work.of["network"], [section[key] for key in keys if key in section]]
    )


def measure(work: Work, facts: Facts, seconds: float, compiled: bool) -> Rate | None:
    """The Rate of a unit of this work on the present device, in about so many seconds; None without that device."""
    settings = work.of if work.kind in ("train", "sample") else facts.config
    if work.kind in SECTIONS and settings[SECTIONS[work.kind]]["device"] == "cuda" and not torch.cuda.is_available():
        return None
    if work.kind == "distance":
        return distance(work.of, seconds)
    if work.kind == "features":
        return features(settings["evaluation"], settings["resolution"], seconds)
    if work.kind in ("train", "sample"):
        return steps(work.of, work.kind, seconds, compiled)
    section = facts.datasets[work.of].section
    if work.kind == "synthesize":
        draw = timed(lambda: draw_files(section["synthetic"], section["seed"], range(4)), seconds)
        return Rate(draw / 4, "a core")
    return preprocess(section, settings["resolution"], seconds)


def timed(work: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call of `work`, on a GPU until it has finished; after one that warms up."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    work()
    times: list[float] = []
    while not times or sum(times) + statistics.median(times) < seconds:
        wait()
        begin = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def each(prepare: Callable[[int], Callable[[], object]], wanted: int, seconds: float, device, *words: str) -> Rate:
    """The rate of an image in `prepare(batch)`, at the wanted batch or, on a CPU, the first that is not quick."""
    batch = wanted if device.type == "cuda" or "compiled" in words else 1  # another batch is compiled anew
    while batch < wanted and timed(prepare(batch), seconds / 16) < seconds:
        batch = min(wanted, 8 * batch)
    of = "" if batch == wanted else f" of {wanted}"
    return Rate(timed(prepare(batch), seconds) / batch, ", ".join([f"batch {batch}{of}", *words]))


def steps(settings: Settings, kind: str, seconds: float, compiled: bool) -> Rate:
    """An image through a training step (forward, backward, Adam, average), or to sample through the network.

    Beside the network, a sampler's own step is small.
    """
    section, resolution = settings[SECTIONS[kind]], settings["resolution"]
    device = pick_device(section["device"], section["threads"])

    def train(batch: int) -> Callable[[], object]:
        changed = {"batch_size": batch, "micro_batch_size": None, "compile": compiled, "gpus": 1, "nodes": 1}
        images = torch.randint(0, 256, (batch, resolution, resolution, 3), dtype=torch.uint8)
        prior = prior_of(settings.process, images.numpy())
        step = TrainingStep(with_keys(settings, "training", **changed), device, prior=prior)
        images = images.to(device)
        return lambda: step(images)

    def sample(batch: int) -> Callable[[], object]:
        layout = memory_format(device)
        network = UNet(resolution, **settings["network"]).eval()
        network.to(device, memory_format=layout)  # type: ignore[call-overload]
        x = torch.randn(batch, 3, resolution, resolution, device=device).contiguous(memory_format=layout)
        i = torch.ones(batch, device=device)

        def draw(function: Callable) -> None:
            with torch.inference_mode(), autocast(device, section["precision"]):
                function(x, i)

        function = compile_or_plain(network, draw, device) if compiled else network
        return lambda: draw(function)

    words = section["precision"], "compiled" if compiled else "eager"
    if kind == "sample":
        wanted = min(section["batch_size"] or section["shard_size"], section["shard_size"])
        return each(sample, wanted, seconds, device, *words)
    wanted = section["micro_batch_size"] or section["batch_size"] // (section["gpus"] * section["nodes"])
    return each(train, wanted, seconds, device, *words)


def features(evaluation: dict, resolution: int, seconds: float) -> Rate:
    """The features of an image. Inception's weights are random, so that nothing is downloaded."""
    device = pick_device(evaluation["device"], evaluation["threads"])
    if evaluation["network"] == "inception":
        bare = build_inception(None)
        bare.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = FeatureNetwork("inception", 2048, 299, "", device, lambda x: bare(x / 255)[0].flatten(1))
    else:
        network = load_network(evaluation["network"], None, device)
    images = np.random.default_rng(0).integers(
        0, 256, (evaluation["batch_size"], resolution, resolution, 3), dtype=np.uint8
    )
    return each(lambda batch: lambda: compute(network, images[:batch]), len(images), seconds, device)


def preprocess(section: dict, resolution: int, seconds: float) -> Rate:
    """An image decoded and made square by one core: of the data set, or a drawn one where that is not there."""
    name, path = sources.source_of(section)
    values: list[bytes] = []
    words = "its first images"
    if not sources.SOURCES[name].drawn and sources.SOURCES[name].is_there(path):
        with closing(sources.open_reader(name, path)) as reader:
            for record in reader.records(0, 32):
                with suppress(lsun.CorruptRecord):
                    values.append(reader.read(record))
    if not values:
        values, words = draw_files(section["synthetic"] or "bedroom", section["seed"] or 0, range(8)), "drawn images"

    def work() -> None:
        for value in values:
            try:
                squash(lsun.decode_image(value), resolution, section["crop"])
            except lsun.CorruptRecord:
                continue

    return Rate(timed(work, seconds) / len(values), f"a core; {words}")


def distance(dimension: int, seconds: float) -> Rate:
    """A Fréchet distance, from one of at most 1024 dimensions: the time goes with their cube."""
    d = min(dimension, 1024)
    root = np.random.default_rng(0).standard_normal((d, d))
    sigma, mu = root @ root.T / d, np.zeros(d)
    taken = timed(lambda: frechet_distance(mu, sigma, mu, sigma), seconds)
    return Rate(taken * (dimension / d) ** 3, f"{dimension}-d, from {d}-d")


def start() -> tuple[float, int]:
    """(seconds to start a process that loads PyTorch, bytes of memory that it then has)."""
    begin = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", "import torch, blurdiff.network.unet"], check=True, env=environment)
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def seconds_of(job: Job, resolution: int, machine: Machine) -> float | None:
    """Seconds that a job takes; None when a rate that it needs is not known.

    A training on several GPUs is taken to be as many times as fast, and data are read and drawn by as many processes as
    the job has cores.
    """
    total = machine.start if starts_torch(job) else 0.0
    for work in filter(lambda work: work.amount, job.work):
        rate, flops = machine.rates.get(key_of(work)), flops_of_work(work, resolution)
        if rate is None and machine.tflops and flops:
            rate = Rate(flops / work.amount / (machine.tflops * 1e12), "")
        if rate is None:
            return None
        at_once = {"train": max(1, job.gpus), "preprocess": job.threads, "synthesize": job.threads}.get(work.kind, 1)
        total += work.amount * rate.seconds / at_once
    return total


def starts_torch(job: Job) -> bool:
    """Whether a job loads PyTorch, which takes seconds."""
    return any(work.kind in SECTIONS for work in job.work)


def wall_seconds(jobs: list[Job], machine: Machine) -> float:
    """Seconds until all jobs are done: each starts when its sources are and enough cores and GPUs are free.

    A job takes its threads and GPUs, but no more than there are; among those that can start the first in the list does,
    as Snakemake's own choice is not known beforehand. All must have their `seconds`.
    """
    waiting, done = [job for job in jobs if not job.done], {job for job in jobs if job.done}
    running: list[tuple[float, int, Job]] = []
    seconds = {job: job.seconds for job in jobs if job.seconds is not None}
    cores, gpus, now = machine.cores, machine.gpus, 0.0
    while waiting or running:
        for job in list(waiting):
            threads, devices = min(job.threads, machine.cores), min(job.gpus, machine.gpus)
            if threads <= cores and devices <= gpus and done.issuperset(job.sources):
                cores, gpus = cores - threads, gpus - devices
                heapq.heappush(running, (now + seconds[job], id(job), job))
                waiting.remove(job)
        now, _, job = heapq.heappop(running)
        cores, gpus = cores + min(job.threads, machine.cores), gpus + min(job.gpus, machine.gpus)
        done.add(job)
    return now
