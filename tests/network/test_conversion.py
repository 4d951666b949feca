"""The reference below restates guided-diffusion's U-Net: its names, its block order, its legacy attention."""

import json
import math
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


def random_state(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        * (0.3 if tensor.ndim == 1 else 1 / math.sqrt(tensor[0].numel()))
        for name, tensor in network.state_dict().items()
    }


def settings_text(network=NETWORK, resolution=8):
    return json.dumps({"resolution": resolution, "network": network})


def import_checkpoint(tmp_path, content, *options, settings=None):
    torch.save(content, tmp_path / "theirs.ckpt")
    arguments = ["--checkpoint", tmp_path / "theirs.ckpt", "--settings", settings or settings_text(), *options]
    return main(["import-checkpoint", *map(str, arguments), "--output", str(tmp_path / "made" / "model.safetensors")])


def refused(tmp_path, capsys, *arguments, **options):
    """The one line of an import that is refused; nothing may have been written."""
    assert import_checkpoint(tmp_path, *arguments, **options) == 1
    assert not (tmp_path / "made").exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("taking", "network"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def theirs():
    return random_state(Reference(8, **NETWORK))


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
    state = random_state(reference)
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
    state = random_state(Reference(8, **network))
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


def test_code_in_a_checkpoint_is_refused(tmp_path, theirs, capsys):
    line = refused(tmp_path, capsys, {**theirs, "extra": Evil()})
    assert "could run code" in line
    assert "print" in line
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("middle_block.1.qkv.bias"), "the tensor middle_block.1.qkv.bias is missing"),
        (lambda s: s.update({"label_emb.weight": torch.ones(2, 2)}), "the tensor label_emb.weight has no place"),
        (lambda s: s.update({"out.2.weight": torch.ones(6, 8, 3, 3)}), r"out.2.weight has the shape \(6, 8, 3, 3\)"),
        (lambda s: s.update({"time_embed.0.weight": torch.ones(32)}), r"time_embed.0.weight has the shape \(32,\)"),
        (lambda s: s.update({"out.0.bias": torch.tensor([math.nan] * 8)}), "out.0.bias .* not finite"),
        (lambda s: s.update({"out.0.bias": torch.ones(8, dtype=torch.int64)}), "out.0.bias holds torch.int64"),
        (lambda s: s.update({"out.0.bias": "text"}), "out.0.bias is missing"),
        (lambda s: s.update({"middle_block.1.qkv.weight": torch.ones(72, 24, 3)}), "qkv.weight has the shape"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, theirs, capsys, change, message):
    state = dict(theirs)
    change(state)
    assert re.search(message, refused(tmp_path, capsys, state))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no guided-diffusion state dict"),
        ({"a": {"b": torch.ones(2)}}, "holds no guided-diffusion state dict"),
        ({}, "holds no guided-diffusion state dict"),
    ],
)
def test_other_checkpoints(tmp_path, capsys, content, message):
    assert message in refused(tmp_path, capsys, content)


def test_several_state_dicts(tmp_path, theirs, capsys):
    assert re.search(r"several state dicts \(a, b.c\)", refused(tmp_path, capsys, {"a": theirs, "b": {"c": theirs}}))


def test_other_architectures_are_not_inferred(tmp_path, theirs, capsys):
    state = {name: value for name, value in theirs.items() if not name.endswith(".op.weight")}
    assert "--settings" in refused(tmp_path, capsys, state, settings='{"resolution": 8}')
    # Eight channels cannot be 32 groups.
    assert "--settings" in refused(tmp_path, capsys, theirs, settings='{"resolution": 8}')
    ragged = {name: value for name, value in theirs.items() if not name.startswith("input_blocks.8.")}
    assert "--settings" in refused(tmp_path, capsys, ragged, settings='{"resolution": 8}')


def test_unreadable_checkpoints(tmp_path, theirs, capsys):
    assert "cannot read" in one_line(tmp_path, capsys, tmp_path / "absent.ckpt")
    torch.save(theirs, tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    for damaged in (b"", b"hello", content[: len(content) // 2], content[:-1]):
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        assert "is not a whole checkpoint" in one_line(tmp_path, capsys, tmp_path / "damaged.ckpt")


def one_line(tmp_path, capsys, path):
    made = tmp_path / "made.safetensors"
    assert main(["import-checkpoint", "--checkpoint", str(path), "--output", str(made)]) == 1
    assert not made.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


EXPORTABLE = {**NETWORK, "multipliers": [1, 2, 2]}


def model_file(tmp_path, network):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(random_state(UNet(8, **network)), path)
    return path


def test_export_is_read_by_diffusers(tmp_path):
    from diffusers import UNet2DModel

    path = model_file(tmp_path, EXPORTABLE)
    folder = tmp_path / "deep" / "exported"
    arguments = ["--model", str(path), "--settings", settings_text(EXPORTABLE), "--output", str(folder)]
    assert main(["export-diffusers", *arguments]) == 0
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert folder.stat().st_mode & 0o055 == 0o055 & ~current_umask()
    theirs, report = UNet2DModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert not any(report.values())
    ours = UNet(8, **EXPORTABLE).eval()
    load_model(path, ours, {"network": EXPORTABLE})
    x, timesteps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 800])
    with torch.inference_mode():
        ours, theirs = ours(x, timesteps), theirs.eval()(x, timesteps).sample
    assert (ours - theirs).abs().max() < 1e-6 * ours.abs().max()


def current_umask():
    import os

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
    network = {**NETWORK, **changes}
    arguments = ["--settings", settings_text(network), "--output", str(tmp_path / "exported")]
    assert main(["export-diffusers", "--model", str(model_file(tmp_path, network)), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "exported").exists()


def test_export_does_not_overwrite(tmp_path, capsys):
    folder = tmp_path / "exported"
    folder.mkdir()
    arguments = ["--settings", settings_text(EXPORTABLE), "--output", str(folder)]
    arguments = ["export-diffusers", "--model", str(model_file(tmp_path, EXPORTABLE)), *arguments]
    assert main(arguments) == 0  # an empty folder may be there
    before = {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()} == before


def test_paper_network_cannot_be_exported():
    with torch.device("meta"):
        network = UNet(64, 128, [1, 2, 3, 4], 3, [16, 8], 4)
    settings = {"channels": 128, "multipliers": [1, 2, 3, 4], "n_heads": 4}
    with pytest.raises(UserError, match="384, 512 are 96, 128 wide"):
        weights.to_diffusers(network, NetworkConfig(**settings), 64)
