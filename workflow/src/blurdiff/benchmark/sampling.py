"""Sampling: ours, the same loop in plain eager PyTorch, and diffusers' UNet2DModel with its DDPMScheduler.

A call walks the last few of the sampler's steps with a shard of images; all steps cost the same. An item is one
evaluation of the network for one image, with the step of the process that goes with it.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from blurdiff.benchmark.networks import diffusers_network, in_defaults, random_network
from blurdiff.benchmark.rows import Bench, Row, Target, Work
from blurdiff.benchmark.settings import ways
from blurdiff.config.settings import Settings, with_keys
from blurdiff.diffusion.denoiser import Denoiser
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.samplers import SAMPLERS
from blurdiff.network.model_file import packed
from blurdiff.runtime.seeding import SAMPLE, derive_seed
from blurdiff.sampling.model import load_denoiser
from blurdiff.sampling.sample import draw

STAGE = "sampling"
PLAIN = "ours in a plain loop, eager fp32"
DIFFUSERS = "diffusers' UNet2DModel and DDPMScheduler, eager fp32"
N_COMPARED = 8


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of the one stage."""
    common = {"settings": bench.settings, "n_walked": 2 if bench.quick else 10}
    row = partial(Row, STAGE, baseline=PLAIN, unit="evaluations/s", images_per_item=1 / bench.settings.n_steps)
    rows = [row(PLAIN, plain, common), row(DIFFUSERS, diffusers, common)]
    for name, (own, chosen) in ways(bench.settings, "sampling", bench.quick).items():
        exact = own.sampling.precision == "fp32" and not bench.on_gpu
        targets = (Target("matrix product", 0.5),) if chosen and bench.on_gpu else ()
        rows.append(row(name, ours, common | {"settings": own}, tolerance=1e-4 if exact else None, targets=targets))
    return [rows]


def ours(device, threads: int, settings: Settings, n_walked: int) -> Work:
    """What the stage `sample` does, but for reading the model and writing the images."""
    steps = list(range(n_walked, -1, -1))
    sampling = settings.sampling

    def loaded(compiled: bool | None) -> Denoiser:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            path.write_bytes(packed(random_network(settings).state_dict(), settings))
            return load_denoiser(with_keys(settings, "sampling", compile=compiled), path, threads)

    denoiser = loaded(sampling.compile)
    compiled = device.type == "cuda" if sampling.compile is None else sampling.compile

    def walk():
        return draw(settings, denoiser, steps, 0)

    def uncompiled():
        return draw(settings, loaded(False), steps, 0)

    return Work(
        walk, n_walked * sampling.shard_size, sampling.precision, sampling.shard_size, settings.resolution,
        counted=uncompiled if compiled else walk, fused=compiled, result=lambda: walk()[:N_COMPARED].cpu().numpy(),
    )  # fmt: skip


def plain(device, threads: int, settings: Settings, n_walked: int) -> Work:
    """The same sampler around the network as it is: PyTorch's defaults, float32, no inference mode."""
    sampling, resolution = settings.sampling, settings.resolution
    network = random_network(settings).to(device).eval()
    process = build_process(settings.process, resolution).to(device)
    epsilon = Denoiser(network, process).epsilon
    sampler = SAMPLERS[sampling.sampler]
    options = {name: sampling[name] for name in sampler.options}
    steps = list(range(n_walked, -1, -1))

    @torch.no_grad()
    def walk():
        generator = torch.Generator(device).manual_seed(derive_seed(SAMPLE, settings.seed, 0))
        x_N = torch.randn((sampling.shard_size, 3, resolution, resolution), generator=generator, device=device)
        return sampler.walk(process, epsilon, x_N, steps, generator, **options)

    batch = sampling.shard_size
    return in_defaults(device, walk, network, n_walked * batch, batch, settings,
                       lambda: walk()[:N_COMPARED].cpu().numpy())  # fmt: skip


def diffusers(device, threads: int, settings: Settings, n_walked: int) -> Work:
    """diffusers' network and scheduler, as its DDPMPipeline calls them."""
    from diffusers import DDPMScheduler

    network = diffusers_network(settings).to(device).eval()
    n_timesteps, batch = settings.process.n_timesteps, settings.sampling.shard_size
    scheduler: Any = DDPMScheduler(n_timesteps)  # mypy takes diffusers' stand-ins for its classes
    scheduler.set_timesteps(n_timesteps)

    @torch.no_grad()
    def walk() -> None:
        generator = torch.Generator(device).manual_seed(0)
        x = torch.randn((batch, 3, settings.resolution, settings.resolution), generator=generator, device=device)
        for t in scheduler.timesteps[-n_walked:]:
            x = scheduler.step(network(x, t).sample, t, x, generator=generator).prev_sample

    return in_defaults(device, walk, network, n_walked * batch, batch, settings)
