import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blurdiff.config.settings import NetworkConfig
from blurdiff.network import conversion as weights
from blurdiff.network.unet import Attention, UNet, timestep_embedding
from random_weights import random_weights

torch.set_num_threads(1)
SMALL = {
    "channels": 8,
    "multipliers": [1, 2, 2],
    "n_res_blocks": 2,
    "attention_resolutions": [4, 8],
    "n_heads": 2,
    "n_groups": 4,
    "dropout": 0.0,
}
PAPER = {
    "channels": 128,
    "multipliers": [1, 2, 3, 4],
    "n_res_blocks": 3,
    "attention_resolutions": [16, 8],
    "n_heads": 4,
}


def randomized(network):
    network.load_state_dict(random_weights(network))
    return network.eval()


def batch(resolution, n=2, channels=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, resolution, resolution, generator=generator), torch.tensor([1, 700, 13, 4][:n])


def test_paper_network_size_and_cost():
    with torch.device("meta"):
        network = UNet(64, **PAPER)
        with FlopCounterMode(display=False) as counter:
            output = network(torch.zeros(1, 3, 64, 64), torch.zeros(1))
    assert sum(parameter.numel() for parameter in network.parameters()) == 121_060_483
    assert output.shape == (1, 3, 64, 64)
    assert counter.get_total_flops() / 1e9 == pytest.approx(79.4, abs=0.05)
    widths = [module.qkv.in_features for module in network.modules() if isinstance(module, Attention)]
    assert sorted(widths) == [384] * 7 + [512] * 8  # 3 down, 4 up; the middle is 512 wide


def test_starts_as_zero():
    x, i = batch(8)
    assert UNet(8, **SMALL)(x, i).abs().max() == 0


@pytest.mark.parametrize("dim", [2, 8, 128])
def test_timestep_embedding(dim):
    i = [0, 1, 37, 1000]
    result = timestep_embedding(torch.tensor(i), dim)
    half = dim // 2
    for row, timestep in zip(result.tolist(), i, strict=True):
        for k in range(half):
            angle = timestep * 10_000 ** (-k / half)
            # float32 angles of up to 1,000 radians are right to 6e-5
            assert row[k] == pytest.approx(math.cos(angle), abs=1e-4)
            assert row[half + k] == pytest.approx(math.sin(angle), abs=1e-4)


def test_odd_timestep_embedding_ends_in_zero():
    result = timestep_embedding(torch.tensor([5, 9]), 7)
    assert torch.equal(result[:, :6], timestep_embedding(torch.tensor([5, 9]), 6))
    assert result.shape == (2, 7)
    assert result[:, 6].abs().max() == 0


@pytest.mark.parametrize(
    ("resolution", "changes"),
    [
        (8, {"attention_resolutions": [4]}),
        (8, {"n_heads": 1, "n_res_blocks": 1, "attention_resolutions": [2]}),
        (12, {"multipliers": [1, 3], "attention_resolutions": [6], "n_heads": 3}),
        (6, {"multipliers": [1], "attention_resolutions": []}),
        (8, {"multipliers": [1, 1], "attention_resolutions": [8, 4], "n_heads": 4}),
        (
            16,
            {
                "channels": 12,
                "multipliers": [1, 2, 4, 2],
                "n_res_blocks": 3,
                "attention_resolutions": [],
                "n_groups": 3,
            },
        ),
    ],
)
def test_agrees_with_diffusers(resolution, changes):
    """At equal heads everywhere, diffusers' UNet2DModel with the same weights computes the same function."""
    from diffusers import UNet2DModel

    settings = {**SMALL, **changes}
    network = randomized(UNet(resolution, **settings))
    state, config = weights.to_diffusers(network, NetworkConfig(**settings), resolution)
    theirs = UNet2DModel.from_config(config).eval()
    theirs.load_state_dict(state, strict=True)
    x, i = batch(resolution)
    with torch.inference_mode():
        ours, theirs = network(x, i), theirs(x, i).sample
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-6 * ours.abs().max()


def test_memory_formats_agree():
    network = randomized(UNet(8, **SMALL))
    x, i = batch(8)
    with torch.inference_mode():
        contiguous = network(x, i)
        last = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), i)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert (contiguous - last).abs().max() < 1e-5 * contiguous.abs().max()


@pytest.mark.parametrize(
    ("resolution", "changes"),
    [
        (8, {"channels": 5, "multipliers": [1, 2], "n_heads": 5, "n_groups": 5}),  # odd width of the embedding
        # Wider than `channels` from the start.
        (12, {"multipliers": [2, 3], "attention_resolutions": [12], "n_heads": 4}),
        (8, {"multipliers": [3, 1, 2], "attention_resolutions": [8, 2], "image_channels": 1}),
    ],
)
def test_odd_settings(resolution, changes):
    settings = {**SMALL, **changes}
    network = randomized(UNet(resolution, **settings))
    x, i = batch(resolution, channels=settings.get("image_channels", 3))
    output = network(x, i)
    assert output.shape == x.shape
    output.square().mean().backward()
    # Every weight is used. (A normalised bias of keys has no influence on attention; it is part of the qkv bias.)
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_attention_is_where_feature_maps_have_the_size():
    for at, places in {8: ("down.0", "up.2"), 4: ("down.1", "up.1"), 2: ("down.2", "up.0")}.items():
        network = UNet(8, **{**SMALL, "attention_resolutions": [at]})
        names = {name.split(".attentions")[0] for name, m in network.named_modules() if isinstance(m, Attention)}
        assert names == {*places, "middle.1"}


def test_images_of_a_batch_do_not_mix_and_timesteps_matter():
    network = randomized(UNet(8, **SMALL))
    x, i = batch(8, n=4)
    with torch.inference_mode():
        together = network(x, i)
        alone = torch.cat([network(x[k : k + 1], i[k : k + 1]) for k in range(4)])
        others = network(x, i.flip(0))
    assert (together - alone).abs().max() < 1e-5 * together.abs().max()
    assert ((together - others).abs().amax(dim=(1, 2, 3)) > 0.01).all()


def test_dropout_only_while_training():
    network = randomized(UNet(8, **{**SMALL, "dropout": 0.5}))
    x, i = batch(8)
    assert torch.equal(network(x, i), network(x, i))
    network.train()
    assert not torch.equal(network(x, i), network(x, i))
