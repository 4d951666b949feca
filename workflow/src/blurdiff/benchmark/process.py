"""What the diffusion process costs beside the network: a step of training or sampling without it.

The baseline is a forward pass of the network: one over the ratio is the share of it. The network is the paper's, also
where the benchmark's settings are others.
"""

from dataclasses import replace
from functools import partial

import torch

from blurdiff.benchmark.networks import in_defaults
from blurdiff.benchmark.rows import PROCESS, Bench, Row, Work
from blurdiff.benchmark.settings import PAPER, settings_for
from blurdiff.config.settings import Settings
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.samplers import SAMPLERS
from blurdiff.network.unet import UNet
from blurdiff.runtime.devices import memory_format, pick_device

NETWORK = "the network's forward pass"


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of the one stage."""
    settings = bench.settings if bench.quick else settings_for(bench.settings.training.device, PAPER)
    common = {"settings": settings, "batch": bench.size(2, 8, 128)}
    row = partial(Row, PROCESS, baseline=NETWORK, images_per_item=1.0)
    rows = [row(NETWORK, forward, common)]
    for order in ("paper", "released"):
        arguments = {**common, "order": order}
        rows.append(row(f"q_sample, {order} order", q_sample, arguments, host=order))
        for sampler in ("reverse-diffusion", "ancestral", "ddim"):
            name = f"step of {sampler}, {order} order"
            rows.append(row(name, step, {**arguments, "sampler": sampler}, host=order))
    return [rows]


def _inputs(device, threads: int, settings: Settings, batch: int) -> tuple:
    """Pixels and timesteps, in a process set up as a job is."""
    pick_device(device.type, threads)
    x = torch.randn(batch, 3, settings.resolution, settings.resolution, device=device)
    return x, torch.randint(1, settings.process.n_timesteps + 1, (batch,), device=device)


def _process(device, settings: Settings, order: str):
    return build_process(replace(settings.process, mode_order=order), settings.resolution).to(device)


def forward(device, threads: int, settings: Settings, batch: int) -> Work:
    """The network, eagerly in float32 as PyTorch's defaults have it."""
    network = UNet(settings.resolution, **settings.network).eval()
    network.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
    x, i = _inputs(device, threads, settings, batch)

    @torch.inference_mode()
    def call() -> None:
        network(x.contiguous(memory_format=memory_format(device)), i)

    return in_defaults(device, call, network, batch, batch, settings)


def q_sample(device, threads: int, settings: Settings, batch: int, order: str) -> Work:
    """Noised, blurred images of a training step."""
    process = _process(device, settings, order)
    x, i = _inputs(device, threads, settings, batch)
    noise = torch.randn_like(x)

    @torch.inference_mode()
    def call() -> None:
        process.q_sample(x, i, noise)

    return Work(call, batch, "fp32", batch, settings.resolution, counted=call)


def step(device, threads: int, settings: Settings, batch: int, order: str, sampler: str) -> Work:
    """A step of a sampler, the ways to pixels and back that the network needs included."""
    process = _process(device, settings, order)
    x, _ = _inputs(device, threads, settings, batch)
    generator = torch.Generator(device).manual_seed(0)
    half = settings.process.n_timesteps // 2

    def epsilon(modes, i):
        return process.to_modes(process.to_pixels(modes))

    @torch.inference_mode()
    def call() -> None:
        SAMPLERS[sampler].walk(process, epsilon, x, [half, half - 1, 0], generator)

    return Work(call, 2 * batch, "fp32", batch, settings.resolution, counted=call)
