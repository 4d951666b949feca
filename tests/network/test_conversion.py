"""The reference below restates guided-diffusion's U-Net: its names, its block order, its legacy attention."""

import json
import math
import os
import re

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from blurdiff.cli import main
from blurdiff.config.settings import NetworkConfig
from blurdiff.errors import UserError
from blurdiff.network import conversion as weights
from blurdiff.network.model_file import load_model
from blurdiff.network.unet import UNet
from random_weights import random_weights

torch.set_num_threads(1)
NETWORK = {
    "channels": 8,
    "multipliers": [1, 2, 3],
    "n_res_blocks": 2,
    "attention_resolutions": [4, 2],
    "n_heads": 4,
    "n_groups": 4,
    "dropout": 0.0,
}


class ReferenceResBlock(nn.Module):
    def __init__(self, width, out, embedding, groups):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x, embedding):
        scale, shift = self.emb_layers(embedding)[..., None, None].tensor_split(2, dim=1)
        h = self.out_layers[0](self.in_layers(x)) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](h)


class ReferenceAttention(nn.Module):
    """Attention head by head and position by position, as sums; `order` says where q, k and v of a head stand."""

    def __init__(self, width, heads, groups, order):
        super().__init__()
        self.heads, self.order = heads, order
        self.norm = nn.GroupNorm(groups, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x, _):
        flat = x.flatten(2)
        qkv, width = self.qkv(self.norm(flat)), x.shape[1]
        d = width // self.heads
        results = []
        for head in range(self.heads):
            if self.order == "legacy":
                q, k, v = (qkv[:, (3 * head + part) * d :][:, :d] for part in range(3))
            else:
                q, k, v = (qkv[:, part * width + head * d :][:, :d] for part in range(3))
            scores = (q[:, :, :, None] * k[:, :, None, :]).sum(1) / math.sqrt(d)
            results.append((v[:, :, None, :] * scores.softmax(-1)[:, None]).sum(-1))
        return x + self.proj_out(torch.cat(results, 1)).view_as(x)


class Plain(nn.Module):
    """A convolution between blocks, under the name that guided-diffusion gives it ("op" or "conv")."""

    def __init__(self, name, convolution, upsample):
        super().__init__()
        setattr(self, name, convolution)
        self.name, self.upsample = name, upsample

    def forward(self, x, _):
        if self.upsample:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return getattr(self, self.name)(x)


class Reference(nn.Module):
    def __init__(self, resolution, channels, multipliers, n_res_blocks, attention_resolutions, n_heads, n_groups,
                 dropout=0.0, order="legacy"):  # fmt: skip
        super().__init__()
        embedding = 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def layers(width, out, size):
            block = [ReferenceResBlock(width, out, embedding, n_groups)]
            return block + [ReferenceAttention(out, n_heads, n_groups, order)] * (size in attention_resolutions)

        width, size = channels * multipliers[0], resolution
        blocks, widths = [[nn.Conv2d(3, width, 3, padding=1)]], [width]
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                size //= 2
                blocks.append([Plain("op", nn.Conv2d(width, width, 3, stride=2, padding=1), upsample=False)])
                widths.append(width)
            for _ in range(n_res_blocks):
                blocks.append(layers(width, channels * multiplier, size))
                width = channels * multiplier
                widths.append(width)
        self.input_blocks = nn.ModuleList(map(nn.ModuleList, blocks))
        middle = [ReferenceResBlock(width, width, embedding, n_groups) for _ in range(2)]
        self.middle_block = nn.ModuleList([middle[0], ReferenceAttention(width, n_heads, n_groups, order), middle[1]])
        blocks = []
        for level in range(len(multipliers) - 1, -1, -1):
            for _ in range(n_res_blocks + 1):
                blocks.append(layers(width + widths.pop(), channels * multipliers[level], size))
                width = channels * multipliers[level]
            if level > 0:
                size *= 2
                blocks[-1].append(Plain("conv", nn.Conv2d(width, width, 3, padding=1), upsample=True))
        self.output_blocks = nn.ModuleList(map(nn.ModuleList, blocks))
        self.out = nn.Sequential(nn.GroupNorm(n_groups, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))
        self.channels = channels

    def forward(self, x, timesteps):
        half = self.channels // 2
        angles = timesteps.float()[:, None] * torch.tensor([10_000 ** (-k / half) for k in range(half)])
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        skips = [self.input_blocks[0][0](x)]
        for block in self.input_blocks[1:]:
            h = skips[-1]
            for layer in block:
                h = layer(h, embedding)
            skips.append(h)
        for layer in self.middle_block:
            h = layer(h, embedding)
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            for layer in block:
                h = layer(h, embedding)
        return self.out(h)


def settings_text(network=NETWORK, resolution=8):
    return json.dumps({"resolution": resolution, "network": network})


