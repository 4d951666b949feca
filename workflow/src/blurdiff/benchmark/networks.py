"""The networks that are timed: ours with random weights, and diffusers' of as many parameters."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from blurdiff.benchmark.rows import Work
from blurdiff.config.settings import Settings
from blurdiff.network.conversion import to_diffusers
from blurdiff.network.unet import UNet
from blurdiff.runtime.devices import CUDNN


def in_defaults(
    device: torch.device, call: Callable, network: nn.Module, items: int, batch: int, settings: Settings, result=None
) -> Work:
    """The work of a network as it is, in PyTorch's defaults: float32, but for convolutions on a GPU."""
    tf32 = device.type == "cuda" and CUDNN.conv.fp32_precision == "tf32"
    note = "PyTorch's defaults: convolutions in TF32, matrix products in fp32" if tf32 else ""
    return Work(call, items, "tf32" if tf32 else "fp32", batch, settings.resolution, n_parameters(network), call,
                result=result, note=note)  # fmt: skip


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def random_network(settings: Settings) -> UNet:
    """Our network with the same random weights each time, those that begin as zeros included: a network that predicts
    nothing but zeros could be faster than one that does."""
    torch.manual_seed(0)
    network = UNet(settings.resolution, **settings.network)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return network


def diffusers_network(settings: Settings) -> nn.Module:
    """diffusers' UNet2DModel for a config's network: as many parameters, the same widths, blocks and attention.

    Where attention has several widths, so that UNet2DModel cannot have four heads at each, all heads are as wide as
    ours are in the widest: the same parameters and operations but for the number of heads.
    """
    from diffusers import UNet2DModel

    resolution, network = settings.resolution, settings.network
    attends = [resolution >> level in network.attention_resolutions for level in range(len(network.multipliers))]
    with torch.device("meta"):
        middle_only = replace(network, attention_resolutions=[])
        _, config = to_diffusers(UNet(resolution, **middle_only), middle_only, resolution)
        wanted = n_parameters(UNet(resolution, **network))
    config["down_block_types"] = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    config["up_block_types"] = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    theirs = UNet2DModel.from_config(config)
    if (found := n_parameters(theirs)) != wanted:
        raise RuntimeError(f"diffusers' network has {found:,} parameters, ours {wanted:,}")
    return theirs
