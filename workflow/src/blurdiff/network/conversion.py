"""One network's weights under three names: ours, guided-diffusion's (read) and diffusers' UNet2DModel's (written).

The authors' checkpoints are state dicts of guided-diffusion's U-Net (Dhariwal & Nichol, arXiv 2105.05233), of which
`import_checkpoint` makes a model.safetensors. `export_diffusers` makes a folder that diffusers reads;
diffusers has one width of attention heads for a whole network: it can express ours only where all attention is equally
wide.
"""

import json
import os
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from blurdiff.config.runs import read_partial_settings
from blurdiff.config.settings import NetworkConfig
from blurdiff.errors import UserError
from blurdiff.network.model_file import load_model
from blurdiff.network.unet import Attention, UNet
from blurdiff.runtime.files import atomic_folder, atomic_path, write_json

# A module's layers: our name → (guided-diffusion's, diffusers'). A layer without module is called "".
LAYERS = {
    "layer": {"": ("", "")},
    "block": {
        "norm1": ("in_layers.0", "norm1"),
        "conv1": ("in_layers.2", "conv1"),
        "embedding": ("emb_layers.1", "time_emb_proj"),
        "norm2": ("out_layers.0", "norm2"),
        "conv2": ("out_layers.3", "conv2"),
        "skip": ("skip_connection", "conv_shortcut"),
    },
    "attention": {"norm": ("norm", "group_norm"), "qkv": ("qkv", "to_qkv"), "out": ("proj_out", "to_out.0")},
}
ATTENTION_ORDERS = ("legacy", "new")
LANDMARK = "time_embed.0.weight"  # by this name a guided-diffusion state dict is found inside a checkpoint


def modules(network: UNet) -> Iterator[tuple[str, str, str, str]]:
    """(kind, our name, guided-diffusion's, diffusers') of every module that has weights, in the order of the data."""
    yield "layer", "time_embedding.0", "time_embed.0", "time_embedding.linear_1"
    yield "layer", "time_embedding.2", "time_embed.2", "time_embedding.linear_2"
    yield "layer", "input_conv", "input_blocks.0.0", "conv_in"
    yield from _modules_of_side("down", network.down, "input_blocks", first=1)
    yield "block", "middle.0", "middle_block.0", "mid_block.resnets.0"
    yield "attention", "middle.1", "middle_block.1", "mid_block.attentions.0"
    yield "block", "middle.2", "middle_block.2", "mid_block.resnets.1"
    yield from _modules_of_side("up", network.up, "output_blocks", first=0)
    yield "layer", "output_norm", "out.0", "conv_norm_out"
    yield "layer", "output_conv", "out.2", "conv_out"


def _modules_of_side(side: str, levels: Any, guided: str, first: int) -> Iterator[tuple[str, str, str, str]]:
    n = first  # guided-diffusion counts the blocks through all levels
    for index, level in enumerate(levels):
        own, diffusers = f"{side}.{index}", f"{side}_blocks.{index}"
        for k, attention in enumerate(level.attentions):
            yield "block", f"{own}.blocks.{k}", f"{guided}.{n}.0", f"{diffusers}.resnets.{k}"
            attends = isinstance(attention, Attention)
            if attends:
                yield "attention", f"{own}.attentions.{k}", f"{guided}.{n}.1", f"{diffusers}.attentions.{k}"
            n += 1
        if isinstance(level.resample, nn.Conv2d):
            # Down-sampling is a block of its own there, up-sampling the last part of the level's last block.
            theirs = f"{guided}.{n}.0.op" if side == "down" else f"{guided}.{n - 1}.{1 + attends}.conv"
            yield "layer", f"{own}.resample", theirs, f"{diffusers}.{side}samplers.0.conv"
            n += side == "down"


def tensor_names(network: UNet) -> Iterator[tuple[str, str, str]]:
    """(our name, guided-diffusion's, diffusers') of every tensor; diffusers' q, k and v stand together as `to_qkv`."""
    own_names = network.state_dict().keys()
    for kind, *module in modules(network):
        for layer, theirs in LAYERS[kind].items():
            paths = [f"{a}.{b}".rstrip(".") for a, b in zip(module, (layer, *theirs), strict=True)]
            for part in ("weight", "bias"):
                if f"{paths[0]}.{part}" in own_names:
                    own, guided, diffusers = (f"{path}.{part}" for path in paths)
                    yield own, guided, diffusers


