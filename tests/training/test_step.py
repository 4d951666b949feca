"""One step computed in several ways is one step."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from blurdiff.config.runs import complete_settings
from blurdiff.data.images import batch_indices, to_model_range
from blurdiff.diffusion.denoiser import Denoiser, combined, mean_square
from blurdiff.diffusion.families import build_process
from blurdiff.errors import UserError
from blurdiff.network.unet import UNet
from blurdiff.runtime.arrays import open_images
from blurdiff.runtime.seeding import INIT, STEP, derive_seed
from blurdiff.training import feed
from blurdiff.training.step import TrainingStep
from compiling_helpers import needs_compiler, slow

CPU = torch.device("cpu")


def plain_training(settings, images, n_steps):
    """The weights after n_steps, and their average, by the plainest code: what every faster way must reproduce."""
    training, typed = settings["training"], complete_settings(settings)
    process = build_process(typed.process, typed.resolution)
    denoiser = Denoiser(None, process, typed.process.prediction, typed.process.loss)
    last = typed.process.last_timestep
    torch.manual_seed(derive_seed(INIT, settings["seed"]))
    network = UNet(settings["resolution"], **settings["network"]).train()
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(training["ema_decay"])
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=training["learning_rate"], fused=True)
    for k in range(n_steps):
        x_0 = to_model_range(
            torch.from_numpy(images[batch_indices(len(images), training["batch_size"], k, settings["seed"])]),
            settings["process"]["range"],
        )
        torch.manual_seed(derive_seed(STEP, settings["seed"], k))
        i = torch.randint(1, last + 1, (len(x_0),))
        noise = torch.randn(x_0.shape)
        x_i, relation = process.q_sample(x_0, i, noise), denoiser.relation(i)
        target = combined(process, (relation.p, noise), (relation.q, x_0))
        weight = denoiser.weigh(relation)
        with torch.autocast("cpu", torch.bfloat16, enabled=training["precision"] == "bf16"):
            prediction = network(x_i, i)
        optimizer.zero_grad()
        mean_square(process, prediction.float() - target, weight).mean().backward()
        optimizer.step()
        average.update_parameters(network)
    return list(network.parameters()), list(average.module.parameters())


def take(settings, images, n_steps, device=CPU, **keywords):
    """The training step after n_steps."""
    step = TrainingStep(complete_settings(settings), device, **keywords)
    batches = feed.batches(images, complete_settings(settings).training, settings["seed"], 0, step.own, device)
    for _ in range(n_steps):
        step(next(batches))
    batches.close()
    return step


def distance(step, reference):
    """The largest difference of a weight, as a share of the largest weight."""
    own, other = step.state.parameters, reference.state.parameters
    scale = max(float(value.detach().abs().max()) for value in other)
    return max(float((a - b).detach().abs().max()) for a, b in zip(own, other, strict=True)) / scale


@pytest.fixture
def pictures(images):
    return np.array(open_images(images / "images.npy", 8))


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("process", {}),
        ("process", {"prediction": "score", "loss": "score", "skip_last_timestep": True}),
        ("process", {"prediction": "std", "loss": "prediction", "range": "symmetric", "basis": "dct"}),
        ("process", {"prediction": "x0", "loss": "x0", "mode_order": "released"}),
        ("network", {"dropout": 0.4}),
        ("network", {"multipliers": [1, 2], "attention_resolutions": [8, 4]}),
        ("training", {"precision": "bf16"}),
    ],
)
def test_step_is_the_plain_one_bit_for_bit(settings, pictures, section, keys):
    settings[section].update(keys)
    step = take(settings, pictures, 4)
    weights, average = plain_training(settings, pictures, 4)
    assert all(torch.equal(a, b) for a, b in zip(step.state.parameters, weights, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(step.state.ema, average, strict=True))
    assert step.state.iteration == 4
    assert math.isinf(step.first_bad)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_gradient_accumulation_changes_rounding_alone(settings, pictures, micro_batch_size):
    whole = take(settings, pictures, 5)
    settings["training"]["micro_batch_size"] = micro_batch_size
    parts = take(settings, pictures, 5)
    assert distance(parts, whole) < (1e-5 if micro_batch_size < 4 else 1e-30)
    assert torch.allclose(parts.state.loss_sums, whole.state.loss_sums, rtol=1e-5)
    assert torch.equal(parts.state.loss_counts, whole.state.loss_counts)


def test_ranks_have_slices_of_one_batch(settings):
    whole = TrainingStep(complete_settings(settings), CPU).draw()
    parts = [TrainingStep(complete_settings(settings), CPU, rank=rank, n_ranks=2).draw() for rank in range(2)]
    for k in range(2):
        assert torch.equal(torch.cat([part[k] for part in parts]), whole[k])


def test_ranks_drop_different_units(settings):
    settings["network"]["dropout"] = 0.5
    drawn = []
    for rank in range(2):
        TrainingStep(complete_settings(settings), CPU, rank=rank, n_ranks=2).draw()
        drawn.append(torch.rand(8))
    assert not torch.equal(*drawn)


def test_batch_that_cannot_be_shared_out(settings):
    settings["training"]["micro_batch_size"] = 3
    with pytest.raises(UserError, match="training.micro_batch_size: 3 does not divide the 4 images a step"):
        TrainingStep(complete_settings(settings), CPU)
    settings["training"].update(micro_batch_size=None, gpus=3)
    with pytest.raises(UserError, match="training.batch_size: 4 cannot be shared out evenly to 3 GPUs"):
        TrainingStep(complete_settings(settings), CPU)


def test_one_graph_without_breaks(settings, pictures):
    """What is compiled is one piece: every break would cost a start of kernels of its own, and CUDA graphs."""
    settings["process"].update(prediction="score", loss="score")
    step, reference = TrainingStep(complete_settings(settings), CPU), take(settings, pictures, 2)
    torch._dynamo.reset()
    step.denoiser.compute_losses = torch.compile(
        step.denoiser.losses, backend="aot_eager", fullgraph=True, dynamic=False
    )
    batches = feed.batches(pictures, complete_settings(settings).training, settings["seed"], 0, step.own, CPU)
    for _ in range(2):
        step(next(batches))
    assert distance(step, reference) < 1e-5


@slow
@needs_compiler
def test_compiled_gradients(settings, pictures):
    """Dropout's random numbers too are those of the plain step."""
    settings["network"]["dropout"] = 0.3
    plain = take(settings, pictures, 3)
    settings["training"]["compile"] = True
    fast = take(settings, pictures, 3)
    assert fast.compiled
    ours, theirs = ([parameter.grad for parameter in step.state.parameters] for step in (fast, plain))
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) < 1e-5 * scale


