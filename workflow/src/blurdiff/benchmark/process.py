"""What the diffusion process costs beside the network: a step of training or sampling without it.

The baseline is a forward pass of the network: one over the ratio is the share of it.
"""

from dataclasses import replace

from blurdiff.benchmark.rows import Row, Work
from blurdiff.config.settings import Settings

STAGE = "process"
NETWORK = "the network's forward pass"
SAMPLERS = ("reverse-diffusion", "ancestral", "ddim")
BIG_BATCH = 128


def rows(settings: Settings, quick: bool) -> list[Row]:
    batch = 2 if quick else 8 if settings["training"]["device"] == "cpu" else BIG_BATCH
    of = {"baseline": NETWORK, "images_per_item": 1.0}
    common = {"settings": settings, "batch": batch}
    result = [Row(STAGE, NETWORK, forward, common, **of)]
    for order in ("paper", "released"):
        arguments = {**common, "order": order}
        result.append(Row(STAGE, f"q_sample, {order} order", q_sample, arguments, host=order, **of))
        for sampler in SAMPLERS:
            name = f"step of {sampler}, {order} order"
            result.append(Row(STAGE, name, step, {**arguments, "sampler": sampler}, host=order, **of))
    return result


def _inputs(device, threads: int, settings: Settings, batch: int) -> tuple:
    """Pixels and timesteps, in a process set up as a job is."""
    import torch

    from blurdiff.runtime.devices import pick_device

    pick_device(device.type, threads)
    x = torch.randn(batch, 3, settings["resolution"], settings["resolution"], device=device)
    return x, torch.randint(1, settings["process"]["n_timesteps"] + 1, (batch,), device=device)


def _process(device, settings: Settings, order: str):
    from blurdiff.diffusion.families import build_process

    return build_process(replace(settings.process, mode_order=order), settings.resolution).to(device)


def forward(device, threads: int, settings: Settings, batch: int) -> Work:
    """The network, eagerly in float32 as PyTorch's defaults have it."""
    import torch

    from blurdiff.network.unet import UNet
    from blurdiff.runtime.devices import memory_format

    network = UNet(settings["resolution"], **settings["network"]).to(device, memory_format=memory_format(device)).eval()
    x, i = _inputs(device, threads, settings, batch)
    tf32 = device.type == "cuda" and torch.backends.cudnn.conv.fp32_precision == "tf32"

    @torch.inference_mode()
    def call() -> None:
        network(x.contiguous(memory_format=memory_format(device)), i)

    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Work(call, batch, "tf32" if tf32 else "fp32", batch, settings["resolution"], n_parameters, call)


def q_sample(device, threads: int, settings: Settings, batch: int, order: str) -> Work:
    """Noised, blurred images of a training step."""
    import torch

    process = _process(device, settings, order)
    x, i = _inputs(device, threads, settings, batch)
    noise = torch.randn_like(x)

    @torch.inference_mode()
    def call() -> None:
        process.q_sample(x, i, noise)

    return Work(call, batch, "fp32", batch, settings["resolution"], counted=call)


def step(device, threads: int, settings: Settings, batch: int, order: str, sampler: str) -> Work:
    """A step of a sampler, the ways to pixels and back that the network needs included."""
    import torch

    from blurdiff.diffusion.samplers import SAMPLERS as FUNCTIONS

    process = _process(device, settings, order)
    x, _ = _inputs(device, threads, settings, batch)
    generator = torch.Generator(device).manual_seed(0)
    half = settings["process"]["n_timesteps"] // 2

    def epsilon(modes, i):
        return process.to_modes(process.to_pixels(modes))

    @torch.inference_mode()
    def call() -> None:
        FUNCTIONS[sampler].walk(process, epsilon, x, [half, half - 1, 0], generator)

    return Work(call, 2 * batch, "fp32", batch, settings["resolution"], counted=call)