def import_checkpoint(
    checkpoint: str | os.PathLike, settings: dict, output: str | os.PathLike, attention_order: str = "legacy"
) -> None:
    """Write `output`, a model of the checkpoint's weights with the settings in its metadata.

    Without a section `network` the settings' network is read from the tensors' shapes, and told on stderr. Raises
    UserError for a file that would run code, or whose tensors are not those of the network.
    """
    resolution = settings["resolution"]
    state = read_checkpoint(checkpoint)
    if "network" not in settings:
        found = network_settings(state, resolution, checkpoint)
        print(f"network: {json.dumps(found)}", file=sys.stderr)
        settings = read_partial_settings(json.dumps({**settings, "network": found}))
    with torch.device("meta"):
        network = UNet(resolution, **settings["network"])
    tensors = from_guided_diffusion(state, network, checkpoint, attention_order)
    content = safetensors.torch.save(tensors, {"settings": json.dumps(settings, sort_keys=True)})
    with atomic_path(output) as temporary:
        temporary.write_bytes(content)


def network_settings(state: Mapping[str, Tensor], resolution: int, source: str | os.PathLike) -> dict:
    """A config's `network` section from the names and shapes in a guided-diffusion state dict.

    Heads, groups and dropout leave no trace in the shapes: they are the paper's (4, 32, 0). Raises UserError, with
    `source` first, when the state dict is of another architecture.
    """
    unknown = f"{source}: its tensors do not tell the network's settings; give them, a section network, by --settings"
    try:
        channels = state[LANDMARK].shape[1]
        levels: list[list[int]] = [[]]
        attention_resolutions = []
        n = 1
        while any(name.startswith(f"input_blocks.{n}.") for name in state):
            if f"input_blocks.{n}.0.op.weight" in state:
                levels.append([])
            else:
                levels[-1].append(state[f"input_blocks.{n}.0.out_layers.3.weight"].shape[0])
                size = resolution >> (len(levels) - 1)
                if f"input_blocks.{n}.1.qkv.weight" in state and size not in attention_resolutions:
                    attention_resolutions.append(size)
            n += 1
    except (KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{unknown} ({error})") from error
    widths = [set(level) for level in levels]
    if any(len(level) != len(levels[0]) or len(width) != 1 for level, width in zip(levels, widths, strict=True)):
        raise UserError(f"{unknown} (levels of the widths {levels})")
    if any(width % channels or width % 32 for level in levels for width in level):
        raise UserError(f"{unknown} (the widths {levels} are not multiples of {channels} channels and of 32 groups)")
    return {
        "channels": channels,
        "multipliers": [level[0] // channels for level in levels],
        "n_res_blocks": len(levels[0]),
        "attention_resolutions": attention_resolutions,
        "n_heads": 4,
        "n_groups": 32,
        "dropout": 0.0,
    }


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """The guided-diffusion state dict inside a file of torch.save, under its plain names, loaded weights-only.

    It may stand under a key ("state_dict", "ema", …; of several the one called ema is taken) and have a prefix
    ("module."). Raises UserError when the file cannot be read, would run code, or holds no such state dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a broken file can raise almost anything
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if forbidden:
            raise UserError(
                f"{path} holds more than tensors ({forbidden[1]}) and could run code when loaded, which is refused; "
                "save its state dict by itself, with torch.save(model.state_dict(), …)"
            ) from error
        raise UserError(f"{path} is not a whole checkpoint of torch.save") from error
    found = list(_state_dicts(content, ()))
    chosen = [entry for entry in found if "ema" in ".".join(entry[0]).lower()] if len(found) > 1 else found
    if not found:
        raise UserError(f"{path} holds no guided-diffusion state dict: no tensor is called {LANDMARK}")
    if len(chosen) != 1:
        places = ", ".join(".".join(keys) or "the top" for keys, _, _ in found)
        raise UserError(f"{path} holds several state dicts ({places}); save the one to be imported by itself")
    keys, state, prefix = chosen[0]
    if keys:
        print(f"taking the state dict under {'.'.join(keys)!r}", file=sys.stderr)
    return {str(name).removeprefix(prefix): value for name, value in state.items()}


def _state_dicts(content: object, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping, str]]:
    """(keys that lead to it, state dict, prefix of its names) of every guided-diffusion state dict in a checkpoint."""
    if not isinstance(content, Mapping) or len(keys) > 3:
        return
    for name, value in content.items():
        if isinstance(value, Tensor) and isinstance(name, str) and re.search(rf"(^|\.){LANDMARK}$", name):
            yield keys, content, name.removesuffix(LANDMARK)
            return
    for name, value in content.items():
        yield from _state_dicts(value, (*keys, str(name)))


def from_guided_diffusion(
    state: Mapping[str, Tensor], network: UNet, source: str | os.PathLike, order: str = "legacy"
) -> dict:
    """Our state dict, float32, from a guided-diffusion one; `network` (meta device will do) says what must be there.

    `order` is how the rows of qkv are laid out: "legacy" (heads, 3, d), what guided-diffusion does by default and the
    authors do, or "new" (3, heads, d), as ours. Raises UserError that names the tensor, with `source` first, for
    tensors that are missing, of another shape, not finite, or left over.
    """
    own = network.state_dict()
    hint = "is the checkpoint of the network that the settings describe?"
    result = {}
    for name, theirs, _ in tensor_names(network):
        tensor, shape = state.get(theirs), own[name].shape
        if not isinstance(tensor, Tensor):
            raise UserError(f"{source}: the tensor {theirs} is missing; {hint}")
        # A linear layer over pixels may be stored as a convolution with a kernel of 1.
        if tensor.shape[: len(shape)] != shape or any(size != 1 for size in tensor.shape[len(shape) :]):
            raise UserError(f"{source}: {theirs} has the shape {tuple(tensor.shape)}, not {tuple(shape)}; {hint}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise UserError(f"{source}: {theirs} holds {tensor.dtype} or values that are not finite numbers")
        tensor = tensor.float().reshape(shape)
        if ".qkv." in name and order == "legacy":
            heads = network.get_submodule(name.split(".qkv.")[0]).n_heads
            tensor = tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).reshape(shape)
        result[name] = tensor.clone(memory_format=torch.contiguous_format)
    left_over = sorted(state.keys() - {theirs for _, theirs, _ in tensor_names(network)})
    if left_over:
        more = f" (and {len(left_over) - 1} more)" if len(left_over) > 1 else ""
        raise UserError(f"{source}: the tensor {left_over[0]}{more} has no place in the network; {hint}")
    return result


def export_diffusers(model: str | os.PathLike, settings: Mapping, output: str | os.PathLike) -> None:
    """Make the folder `output` with config.json and the weights; it appears complete or not at all.

    Raises UserError for a model of other settings, a network that UNet2DModel cannot be, or a folder that is there.
    """
    resolution, described = settings["resolution"], NetworkConfig(**settings["network"])
    network = UNet(resolution, **described)
    prior = load_model(model, network, settings)
    state, config = to_diffusers(network, described, resolution)
    content = safetensors.torch.save(state, {"format": "pt"})
    with atomic_folder(output) as folder:
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(content)
        write_json(folder / "config.json", config)
        if prior:  # what the network is shown and what its output means depend on it
            (folder / "prior.safetensors").write_bytes(safetensors.torch.save(prior._asdict()))


def to_diffusers(network: UNet, settings: NetworkConfig, resolution: int) -> tuple[dict[str, Tensor], dict]:
    """(state dict, config) of the diffusers UNet2DModel that computes the same function, timesteps 1 to N included.

    `settings` is the config's `network` section. Raises UserError with the reason when UNet2DModel cannot express it.
    """
    channels, multipliers = settings.channels, settings.multipliers
    if multipliers[0] != 1:
        raise UserError(
            "network.multipliers: UNet2DModel embeds timesteps in as many channels as its first level has, here "
            f"{channels} and {channels * multipliers[0]}; only a network whose first multiplier is 1 can be exported"
        )
    widths = sorted({module.qkv.in_features for module in network.modules() if isinstance(module, Attention)})
    if len(widths) > 1:
        heads = settings.n_heads
        raise UserError(
            f"network.n_heads: UNet2DModel has one attention_head_dim for all levels, but {heads} heads at the widths "
            f"{', '.join(map(str, widths))} are {', '.join(str(width // heads) for width in widths)} wide; only a "
            "network whose attention, the middle's included, has one width can be exported"
        )
    state = {}
    own = network.state_dict()
    for name, _, theirs in tensor_names(network):
        if ".to_qkv." in theirs:
            for part, tensor in zip(("to_q", "to_k", "to_v"), own[name].chunk(3), strict=True):
                state[theirs.replace("to_qkv", part)] = tensor.clone()
        else:
            state[theirs] = own[name].contiguous()
    attends = [(resolution >> level) in settings.attention_resolutions for level in range(len(multipliers))]
    config = {
        "_class_name": "UNet2DModel",
        "sample_size": resolution,
        "in_channels": network.input_conv.in_channels,
        "out_channels": network.output_conv.out_channels,
        "time_embedding_type": "positional",
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "block_out_channels": [channels * multiplier for multiplier in multipliers],
        "layers_per_block": settings.n_res_blocks,
        "downsample_padding": 1,
        "dropout": settings.dropout,
        "act_fn": "silu",
        "attention_head_dim": widths[0] // settings.n_heads,
        "norm_num_groups": settings.n_groups,
        "attn_norm_num_groups": settings.n_groups,
        "norm_eps": network.output_norm.eps,
        "resnet_time_scale_shift": "scale_shift",
        "add_attention": True,
    }
    return state, config