def import_checkpoint(tmp_path, content, *options, settings=None):
    """Of a state dict, or of a file with these bytes; None: of no file."""
    path = tmp_path / "theirs.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    arguments = ["--checkpoint", path, "--settings", settings or settings_text(), *options]
    return main(["import-checkpoint", *map(str, arguments), "--output", str(tmp_path / "made" / "model.safetensors")])


def refused(tmp_path, capsys, *arguments, **options):
    """The one line of an import that is refused; nothing may have been written."""
    assert import_checkpoint(tmp_path, *arguments, **options) == 1
    assert not (tmp_path / "made").exists()
    said = capsys.readouterr()
    assert not said.out, "code of the checkpoint ran"
    lines = [line for line in said.err.splitlines() if not line.startswith(("taking", "network"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def without(state, end):
    """A state dict without the tensors whose names end so."""
    return {name: value for name, value in state.items() if not name.endswith(end)}


@pytest.fixture(scope="module")
def theirs():
    return random_weights(Reference(8, **NETWORK))


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        ("legacy", {}),
        ("new", {}),
        ("legacy", {"n_heads": 2, "n_res_blocks": 1, "multipliers": [2, 1], "attention_resolutions": [8]}),
        ("legacy", {"n_heads": 1, "multipliers": [1], "attention_resolutions": []}),
        ("legacy", {"n_heads": 8, "n_res_blocks": 3, "attention_resolutions": [8, 4, 2]}),
    ],
)
def test_import_computes_what_the_reference_computes(tmp_path, order, changes):
    network = {**NETWORK, **changes}
    reference = Reference(8, **network, order=order).eval()
    state = random_weights(reference)
    reference.load_state_dict(state)
    status = import_checkpoint(tmp_path, state, "--attention-order", order, settings=settings_text(network))
    assert status == 0
    ours = UNet(8, **network).eval()
    load_model(tmp_path / "made" / "model.safetensors", ours, {"network": network})
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    timesteps = torch.tensor([1, 999, 42])
    with torch.inference_mode():
        ours, theirs = ours(x, timesteps), reference(x, timesteps)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_the_order_of_qkv_matters(tmp_path, theirs):
    """Otherwise the test above would not see it."""
    results = []
    for order in weights.ATTENTION_ORDERS:
        network = UNet(8, **NETWORK)
        network.load_state_dict(weights.from_guided_diffusion(theirs, network, "here", order))
        results.append(network.eval()(torch.ones(1, 3, 8, 8), torch.tensor([5])))
    assert (results[0] - results[1]).abs().max() > 0.01


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "step": 7, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda state: {"ema": {"decay": 0.9999, "shadow": {f"module.{name}": v for name, v in state.items()}}},
        lambda state: {"model": {k: 2 * v for k, v in state.items()}, "model_ema": state},
        lambda state: {name: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
                       for name, value in state.items()},
        lambda state: {name: nn.Parameter(value) for name, value in state.items()},
    ],
    ids=["data parallel", "state_dict", "nested ema", "ema preferred", "channels last", "parameters"],
)  # fmt: skip
def test_wrappings(tmp_path, theirs, wrap):
    assert import_checkpoint(tmp_path, wrap(theirs)) == 0
    made = safetensors.torch.load_file(tmp_path / "made" / "model.safetensors")
    expected = weights.from_guided_diffusion(theirs, UNet(8, **NETWORK), "here")
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)