def test_compile_failure_is_no_failure(settings, pictures, monkeypatch, capsys):
    """It shows in the backward pass here, when the forward pass has been."""
    reference = take(settings, pictures, 2)

    def fails_backward(gradient):
        raise RuntimeError("cannot be compiled")

    def compile_badly(function, **options):
        def bad(*arguments):
            losses = function(*arguments)
            losses.register_hook(fails_backward)
            return losses

        return bad

    monkeypatch.setattr(torch, "compile", compile_badly)
    settings["training"]["compile"] = True
    step = take(settings, pictures, 2)
    assert not step.compiled
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: torch.compile failed (cannot be compiled)")
    assert distance(step, reference) == 0


def test_all_feeds_give_the_same_batches(settings, pictures):
    training = dataclasses.replace(complete_settings(settings).training, batch_size=6)
    own = slice(2, 5)
    wanted = [pictures[batch_indices(len(pictures), 6, k, 3)[own]] for k in range(4, 14)]

    def indices():
        return (batch_indices(len(pictures), 6, k, 3)[own] for k in range(4, 14))

    ways = {
        "plain": feed.plain(pictures, indices()),
        "resident": feed.resident(pictures, indices(), CPU),
        "prefetch": feed.prefetch(pictures, indices(), CPU),
        "chosen": feed.batches(pictures, training, 3, 4, own, CPU),
    }
    for name, batches in ways.items():
        for batch in wanted:
            found = next(batches)
            assert found.dtype == torch.uint8
            assert np.array_equal(found.numpy(), batch), name
        batches.close()


def test_upload_in_pieces(pictures, monkeypatch):
    monkeypatch.setattr(feed, "UPLOAD", 3 * pictures[0].nbytes)
    batches = feed.resident(pictures, iter([np.arange(10)]), CPU)
    assert np.array_equal(next(batches).numpy(), pictures)


def test_reading_ahead_ends_with_its_reader(pictures):
    import threading

    before = threading.active_count()
    batches = feed.prefetch(pictures, (np.arange(3) for _ in range(10**9)), CPU)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_error_of_the_reading_thread_is_raised(pictures):
    batches = feed.prefetch(pictures, iter([np.array([0]), np.array([10**6])]), CPU)
    next(batches)
    with pytest.raises(IndexError):
        next(batches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compile_it", [False, True])
@pytest.mark.parametrize("on_device", [False, True])
def test_no_step_waits_for_the_gpu(settings, pictures, compile_it, on_device):
    device = torch.device("cuda", 0)
    settings = copy.deepcopy(settings)
    settings["training"].update(compile=compile_it, data_on_device=on_device, device="cuda", precision="bf16")
    step = TrainingStep(complete_settings(settings), device)
    assert step.compiled == compile_it
    batches = feed.batches(pictures, complete_settings(settings).training, 3, 0, step.own, device)
    for _ in range(3):
        step(next(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        batches.close()
    assert math.isinf(step.first_bad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ways_agree_on_the_gpu(settings, pictures, monkeypatch):
    """In full float32; cuDNN may add up in another order each time."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    device = torch.device("cuda", 0)
    settings["training"].update(device="cuda", compile=False, data_on_device=True)
    plain = take(settings, pictures, 5, device)
    for compile_it, on_device in ((False, False), (True, True), (True, False)):
        settings["training"].update(compile=compile_it, data_on_device=on_device)
        other = take(settings, pictures, 5, device)
        assert other.compiled == compile_it and distance(other, plain) < 1e-3
        assert torch.equal(other.state.loss_counts, plain.state.loss_counts)
        assert torch.allclose(other.state.loss_sums, plain.state.loss_sums, rtol=1e-3)
