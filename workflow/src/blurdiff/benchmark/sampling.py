"""Sampling: ours, the same loop in plain eager PyTorch, and diffusers' UNet2DModel with its DDPMScheduler.

A call walks the last few of the sampler's steps with a shard of images; all steps cost the same. An item is one
evaluation of the network for one image, with the step of the process that goes with it.
"""

from blurdiff.benchmark.ceilings import has_bf16
from blurdiff.benchmark.rows import Row, Target, Work
from blurdiff.benchmark.settings import named
from blurdiff.benchmark.training import diffusers_network
from blurdiff.config.settings import Settings, with_keys

STAGE = "sampling"
PLAIN = "ours in a plain loop, eager fp32"
DIFFUSERS = "diffusers' UNet2DModel and DDPMScheduler, eager fp32"
N_COMPARED = 8


def rows(settings: Settings, quick: bool) -> list[Row]:
    sampling = settings["sampling"]
    device = sampling["device"]
    if device == "cpu":
        chosen = (sampling["precision"], bool(sampling["compile"]))
        ways = [("fp32", False), ("fp32", True), *([("bf16", False)] if has_bf16() else [])]
        targets = ()
    else:
        chosen, ways = (sampling["precision"], sampling["compile"] is not False), [("bf16", False), ("bf16", True)]
        targets = (Target("matrix product", 0.5),)
    ways = [chosen] if quick else [*ways, *([] if chosen in ways else [chosen])]
    n_walked = 2 if quick else 10
    n_steps = sampling["n_steps"]
    of = {"baseline": PLAIN, "unit": "evaluations/s", "images_per_item": 1 / n_steps}
    result = [
        Row(STAGE, PLAIN, plain, {"settings": settings, "n_walked": n_walked}, **of),
        Row(STAGE, DIFFUSERS, diffusers, {"settings": settings, "n_walked": n_walked}, **of),
    ]
    for precision, compiled in ways:
        own = with_keys(settings, "sampling", precision=precision, compile=compiled)
        result.append(
            Row(STAGE, named(precision, compiled, device), ours, {"settings": own, "n_walked": n_walked},
                tolerance=1e-4 if precision == "fp32" and device == "cpu" else None,
                targets=targets if (precision, compiled) == chosen else (), **of)
        )  # fmt: skip
    return result


def ours(device, threads: int, settings: Settings, n_walked: int) -> Work:
    """What the stage `sample` does, but for reading the model and writing the images."""
    from blurdiff.diffusion.denoiser import Denoiser
    from blurdiff.sampling.model import load_denoiser
    from blurdiff.sampling.sample import draw

    def loaded(compiled: bool) -> Denoiser:
        with model_file(settings) as path:
            return load_denoiser(with_keys(settings, "sampling", compile=compiled), path, threads)

    steps = list(range(n_walked, -1, -1))
    sampling = settings["sampling"]
    denoiser = loaded(sampling.compile)
    compiled = device.type == "cuda" if sampling["compile"] is None else sampling["compile"]

    def walk():
        return draw(settings, denoiser, steps, 0)

    def uncompiled():
        return draw(settings, loaded(False), steps, 0)

    return Work(
        walk, n_walked * sampling["shard_size"], sampling["precision"], sampling["shard_size"], settings["resolution"],
        counted=uncompiled if compiled else walk, fused=compiled, result=lambda: walk()[:N_COMPARED].cpu().numpy(),
    )  # fmt: skip


def plain(device, threads: int, settings: Settings, n_walked: int) -> Work:
    """The same sampler around the network as it is: PyTorch's defaults, float32, no inference mode."""
    import torch

    from blurdiff.diffusion.denoiser import Denoiser
    from blurdiff.diffusion.families import build_process
    from blurdiff.diffusion.samplers import SAMPLERS
    from blurdiff.runtime.seeding import SAMPLE, derive_seed

    sampling, resolution = settings["sampling"], settings["resolution"]
    network = random_network(settings).to(device).eval()
    process = build_process(settings["process"], resolution).to(device)
    epsilon = Denoiser(network, process).epsilon
    sampler = SAMPLERS[sampling.sampler]
    options = {name: sampling[name] for name in sampler.options}
    steps = list(range(n_walked, -1, -1))

    @torch.no_grad()
    def walk():
        generator = torch.Generator(device).manual_seed(derive_seed(SAMPLE, settings["seed"], 0))
        x_N = torch.randn((sampling["shard_size"], 3, resolution, resolution), generator=generator, device=device)
        return sampler.walk(process, epsilon, x_N, steps, generator, **options)

    return _plain_work(device, walk, network, settings, n_walked, lambda: walk()[:N_COMPARED].cpu().numpy())


def diffusers(device, threads: int, settings: Settings, n_walked: int) -> Work:
    """diffusers' network and scheduler, as its DDPMPipeline calls them."""
    import torch

    network = diffusers_network(settings).to(device).eval()
    from diffusers import DDPMScheduler

    n_timesteps = settings["process"]["n_timesteps"]
    scheduler = DDPMScheduler(n_timesteps)
    scheduler.set_timesteps(n_timesteps)
    shape = (settings["sampling"]["shard_size"], 3, settings["resolution"], settings["resolution"])

    @torch.no_grad()
    def walk() -> None:
        generator = torch.Generator(device).manual_seed(0)
        x = torch.randn(shape, generator=generator, device=device)
        for t in scheduler.timesteps[-n_walked:]:
            x = scheduler.step(network(x, t).sample, t, x, generator=generator).prev_sample

    return _plain_work(device, walk, network, settings, n_walked, None)


def _plain_work(device, walk, network, settings: Settings, n_walked: int, result) -> Work:
    import torch

    batch = settings["sampling"]["shard_size"]
    tf32 = device.type == "cuda" and torch.backends.cudnn.conv.fp32_precision == "tf32"
    return Work(
        walk, n_walked * batch, "tf32" if tf32 else "fp32", batch, settings["resolution"],
        sum(parameter.numel() for parameter in network.parameters()), walk, result=result,
        note="PyTorch's defaults: convolutions in TF32, matrix products in fp32" if tf32 else "",
    )  # fmt: skip


def random_network(settings: Settings):
    """Our network with the same random weights each time, those that begin as zeros included: a network that predicts
    nothing but zeros could be faster than one that does."""
    import torch

    from blurdiff.network.unet import UNet

    torch.manual_seed(0)
    network = UNet(settings["resolution"], **settings["network"])
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return network


def model_file(settings: Settings):
    """A context in which a model file with the weights of `random_network` exists; it gives the path."""
    import contextlib
    import json
    import tempfile
    from pathlib import Path

    import safetensors.torch

    @contextlib.contextmanager
    def written():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            weights = random_network(settings).state_dict()
            safetensors.torch.save_file(weights, path, {"settings": json.dumps(settings.as_dict())})
            yield path

    return written()