def test_network_is_inferred(tmp_path, capsys):
    network = {**NETWORK, "channels": 32, "multipliers": [1, 2, 1], "n_groups": 32, "attention_resolutions": [8, 2]}
    state = random_weights(Reference(8, **network))
    assert import_checkpoint(tmp_path, state, settings='{"resolution": 8}') == 0
    with safetensors.safe_open(tmp_path / "made" / "model.safetensors", "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    assert settings["network"] == network
    assert json.dumps(network["multipliers"]) in capsys.readouterr().err


def test_paper_network_is_inferred():
    """The paper's settings from the shapes alone, and a place for each of its 121,060,483 parameters."""
    paper = {"channels": 128, "multipliers": [1, 2, 3, 4], "n_res_blocks": 3, "attention_resolutions": [16, 8],
             "n_heads": 4, "n_groups": 32, "dropout": 0.0}  # fmt: skip
    with torch.device("meta"):
        state = Reference(64, **paper).state_dict()
        network = UNet(64, **paper)
    assert weights.network_settings(state, 64, "here") == paper
    names = list(weights.tensor_names(network))
    assert {theirs for _, theirs, _ in names} == state.keys()
    assert sorted(own for own, _, _ in names) == sorted(network.state_dict())
    assert sum(state[theirs].numel() for _, theirs, _ in names) == 121_060_483


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda s: without(s, "middle_block.1.qkv.bias"), "the tensor middle_block.1.qkv.bias is missing"),
        (lambda s: s | {"label_emb.weight": torch.ones(2, 2)}, "the tensor label_emb.weight has no place"),
        (lambda s: s | {"out.2.weight": torch.ones(6, 8, 3, 3)}, r"out.2.weight has the shape \(6, 8, 3, 3\)"),
        (lambda s: s | {"time_embed.0.weight": torch.ones(32)}, r"time_embed.0.weight has the shape \(32,\)"),
        (lambda s: s | {"out.0.bias": torch.tensor([math.nan] * 8)}, "out.0.bias .* not finite"),
        (lambda s: s | {"out.0.bias": torch.ones(8, dtype=torch.int64)}, "out.0.bias holds torch.int64"),
        (lambda s: s | {"out.0.bias": "text"}, "out.0.bias is missing"),
        (lambda s: s | {"middle_block.1.qkv.weight": torch.ones(72, 24, 3)}, "qkv.weight has the shape"),
        (lambda s: s | {"extra": Evil()}, r"\(print\) and could run code"),
        (lambda s: {"a": s, "b": {"c": s}}, r"several state dicts \(a, b.c\)"),
        (lambda s: [1, 2], "holds no guided-diffusion state dict"),
        (lambda s: {"a": {"b": torch.ones(2)}}, "holds no guided-diffusion state dict"),
        (lambda s: {}, "holds no guided-diffusion state dict"),
    ],
)
def test_checkpoints_that_are_refused(tmp_path, theirs, capsys, content, message):
    assert re.search(message, refused(tmp_path, capsys, content(theirs)))


def test_other_architectures_are_not_inferred(tmp_path, theirs, capsys):
    ragged = {name: value for name, value in theirs.items() if not name.startswith("input_blocks.8.")}
    # Eight channels, as these have all, cannot be 32 groups.
    for state in (without(theirs, ".op.weight"), theirs, ragged):
        assert "--settings" in refused(tmp_path, capsys, state, settings='{"resolution": 8}')


def test_unreadable_checkpoints(tmp_path, theirs, capsys):
    assert "cannot read" in refused(tmp_path, capsys, None)
    torch.save(theirs, tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    for damaged in (b"", b"hello", content[: len(content) // 2], content[:-1]):
        assert "is not a whole checkpoint" in refused(tmp_path, capsys, damaged)


EXPORTABLE = {**NETWORK, "multipliers": [1, 2, 2]}


def export(tmp_path, network):
    """The status of an export into tmp_path / "deep" / "exported"."""
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(random_weights(UNet(8, **network)), path)
    arguments = ["--model", path, "--settings", settings_text(network), "--output", tmp_path / "deep" / "exported"]
    return main(["export-diffusers", *map(str, arguments)])


def test_export_is_read_by_diffusers(tmp_path):
    from diffusers import UNet2DModel

    assert export(tmp_path, EXPORTABLE) == 0
    folder = tmp_path / "deep" / "exported"
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert folder.stat().st_mode & 0o055 == 0o055 & ~current_umask()
    theirs, report = UNet2DModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert not any(report.values())
    ours = UNet(8, **EXPORTABLE).eval()
    load_model(tmp_path / "model.safetensors", ours, {"network": EXPORTABLE})
    x, timesteps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 800])
    with torch.inference_mode():
        ours, theirs = ours(x, timesteps), theirs.eval()(x, timesteps).sample
    assert (ours - theirs).abs().max() < 1e-6 * ours.abs().max()


def current_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": [1, 2, 3]}, "network.n_heads: .* 4 heads at the widths 16, 24 are 4, 6 wide"),
        ({"attention_resolutions": [8], "multipliers": [1, 1, 2]}, "4 heads at the widths 8, 16 are 2, 4 wide"),
        ({"multipliers": [2, 2, 2]}, "network.multipliers: .* 8 and 16"),
    ],
)
def test_export_is_refused_with_the_reason(tmp_path, capsys, changes, message):
    assert export(tmp_path, {**NETWORK, **changes}) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "deep").exists()


def test_export_does_not_overwrite(tmp_path, capsys):
    folder = tmp_path / "deep" / "exported"
    folder.mkdir(parents=True)
    assert export(tmp_path, EXPORTABLE) == 0  # an empty folder may be there
    before = {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    assert export(tmp_path, EXPORTABLE) == 1
    assert "exists already" in capsys.readouterr().err
    assert {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()} == before


def test_paper_network_cannot_be_exported():
    with torch.device("meta"):
        network = UNet(64, 128, [1, 2, 3, 4], 3, [16, 8], 4)
    settings = {"channels": 128, "multipliers": [1, 2, 3, 4], "n_heads": 4}
    with pytest.raises(UserError, match="384, 512 are 96, 128 wide"):
        weights.to_diffusers(network, NetworkConfig(**settings), 64)
