"""The training step: ours, the way that the paper's code trains, and diffusers' UNet2DModel trained as its users do.

On a CPU of several cores they are timed twice: one model on all of them, and a model a core, which is how the default
config trains its runs.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from blurdiff.benchmark.networks import diffusers_network, in_defaults
from blurdiff.benchmark.rows import Bench, Measurement, Row, Target, Work
from blurdiff.benchmark.settings import ways
from blurdiff.benchmark.worker import Host, describe, time_calls
from blurdiff.config.settings import Settings, with_keys
from blurdiff.diffusion.families import build_process, prior_of
from blurdiff.network.unet import UNet
from blurdiff.runtime.devices import pick_device
from blurdiff.training.feed import batches
from blurdiff.training.step import TrainingStep

N_IMAGES = 4096
PLAIN = "ours as the paper's code trains, eager fp32"
DIFFUSERS = "diffusers' UNet2DModel, eager fp32"
BIG_BATCH = 128
AT_ONCE = 4  # steps of each of several models between two looks at the clock


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of each batch size: the config's, and on a GPU 128 images too."""
    sizes = {bench.settings.training.batch_size, *([BIG_BATCH] if bench.on_gpu else [])}
    return [_rows(bench, with_keys(bench.settings, "training", batch_size=size)) for size in sorted(sizes)]


def _rows(bench: Bench, settings: Settings) -> list[Row]:
    batch = settings.training.batch_size
    baseline = PLAIN if bench.on_gpu else DIFFUSERS
    row = partial(Row, f"training step, batch {batch}", baseline=baseline, images_per_item=1.0)
    if not bench.on_gpu:
        target = Target(DIFFUSERS, 1.5)
    else:  # of the paper's network: at 16 images a step a ratio, at 128 a share of what the GPU can do
        target = Target("matrix product", 0.4) if batch >= BIG_BATCH else Target(PLAIN, 4.0)
    theirs = {"settings": settings, "network": "diffusers"}
    rows = [row(DIFFUSERS, plain, theirs), row(PLAIN, plain, {"settings": settings, "network": "ours"})]
    on_cores = [row(f"{DIFFUSERS}, a model a core", a_model_a_core, {"build": plain, "arguments": theirs})]
    for name, (own, chosen) in ways(settings, "training", bench.quick).items():
        arguments, targets = {"settings": own}, (target,) if chosen else ()
        rows.append(row(name, fast, arguments, targets=targets))
        if chosen:
            on_each = {"build": fast, "arguments": arguments}
            on_cores.append(row(f"{name}, a model a core", a_model_a_core, on_each, targets=targets))
    return rows if bench.on_gpu or bench.quick or bench.threads == 1 else [*rows, *on_cores]


def fast(device, threads: int, settings: Settings) -> Work:
    """The step and the feed that the stage `train` uses."""
    training, device = settings.training, pick_device(device.type, threads)
    images = random_images(settings.resolution)
    prior = prior_of(settings.process, images)
    step = TrainingStep(settings, device, prior=prior)
    feed = batches(images, training, settings.seed, 0, step.own, device)

    def counted() -> None:
        uncompiled = with_keys(settings, "training", compile=False)
        eager = TrainingStep(uncompiled, device, prior=prior) if step.compiled else step
        eager(next(feed))

    def finite() -> None:
        if step.first_bad.isfinite():
            raise ArithmeticError(f"the loss is not finite at step {int(step.first_bad)}")

    return Work(
        lambda: step(next(feed)), training.batch_size, training.precision, training.batch_size,
        settings.resolution, sum(parameter.numel() for parameter in step.state.parameters), counted,
        fused=step.compiled, result=finite,
        note="" if step.compiled or not training.compile else "could not be compiled: runs eagerly",
    )  # fmt: skip


def plain(device, threads: int, settings: Settings, network: str) -> Work:
    """A training loop of the usual kind in PyTorch's defaults: a DataLoader, Adam, an average kept parameter by
    parameter, and the loss read at every step. `network`: "ours", on blurred images; or "diffusers", on noised ones, by
    its own DDPMScheduler and EMAModel."""
    training = settings.training
    batch = training.batch_size
    torch.manual_seed(0)
    model, predict, noised, update_average = (_diffusers if network == "diffusers" else _ours)(device, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    feed = loader(settings.resolution, batch, device)

    def step() -> None:
        x_0 = next(feed).to(device)
        i = torch.randint(1, settings.process.n_timesteps, (batch,), device=device)
        noise = torch.randn_like(x_0)
        loss = F.mse_loss(predict(noised(x_0, i, noise), i), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_average()
        loss.item()

    return in_defaults(device, step, model, batch, batch, settings)


def a_model_a_core(device, threads: int, build, arguments: dict) -> Work:
    """As many models as threads, each trained in a process of its own with one thread; items are the images of all."""
    row = Row("training step", "a model", build, arguments)
    hosts = [Host([Measurement(row)], "cpu", 1, daemon=True) for _ in range(threads)]

    def ask_all(question, *arguments) -> list:
        for host in hosts:
            host.send(row, question, *arguments)
        return [host.receive() for host in hosts]

    def counted() -> None:
        alone = build(device, 1, **arguments)
        for _ in range(threads * AT_ONCE):
            alone.counted()

    described = ask_all(describe)[0]
    described |= {
        "items": threads * AT_ONCE * described["items"],
        "note": f"{threads} models at once, a thread each; the rate is that of all together",
    }
    return Work(lambda: ask_all(time_calls, AT_ONCE), **described, counted=counted, has_processes=True)


def _ours(device, settings: Settings) -> tuple:
    """(network, its prediction, noised images, update of the average) of ours, as the paper's code has them."""
    model = UNet(settings.resolution, **settings.network).to(device).train()
    average = [parameter.detach().clone() for parameter in model.parameters()]
    process = build_process(settings.process, settings.resolution).to(device)

    @torch.no_grad()
    def update_average() -> None:
        for kept, parameter in zip(average, model.parameters(), strict=True):
            kept.lerp_(parameter, 1 - settings.training.ema_decay)

    return model, model, process.q_sample, update_average


def _diffusers(device, settings: Settings) -> tuple:
    """The same of diffusers' network with as many parameters, its noise and its average."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    network = diffusers_network(settings).to(device).train()
    scheduler: Any = DDPMScheduler(settings.process.n_timesteps)  # mypy takes diffusers' stand-ins for its classes
    average = EMAModel(network.parameters(), decay=settings.training.ema_decay)
    average.to(device)

    def predict(x, i):
        return network(x, i).sample

    def noised(x_0, i, noise):
        return scheduler.add_noise(x_0, noise, i)

    return network, predict, noised, lambda: average.step(network.parameters())


def random_images(resolution: int) -> np.ndarray:
    """uint8 (n, R, R, 3); what they show does not matter to the time that a step takes."""
    return np.random.default_rng(0).integers(0, 256, (N_IMAGES, resolution, resolution, 3), dtype=np.uint8)


class Images(Dataset):
    """Such images as float (3, R, R) in [-1, 1]."""

    def __init__(self, resolution: int):
        self.images = random_images(resolution)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 127.5 - 1


def loader(resolution: int, batch: int, device) -> Iterator:
    """Float batches (B, 3, R, R) in [-1, 1] without end, by a shuffling DataLoader; on a GPU with two workers."""
    on_gpu = device.type == "cuda"
    feed = DataLoader(Images(resolution), batch, shuffle=True, drop_last=True, num_workers=2 * on_gpu,
                      persistent_workers=on_gpu, pin_memory=on_gpu)  # fmt: skip
    while True:
        yield from feed
