"""The training step: ours, the way that the paper's code trains, and diffusers' UNet2DModel trained as its users do.

On a CPU of several cores they are timed twice: one model on all of them, and a model a core, which is how the default
config trains its runs.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from blurdiff.benchmark.ceilings import has_bf16
from blurdiff.benchmark.rows import NotInstalled, Row, Target, Work
from blurdiff.benchmark.settings import named
from blurdiff.config.settings import Settings, with_keys

N_IMAGES = 4096
PLAIN = "ours as the paper's code trains, eager fp32"
DIFFUSERS = "diffusers' UNet2DModel, eager fp32"
BIG_BATCH = 128
AT_ONCE = 4  # steps of each of several models between two looks at the clock


def stages(settings: Settings, quick: bool, threads: int = 1) -> list[list[Row]]:
    """The rows of each batch size: the config's, and on a GPU 128 images too."""
    device, batch = settings["training"]["device"], settings["training"]["batch_size"]
    batches = [batch] if device == "cpu" else sorted({batch, BIG_BATCH})
    return [rows(with_keys(settings, "training", batch_size=batch), quick, threads) for batch in batches]


def rows(settings: Settings, quick: bool, threads: int = 1) -> list[Row]:
    training = settings["training"]
    device, batch = training["device"], training["batch_size"]
    stage = f"training step, batch {batch}"
    if device == "cpu":
        baseline, chosen = DIFFUSERS, (training["precision"], bool(training["compile"]))
        ways = [("fp32", False), ("fp32", True), *([("bf16", False)] if has_bf16() else [])]
        targets = (Target(DIFFUSERS, 1.5),)
    else:
        baseline, chosen = PLAIN, (training["precision"], training["compile"] is not False)
        ways = [("bf16", False), ("bf16", True)]
        # Of the paper's network; at 16 images a step the target is a ratio, at 128 a share of what the GPU can do.
        targets = (Target("matrix product", 0.4),) if batch >= BIG_BATCH else (Target(PLAIN, 4.0),)
    ways = [chosen] if quick else [*ways, *([] if chosen in ways else [chosen])]
    of = {"baseline": baseline, "images_per_item": 1.0}
    result = [
        Row(stage, DIFFUSERS, plain, {"settings": settings, "network": "diffusers"}, **of),
        Row(stage, PLAIN, plain, {"settings": settings, "network": "ours"}, **of),
    ]
    for precision, compiled in ways:
        own = with_keys(settings, "training", precision=precision, compile=compiled)
        aimed = targets if (precision, compiled) == chosen else ()
        result.append(Row(stage, named(precision, compiled, device), fast, {"settings": own}, targets=aimed, **of))
    if device == "cpu" and threads > 1 and not quick:
        own = with_keys(settings, "training", precision=chosen[0], compile=chosen[1])
        name = named(*chosen, device)
        theirs = {"settings": settings, "network": "diffusers"}
        result += [
            Row(stage, f"{DIFFUSERS}, a model a core", a_model_a_core, {"build": plain, "arguments": theirs}, **of),
            Row(stage, f"{name}, a model a core", a_model_a_core, {"build": fast, "arguments": {"settings": own}},
                targets=targets, **of),
        ]  # fmt: skip
    return result


def fast(device, threads: int, settings: Settings) -> Work:
    """The step and the feed that the stage `train` uses."""
    from blurdiff.diffusion.families import prior_of
    from blurdiff.runtime.devices import pick_device
    from blurdiff.training.feed import batches
    from blurdiff.training.step import TrainingStep

    training, device = settings["training"], pick_device(device.type, threads)
    images = random_images(settings["resolution"])
    prior = prior_of(settings.process, images)
    step = TrainingStep(settings, device, prior=prior)
    feed = batches(images, training, settings["seed"], 0, step.own, device)

    def counted() -> None:
        plain = with_keys(settings, "training", compile=False)
        eager = TrainingStep(plain, device, prior=prior) if step.compiled else step
        eager(next(feed))

    def finite() -> None:
        if step.first_bad.isfinite():
            raise ArithmeticError(f"the loss is not finite at step {int(step.first_bad)}")

    return Work(
        lambda: step(next(feed)), training["batch_size"], training["precision"], training["batch_size"],
        settings["resolution"], sum(parameter.numel() for parameter in step.state.parameters), counted,
        fused=step.compiled, result=finite,
        note="" if step.compiled or not training["compile"] else "could not be compiled: runs eagerly",
    )  # fmt: skip


