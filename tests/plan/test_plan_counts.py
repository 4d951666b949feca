"""Operations, parameters and memory against numbers that are derived in another way."""

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from blurdiff.config.runs import check_config, resolve_runs
from blurdiff.evaluation.features import build_inception
from blurdiff.network.unet import Attention, UNet
from blurdiff.plan import counts
from blurdiff.training.step import TrainingStep

PAPER = {"channels": 128, "multipliers": [1, 2, 3, 4], "n_res_blocks": 3, "attention_resolutions": [16, 8],
         "n_heads": 4, "n_groups": 32, "dropout": 0.0}  # fmt: skip
SMALL = {"channels": 16, "multipliers": [1, 2], "n_res_blocks": 2, "attention_resolutions": [8], "n_heads": 2,
         "n_groups": 4, "dropout": 0.0}  # fmt: skip


def by_layers(network, call):
    """FLOPs of a forward pass by the formulas of its layers, two a multiply-add; all, and of each layer by name."""
    found = {}

    def hook(name):
        def add(module, inputs, output):
            if isinstance(module, nn.Conv2d):
                height, width = module.kernel_size
                found[name] = 2 * output.numel() * module.in_channels // module.groups * height * width
            elif isinstance(module, nn.Linear):
                found[name] = 2 * output.numel() * module.in_features
            else:
                batch, channels, height, width = output.shape
                found[name] = 4 * batch * (height * width) ** 2 * channels  # q·k and the weighted sum of v

        return add

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Attention):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        call()
    return sum(found.values()), found


@pytest.mark.parametrize(("resolution", "settings"), [(64, PAPER), (16, SMALL)])
def test_network(resolution, settings):
    with torch.device("meta"):
        network = UNet(resolution, **settings)
        x, i = torch.empty(1, 3, resolution, resolution), torch.ones(1, dtype=torch.long)
    total, layers = by_layers(network, lambda: network(x, i))
    counted = counts.count_network(resolution, settings)
    assert counted.forward == total
    # Backward, every product has two more; but nobody wants the gradient of the images and of the timesteps.
    assert counted.training == 3 * total - layers["input_conv"] - layers["time_embedding.0"]
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_features():
    """Inception's inputs are resized to 299, EfficientNet's to 128, whatever the images are."""
    efficientnet = EfficientNet.from_name("efficientnet-lite0", image_size=128)
    network = build_inception(None)
    total, _ = by_layers(network, lambda: network(torch.zeros(1, 3, 64, 64)))
    assert counts.feature_flops("inception", 64) == counts.feature_flops("inception", 16) == total
    total, _ = by_layers(efficientnet, lambda: efficientnet.extract_features(torch.zeros(1, 3, 128, 128)))
    assert counts.feature_flops("efficientnet-lite0", 16) == total


@pytest.mark.parametrize("batch", [1, 4])
def test_activations_are_what_a_forward_pass_leaves_in_memory(batch):
    """The profiler sees what the allocator does: what a forward pass took and did not give back is saved for backward,
    with the output (which nothing saves) and without the input (which was there before)."""
    network = UNet(16, **SMALL).train()
    x, i = torch.zeros(batch, 3, 16, 16), torch.ones(batch, dtype=torch.long)
    network(x, i)  # what is allocated once for all
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        output = network(x, i)
    taken = sum(event.self_cpu_memory_usage for event in profiler.key_averages())
    expected = taken - output.untyped_storage().nbytes() + x.untyped_storage().nbytes()
    memory = counts.training_memory(16, SMALL, batch, "fp32", "cpu")
    # The allocator rounds small tensors up to 64 bytes, of which a layer saves a handful (means and factors of norms).
    assert memory["activations"] == pytest.approx(expected, rel=0.01)


def test_copies_of_the_weights_are_those_of_a_training():
    """Against the tensors of a real training state after a step."""
    config = {
        "resolution": 16, "datasets": {"noise": {"synthetic": "bedroom"}}, "network": SMALL,
        "training": {"iterations": 1, "batch_size": 2}, "runs": [{"dataset": "noise"}],
    }  # fmt: skip
    step = TrainingStep(resolve_runs(check_config(config))[0], torch.device("cpu"))
    step(torch.zeros((2, 16, 16, 3), dtype=torch.uint8))
    state = step.state
    memory = counts.training_memory(16, SMALL, 2, "fp32", "cpu")
    del memory["activations"]
    assert memory == {
        "weights": sum(p.nbytes for p in state.parameters),
        "gradients": sum(p.grad.nbytes for p in state.parameters),
        "Adam's moments": sum(m[k].nbytes for m in state.optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")),
        "averaged weights": sum(p.nbytes for p in state.ema),
    }


def test_memory_grows_with_the_batch_and_shrinks_with_precision():
    """Without any GPU: on a GPU, autocast keeps normalisation in float32, so that not even a third is saved."""
    memory = {
        case: counts.training_memory(32, {**PAPER, "channels": 64, "n_res_blocks": 1}, *case)["activations"]
        for case in [(16, "fp32", "cuda"), (32, "fp32", "cuda"), (16, "bf16", "cuda"), (16, "fp32", "cpu"),
                     (16, "bf16", "cpu")]
    }  # fmt: skip
    # Weights that autocast has converted do not grow with the batch.
    assert memory[32, "fp32", "cuda"] / memory[16, "fp32", "cuda"] == pytest.approx(2, rel=0.01)
    assert 0.7 < memory[16, "bf16", "cuda"] / memory[16, "fp32", "cuda"] < 1.1
    assert 0.5 < memory[16, "bf16", "cpu"] / memory[16, "fp32", "cpu"] < 0.8


def test_autocast_rules_of_an_absent_gpu():
    with FakeTensorMode(), torch.device("cuda"):
        x = torch.empty(2, 4, 8, 8)
        convolution, norm = nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4)
        with counts.autocast_rules("cuda", "bf16"):
            assert convolution(x).dtype == torch.bfloat16
            assert norm(convolution(x)).dtype == torch.float32
        assert convolution(x).dtype == torch.float32
    assert not torch.is_autocast_enabled("cuda")
