import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch

from blurdiff.cli import main
from blurdiff.config.runs import complete_settings
from blurdiff.diffusion.samplers import SAMPLERS
from blurdiff.errors import UserError
from blurdiff.network.unet import UNet
from blurdiff.runtime import compiling
from blurdiff.sampling import sample as sampling
from compiling_helpers import needs_compiler, slow
from tiny import CONFIG

torch.set_num_threads(1)
NETWORK = CONFIG["network"]
SETTINGS = {
    "run": "tiny",
    "dataset": "noise",
    "seed": 3,
    "resolution": 8,
    "training": {"iterations": 1},
    "process": {"n_timesteps": 12, "f_type": "quartic", "f_N": 0.5, "beta_1": 0.01, "beta_N": 0.2},
    "network": NETWORK,
    "sampling": {"n_samples": 10, "shard_size": 5, "batch_size": 5, "n_strip": 2, "n_snapshots": 4, "n_steps": 12},
}


@pytest.fixture
def settings():
    return complete_settings(SETTINGS).as_dict()


@pytest.fixture(scope="session")
def tensors():
    """Random weights for every layer; as made, a network ends in zeros."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=generator) * (0.2 if tensor.ndim == 1 else tensor[0].numel() ** -0.5)
        for name, tensor in UNet(8, **NETWORK).state_dict().items()
    }


@pytest.fixture(scope="session")
def model(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_shard_has_images_and_strips(settings, model):
    shard = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    assert shard["arr_0"].shape == (5, 8, 8, 3)
    assert shard["arr_0"].dtype == np.uint8
    assert shard["strip_timesteps"].tolist() == [12, 5, 1, 0]
    assert shard["strip_timesteps"].dtype == np.int64
    for name in ("strip_x", "strip_x0"):
        assert shard[name].shape == (4, 2, 8, 8, 3)
        assert shard[name].dtype == np.float32
        assert np.isfinite(shard[name]).all()
    # The last state is the image: what is in [0, 1] is there to the nearest of 256 values.
    last = shard["strip_x"][-1]
    assert np.array_equal(last, shard["strip_x0"][-1])
    assert np.abs(last.clip(0, 1) - shard["arr_0"][:2] / 255).max() <= 0.5 / 255 + 1e-6
    assert ((last > 0) & (last < 1)).mean() > 0.1
    assert not np.array_equal(shard["strip_x"][0], shard["strip_x0"][0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_compiled_path_pads_and_copies(settings, model, monkeypatch, batch_size):
    """With a function that is as strict as a CUDA graph: one shape, and its result overwritten by the next call."""
    settings["sampling"]["n_strip"] = 5
    whole = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    shapes, result = set(), []

    def as_graph(function, trial, device):
        def run(x, i):
            shapes.add((x.shape, i.shape, x.dtype, i.dtype))
            output = function(x, i)
            result[:] = result or [torch.empty_like(output)]
            return result[0].copy_(output)

        trial(run)
        return run

    monkeypatch.setattr(compiling, "compile_or_plain", as_graph)
    settings["sampling"].update(compile=True, batch_size=batch_size)
    parts = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    assert len(shapes) == 1
    assert np.abs(whole["strip_x"] - parts["strip_x"]).max() < 1e-4 * np.abs(whole["strip_x"]).max()
    assert np.abs(whole["arr_0"].astype(int) - parts["arr_0"]).max() <= 1
    if batch_size >= 5:
        assert same(whole, parts)


@slow
@needs_compiler
def test_compiled_samples(settings, model):
    settings["sampling"]["n_strip"] = 5
    plain = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    settings["sampling"].update(compile=True, batch_size=3)
    fast = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    assert np.abs(plain["strip_x"] - fast["strip_x"]).max() < 1e-4 * np.abs(plain["strip_x"]).max()
    assert np.abs(plain["arr_0"].astype(int) - fast["arr_0"]).max() <= 1


def test_strip_starts_from_white_noise(settings, model):
    settings["sampling"].update(shard_size=400, batch_size=400, n_strip=400, n_steps=2, n_snapshots=2)
    start = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)["strip_x"][0]
    n = start.size  # 76,800 numbers: the mean is within 5/√n of 0, the variance within 5·√(2/n) of 1
    assert abs(start.mean()) < 5 / math.sqrt(n)
    assert abs(start.var() - 1) < 5 * math.sqrt(2 / n)


def test_shard_depends_on_seed_and_shard_alone(settings, model):
    first = sampling.sample_shard(complete_settings(settings), str(model), 1, 1)
    torch.manual_seed(99)  # the global generator must not matter
    settings["sampling"]["n_samples"] = 1000
    assert same(first, sampling.sample_shard(complete_settings(settings), str(model), 1, 1))
    others = [sampling.sample_shard(complete_settings(settings), str(model), 0, 1)]
    settings["seed"] = 4
    others += [sampling.sample_shard(complete_settings(settings), str(model), shard, 1) for shard in (0, 1)]
    images = [first["arr_0"], *(other["arr_0"] for other in others)]
    for k, image in enumerate(images):
        for other in images[k + 1 :]:
            assert (image != other).mean() > 0.5


@pytest.mark.parametrize("batch_size", [1, 2, 3, None])
def test_batch_size_does_not_change_the_images(settings, model, batch_size):
    """A convolution may sum in another order for another batch: float32 states agree to 1e-4 after 12 steps, and the
    images to one of 256 values."""
    settings["sampling"]["n_strip"] = 5
    whole = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    settings["sampling"]["batch_size"] = batch_size
    parts = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    assert np.abs(whole["strip_x"] - parts["strip_x"]).max() < 1e-4 * np.abs(whole["strip_x"]).max()
    assert np.abs(whole["arr_0"].astype(int) - parts["arr_0"]).max() <= 1


@pytest.mark.parametrize(
    ("changes", "timesteps"),
    [
        ({"n_snapshots": 2}, [12, 0]),
        ({"n_snapshots": 3}, [12, 3, 0]),
        ({"n_steps": 1, "n_snapshots": 2}, [12, 0]),
        ({"n_steps": 3}, [12, 8, 4, 0]),
        ({"n_steps": 4, "grid": "quadratic", "n_snapshots": 5}, [12, 7, 3, 1, 0]),
    ],
)
def test_strip_timesteps(settings, model, changes, timesteps):
    """n_snapshots of them, spaced quadratically among the steps."""
    settings["sampling"].update(changes)
    shard = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    assert shard["strip_timesteps"].tolist() == timesteps
    assert len(shard["strip_x"]) == len(shard["strip_x0"]) == len(timesteps)


def test_skipped_last_timestep(settings, model):
    settings["process"]["skip_last_timestep"], settings["sampling"]["n_steps"] = True, None
    assert sampling.sample_shard(complete_settings(settings), str(model), 0, 1)["strip_timesteps"][0] == 11


def test_released_prediction_stays_blurred(settings, model):
    """strip_x0 released divides by √ᾱ alone: exact where nothing is blurred, different where something is."""

    def shard(strip_x0):
        settings["sampling"]["strip_x0"] = strip_x0
        return sampling.sample_shard(complete_settings(settings), str(model), 0, 1)

    exact, released = shard("exact"), shard("released")
    assert np.array_equal(exact["strip_x"], released["strip_x"])
    assert np.abs(exact["strip_x0"][0] - released["strip_x0"][0]).max() > 0.1
    settings["process"].update(f_type="none", f_N=0.0)
    exact, released = shard("exact"), shard("released")
    assert np.abs(exact["strip_x0"] - released["strip_x0"]).max() < 1e-3 * np.abs(exact["strip_x0"]).max()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_every_sampler_runs_from_the_settings(settings, model, sampler, prediction):
    settings["process"]["prediction"] = prediction
    settings["sampling"].update(sampler=sampler, eta=0.5, n_steps=4)
    shard = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)
    assert shard["strip_timesteps"][0] == 12
    assert shard["strip_timesteps"][-1] == 0
    assert shard["arr_0"].shape == (5, 8, 8, 3)


def test_options_reach_their_samplers(settings, model):
    def images(**changes):
        changed = {**settings, "sampling": {**settings["sampling"], **changes}}
        return sampling.sample_shard(complete_settings(changed), str(model), 0, 1)["arr_0"]

    assert not np.array_equal(images(noise_free_steps=0), images(noise_free_steps=2))
    assert not np.array_equal(images(sampler="ddim", eta=0.0), images(sampler="ddim", eta=1.0))
    assert np.array_equal(images(sampler="ddim", eta=0.0), images(sampler="ddim", eta=0.0, noise_free_steps=0))


def command(settings, model, output, shard="0"):
    return [
        "sample", "--settings", json.dumps(settings), "--model", str(model), "--shard", shard, "--output", str(output)
    ]  # fmt: skip


def test_command_writes_the_shard(settings, model, tmp_path):
    assert main(command(settings, model, tmp_path / "shards" / "1.npz", "1")) == 0
    with np.load(tmp_path / "shards" / "1.npz", allow_pickle=False) as file:
        assert same(dict(file), sampling.sample_shard(complete_settings(settings), str(model), 1, 1))
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["1.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("middle.1.qkv.bias"), "misses the tensor middle.1.qkv.bias"),
        (lambda t: t.update(more=torch.ones(1)), "has a tensor that the network lacks: more"),
        (lambda t: t.update({"output_conv.bias": torch.ones(6)}), "output_conv.bias has the shape (6,)"),
        (lambda t: t.update({"output_conv.bias": torch.full((3,), math.nan)}), "samples are not finite"),
    ],
)
def test_models_that_do_not_fit(settings, tensors, tmp_path, capsys, change, message):
    changed = dict(tensors)
    change(changed)
    safetensors.torch.save_file(changed, tmp_path / "model.safetensors")
    assert main(command(settings, tmp_path / "model.safetensors", tmp_path / "made" / "0.npz")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "made").exists()


def test_no_model(settings, tmp_path, capsys):
    assert main(command(settings, tmp_path / "absent.safetensors", tmp_path / "0.npz")) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "absent.safetensors" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu(settings, model):
    settings["sampling"]["device"] = "cuda"
    with pytest.raises(UserError, match="no GPU"):
        sampling.sample_shard(complete_settings(settings), str(model), 0, 1)


def test_bf16_is_close(settings, model):
    """bf16 has 8 bits: a state moves by some hundredths."""
    whole = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)["strip_x"]
    settings["sampling"]["precision"] = "bf16"
    rough = sampling.sample_shard(complete_settings(settings), str(model), 0, 1)["strip_x"]
    difference = np.abs(whole - rough).mean() / whole.std()
    assert 1e-5 < difference < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_compiled_samples_on_the_gpu_are_the_plain_ones(settings, model, capsys):
    settings["sampling"].update(device="cuda", batch_size=3)  # the last chunk is not full
    found = []
    for compile_it in (False, True):
        settings["sampling"]["compile"] = compile_it
        found.append(sampling.sample_shard(complete_settings(settings), str(model), 0, 1)["strip_x"])
    assert "torch.compile failed" not in capsys.readouterr().err
    assert np.abs(found[0] - found[1]).max() < 1e-3 * np.abs(found[0]).max()