def plain(device, threads: int, settings: Settings, network: str) -> Work:
    """A training loop of the usual kind in PyTorch's defaults: a DataLoader, Adam, an average kept parameter by
    parameter, and the loss read at every step. `network`: "ours", on blurred images; or "diffusers", on noised ones, by
    its own DDPMScheduler and EMAModel."""
    import torch
    import torch.nn.functional as F

    training = settings["training"]
    batch = training["batch_size"]
    torch.manual_seed(0)
    model, predict, noised, update_average = (_diffusers if network == "diffusers" else _ours)(device, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=training["learning_rate"])
    feed = loader(settings["resolution"], batch, device)
    n_timesteps = settings["process"]["n_timesteps"]

    def step() -> None:
        x_0 = next(feed).to(device)
        i = torch.randint(1, n_timesteps, (batch,), device=device)
        noise = torch.randn_like(x_0)
        loss = F.mse_loss(predict(noised(x_0, i, noise), i), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_average()
        loss.item()

    tf32 = device.type == "cuda" and torch.backends.cudnn.conv.fp32_precision == "tf32"
    return Work(
        step, batch, "tf32" if tf32 else "fp32", batch, settings["resolution"],
        sum(parameter.numel() for parameter in model.parameters()), step,
        note="PyTorch's defaults: convolutions in TF32, matrix products in fp32" if tf32 else "",
    )  # fmt: skip


def a_model_a_core(device, threads: int, build, arguments: dict) -> Work:
    """As many models as threads, each trained in a process of its own with one thread; items are the images of all."""
    from multiprocessing import get_context

    context, ends = get_context("spawn"), []
    for _ in range(threads):
        own, other = context.Pipe()
        context.Process(target=_train_when_asked, args=(other, build, arguments), daemon=True).start()
        other.close()
        ends.append(own)
    described = [end.recv() for end in ends]
    for answer in described:
        if isinstance(answer, Exception):
            raise answer

    def call() -> None:
        for end in ends:
            end.send(AT_ONCE)
        for end in ends:
            end.recv()

    def counted() -> None:
        alone = build(device, 1, **arguments)
        for _ in range(threads * AT_ONCE):
            alone.counted()

    return Work(
        call, threads * AT_ONCE * described[0]["items"], counted=counted, has_processes=True,
        note=f"{threads} models at once, a thread each; the rate is that of all together",
        **{key: described[0][key] for key in ("precision", "batch", "resolution", "parameters")},
    )  # fmt: skip


def _train_when_asked(connection, build, arguments: dict) -> None:
    """A process's life: tell what it does, then take as many steps as it is asked for, until nobody asks."""
    import torch

    torch.set_num_threads(1)
    try:
        work = build(torch.device("cpu"), 1, **arguments)
    except Exception as error:  # raised where the processes were started
        connection.send(error)
        return
    connection.send({key: getattr(work, key) for key in ("items", "precision", "batch", "resolution", "parameters")})
    with suppress(EOFError, OSError):
        while True:
            for _ in range(connection.recv()):
                work.call()
            connection.send(None)


def _ours(device, settings: Settings) -> tuple:
    """(network, its prediction, noised images, update of the average) of ours, as the paper's code has them."""
    import torch

    from blurdiff.diffusion.families import build_process
    from blurdiff.network.unet import UNet

    model = UNet(settings["resolution"], **settings["network"]).to(device).train()
    average = [parameter.detach().clone() for parameter in model.parameters()]
    process = build_process(settings["process"], settings["resolution"]).to(device)
    decay = settings["training"]["ema_decay"]

    @torch.no_grad()
    def update_average() -> None:
        for kept, parameter in zip(average, model.parameters(), strict=True):
            kept.lerp_(parameter, 1 - decay)

    return model, model, process.q_sample, update_average


def _diffusers(device, settings: Settings) -> tuple:
    """The same of diffusers' network with as many parameters, its noise and its average."""
    network = diffusers_network(settings).to(device).train()
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    scheduler = DDPMScheduler(settings["process"]["n_timesteps"])
    average = EMAModel(network.parameters(), decay=settings["training"]["ema_decay"])
    average.to(device)

    def predict(x, i):
        return network(x, i).sample

    def noised(x_0, i, noise):
        return scheduler.add_noise(x_0, noise, i)

    return network, predict, noised, lambda: average.step(network.parameters())


def diffusers_network(settings: Settings):
    """diffusers' UNet2DModel for a config's network: as many parameters, the same widths, blocks and attention.

    Where attention has several widths, so that UNet2DModel cannot have four heads at each, all heads are as wide as
    ours are in the widest: the same parameters and operations but for the number of heads.
    """
    import torch

    from blurdiff.network.conversion import to_diffusers
    from blurdiff.network.unet import UNet

    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise NotInstalled("diffusers") from error
    resolution, network = settings["resolution"], settings["network"]
    sizes = [resolution >> level for level in range(len(network["multipliers"]))]
    attends = [size in network["attention_resolutions"] for size in sizes]
    with torch.device("meta"):
        middle_only = replace(network, attention_resolutions=[])
        _, config = to_diffusers(UNet(resolution, **middle_only), middle_only, resolution)
        n_parameters = sum(parameter.numel() for parameter in UNet(resolution, **network).parameters())
    config["down_block_types"] = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    config["up_block_types"] = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    theirs = UNet2DModel.from_config(config)
    if (found := sum(parameter.numel() for parameter in theirs.parameters())) != n_parameters:
        raise RuntimeError(f"diffusers' network has {found:,} parameters, ours {n_parameters:,}")
    return theirs


def random_images(resolution: int):
    """uint8 (n, R, R, 3); what they show does not matter to the time that a step takes."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (N_IMAGES, resolution, resolution, 3), dtype=np.uint8)


def loader(resolution: int, batch: int, device) -> Iterator:
    """Float batches (B, 3, R, R) in [-1, 1] without end, by a shuffling DataLoader; on a GPU with two workers."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    images = random_images(resolution)

    class Images(Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int):
            return torch.from_numpy(images[index]).permute(2, 0, 1).float() / 127.5 - 1

    on_gpu = device.type == "cuda"
    workers = {"num_workers": 2, "persistent_workers": True, "pin_memory": True} if on_gpu else {}
    batches = DataLoader(Images(), batch, shuffle=True, drop_last=True, **workers)
    while True:
        yield from batches
