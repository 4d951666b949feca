"""Short measurements on the present device: what a unit of each kind of work costs, in seconds.

Networks have random weights, which takes the same time. Every measurement warms up, then repeats for about `seconds`
and takes the median. Where one repeat would take longer (a large network on a CPU) the batch is smaller than the
config's, and the note says so.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from blurdiff.runtime.text import size


class Rate(NamedTuple):
    """Seconds a unit of work, and on what they were measured."""

    seconds: float
    note: str


def timed(work: Callable[[], object], seconds: float, device=None) -> float:
    """Median seconds of one call of `work`, over as many calls as `seconds` allow, after one that warms up."""
    import torch

    wait = torch.cuda.synchronize if device is not None and device.type == "cuda" else lambda: None

    def once() -> float:
        wait()
        start = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - start

    first, on_gpu = once(), device is not None and device.type == "cuda"
    times = [once()] if on_gpu or first < 5 * seconds else [first]  # so long that to warm up makes no difference
    while sum(times) + statistics.median(times) < seconds:
        times.append(once())
    return statistics.median(times)


def at_batch(prepare: Callable[[int], Callable[[], object]], wanted: int, seconds: float, device) -> tuple[float, int]:
    """(seconds an image, batch) of `prepare(batch)`, at the wanted batch or, on a CPU, the largest that is quick.

    Batches of 1, 8, 64, … are tried until one takes longer than `seconds`.
    """
    batch = 1 if device.type == "cpu" else wanted
    while True:
        work = prepare(batch)
        if batch == wanted or timed(work, seconds / 16, device) > seconds:
            return timed(work, seconds, device) / batch, batch
        batch = min(wanted, 8 * batch)


def note(batch: int, wanted: int, *words: str) -> str:
    """What a rate was measured on."""
    of = "" if batch == wanted else f" of {wanted}"
    return ", ".join([f"batch {batch}{of}", *words])


def training(settings: dict, seconds: float, compiled: bool) -> Rate:
    """An image through a training step: forward, backward, Adam, average."""
    import torch

    from blurdiff.runtime.devices import pick_device
    from blurdiff.training.step import TrainingStep

    section = settings["training"]
    device = pick_device(section["device"], section["threads"])
    ranks = section["gpus"] * section["nodes"]
    wanted = section["micro_batch_size"] or section["batch_size"] // ranks

    def prepare(batch: int) -> Callable[[], object]:
        changed = {"batch_size": batch, "micro_batch_size": None, "compile": compiled, "gpus": 1, "nodes": 1}
        step = TrainingStep({**settings, "training": {**section, **changed}}, device)
        resolution = settings["resolution"]
        images = torch.randint(0, 256, (batch, resolution, resolution, 3), dtype=torch.uint8, device=device)
        return lambda: step(images)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    per_image, batch = at_batch(prepare, wanted, seconds, device)
    words = [section["precision"], "compiled" if compiled else "eager"]
    if device.type == "cuda":
        words.append(f"{size(torch.cuda.max_memory_allocated(device))} at its peak")
    return Rate(per_image, note(batch, wanted, *words))


def sampling(settings: dict, seconds: float, compiled: bool) -> Rate:
    """An image through the network and a step of the sampler."""
    import safetensors.torch
    import torch

    from blurdiff.diffusion.objectives import mode_epsilon
    from blurdiff.diffusion.samplers import SAMPLER_OPTIONS, SAMPLERS
    from blurdiff.network.unet import UNet
    from blurdiff.sampling.model import load_sampler

    section, resolution = settings["sampling"], settings["resolution"]
    name = "ddim" if section["sampler"].startswith("ode") else section["sampler"]
    options = {key: section[key] for key in SAMPLER_OPTIONS.get(name, ())}
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.safetensors")
        safetensors.torch.save_file(UNet(resolution, **settings["network"]).state_dict(), model)

        def prepare(batch: int) -> Callable[[], object]:
            changed = {"batch_size": batch, "shard_size": batch, "compile": compiled}
            process, predict, device = load_sampler(
                {**settings, "sampling": {**section, **changed}}, model, section["threads"]
            )
            x = torch.randn(batch, 3, resolution, resolution, device=device)
            generator = torch.Generator(device)
            epsilon = mode_epsilon(process, predict, settings["process"]["objective"])

            def draw() -> None:
                with torch.inference_mode():
                    SAMPLERS[name](process, epsilon, x, [2, 1, 0], generator, **options)

            return draw

        device = torch.device(section["device"])
        per_image, batch = at_batch(prepare, section["batch_size"], 2 * seconds, device)
    words = (section["precision"], "compiled" if compiled else "eager")
    return Rate(per_image / 2, note(batch, section["batch_size"], *words))


def features(evaluation: dict, resolution: int, seconds: float) -> Rate:
    """The features of one image. Without pytorch-fid's weights at hand Inception's are random."""
    import numpy as np
    import torch

    from blurdiff.evaluation.features import FeatureNetwork, compute, load_network
    from blurdiff.plan.counts import bare_inception
    from blurdiff.runtime.devices import pick_device

    device = pick_device(evaluation["device"], evaluation["threads"])
    if evaluation["network"] == "inception":
        bare = bare_inception().to(device, memory_format=torch.channels_last)
        network = FeatureNetwork("inception", 2048, 299, "", device, lambda x: bare(x / 255)[0].flatten(1))
    else:
        network = load_network(evaluation["network"], None, device)
    rng = np.random.default_rng(0)

    def prepare(batch: int) -> Callable[[], object]:
        images = rng.integers(0, 256, (batch, resolution, resolution, 3), dtype=np.uint8)
        return lambda: compute(network, images)

    per_image, batch = at_batch(prepare, evaluation["batch_size"], seconds, device)
    return Rate(per_image, note(batch, evaluation["batch_size"]))


def preprocess(dataset, resolution: int, seconds: float) -> Rate:
    """An image decoded and squashed by one core: of the data set, or one like LSUN's where that is not there."""
    import io
    from itertools import islice
    from pathlib import Path

    from PIL import Image

    from blurdiff.data import lsun
    from blurdiff.data.preprocess import squash
    from blurdiff.data.scenes import draw_files
    from blurdiff.data.synthetic import bedroom

    section = dataset.section
    folder = Path(section["lmdb"] or "")
    if section["synthetic"]:
        values, source = draw_files(section["synthetic"], section["seed"], range(8)), "drawn images"
    elif (folder / "data.mdb").is_file():
        with lsun.open_lmdb(folder) as environment:
            keys = list(islice(lsun.iterate_keys(environment), 32))
            values, source = [lsun.read_value(environment, key) for key in keys], "its first images"
    else:
        import random

        buffer = io.BytesIO()
        Image.fromarray(bedroom.draw(random.Random(0), 341, 256)).save(buffer, "WEBP", quality=75)
        values, source = [buffer.getvalue()], "a drawn WebP of 341×256 pixels, the size of LSUN's"

    def work() -> None:
        for value in values:
            try:
                squash(lsun.decode_image(value), resolution)
            except lsun.CorruptRecord:
                continue

    return Rate(timed(work, seconds) / len(values), f"a core; {source}")


def synthesize(section: dict, seconds: float) -> Rate:
    """An image drawn and encoded by one core."""
    from blurdiff.data.scenes import draw_files

    return Rate(timed(lambda: draw_files(section["synthetic"], section["seed"], range(4)), seconds) / 4, "a core")


def distance(dimension: int, seconds: float) -> Rate:
    """A Fréchet distance, from one of at most 1024 dimensions: the time goes with their cube."""
    import numpy as np

    from blurdiff.evaluation.frechet import frechet_distance

    d = min(dimension, 1024)
    root = np.random.default_rng(0).standard_normal((d, d))
    sigma, mu = root @ root.T / d, np.zeros(d)
    return Rate(
        timed(lambda: frechet_distance(mu, sigma, mu, sigma), seconds) * (dimension / d) ** 3,
        f"{dimension}-d, from {d}-d",
    )


def start() -> tuple[Rate, int]:
    """(the start of a process that loads PyTorch, bytes of memory that it then has)."""
    begin = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", "import torch, blurdiff.network.unet"], check=True, env=environment)
    seconds = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    return Rate(seconds, "import torch"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
