"""Operations, parameters and memory of networks, counted on tensors without content: no data and no GPU is needed.

FLOPs are those of matrix products, convolutions and attention, two a multiply-add, as torch's FlopCounterMode counts
them. The diffusion process beside the network is left out: at 64×64 it is a ten-thousandth of the paper's.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from blurdiff.evaluation.features import EFFICIENTNET_INPUT_SIZE, build_inception
from blurdiff.network.unet import UNet

COPIES = {"weights": 1, "gradients": 1, "Adam's moments": 2, "averaged weights": 1}  # all float32


@dataclass(frozen=True)
class Network:
    """A network's size: FLOPs of one image forward, and forward and backward; `tensors` it consists of."""

    parameters: int
    tensors: int
    forward: int
    training: int


def count_network(resolution: int, network: Mapping) -> Network:
    """The U-Net of a config's `network` section."""
    return _count_network(resolution, json.dumps(dict(network)))


@cache
def _count_network(resolution: int, network: str) -> Network:
    with torch.device("meta"):
        unet = UNet(resolution, **json.loads(network))
        x, i = torch.empty(1, 3, resolution, resolution), torch.ones(1, dtype=torch.long)
    with torch.no_grad():
        forward = flops_of(lambda: unet(x, i))
    training = flops_of(lambda: unet(x, i).sum().backward())
    parameters = list(unet.parameters())
    return Network(sum(p.numel() for p in parameters), len(parameters), forward, training)


def flops_of(work) -> int:
    """FLOPs of one call of `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@cache
def feature_flops(name: str, resolution: int) -> int:
    """FLOPs of the features of one image. Only the architecture is needed, no weights."""
    with torch.device("meta"), torch.no_grad():
        if name == "inception":
            network = build_inception(None)
            x = torch.empty(1, 3, resolution, resolution)
        else:
            network = EfficientNet.from_name("efficientnet-lite0", image_size=EFFICIENTNET_INPUT_SIZE).extract_features
            x = torch.empty(1, 3, EFFICIENTNET_INPUT_SIZE, EFFICIENTNET_INPUT_SIZE)
        return flops_of(lambda: network(x))


def training_memory(resolution: int, network: Mapping, batch: int, precision: str, device: str) -> dict[str, int]:
    """Bytes of a training step by what they hold: the copies of the weights, and what the backward pass needs.

    At the peak, after the forward pass, all of it is there; memory that a convolution borrows, that the allocator has
    cut up, and CUDA's own half gigabyte come on top. Attention is counted unfused, and nothing as recomputed, so that
    what is compiled needs less.
    """
    parameters = count_network(resolution, network).parameters
    weights = {name: 4 * copies * parameters for name, copies in COPIES.items()}
    return weights | {"activations": _activations(resolution, json.dumps(dict(network)), batch, precision, device)}


@cache
def _activations(resolution: int, network: str, batch: int, precision: str, device: str) -> int:
    """Bytes of the tensors that autograd saves in a forward pass, each storage once, parameters not.

    Fake tensors have a device's types and rules of autocast (on a GPU, group normalisation is in float32) and no
    content, so that a GPU's memory is counted where there is none.
    """
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor  # which keeps the storage, and so its address
        return tensor

    with FakeTensorMode(), torch.device(device):
        unet = UNet(resolution, **json.loads(network)).train()
        x, i = torch.empty(batch, 3, resolution, resolution), torch.ones(batch, dtype=torch.long)
        own = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        with autocast_rules(device, precision), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(x, i)
        return sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)


@contextlib.contextmanager
def autocast_rules(device: str, precision: str) -> Iterator[None]:
    """torch.autocast to bf16, for devices too that are not there (where torch.autocast switches itself off)."""
    if precision == "fp32":
        yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
