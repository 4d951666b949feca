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
from random_weights import random_weights
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
    return random_weights(UNet(8, **NETWORK))


@pytest.fixture(scope="session")
def model(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


@pytest.fixture
def draw(settings, model):
    """A function that draws a shard with the settings, of which it may change keys of `sampling`."""

    def shard(k=0, **changes):
        settings["sampling"].update(changes)
        return sampling.sample_shard(complete_settings(settings), str(model), k, 1)

    return shard


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def assert_close(a, b):
    """A convolution may sum in another order for another batch: float32 states agree to 1e-4 after 12 steps, and the
    images to one of 256 values."""
    assert np.abs(a["strip_x"] - b["strip_x"]).max() < 1e-4 * np.abs(a["strip_x"]).max()
    assert np.abs(a["arr_0"].astype(int) - b["arr_0"]).max() <= 1


def test_shard_has_images_and_strips(draw):
    shard = draw()
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
def test_compiled_path_pads_and_copies(draw, monkeypatch, batch_size):
    """With a function that is as strict as a CUDA graph: one shape, and its result overwritten by the next call."""
    whole = draw(n_strip=5)
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
    parts = draw(compile=True, batch_size=batch_size)
    assert len(shapes) == 1
    assert_close(whole, parts)
    if batch_size >= 5:
        assert same(whole, parts)


@slow
@needs_compiler
def test_compiled_samples(draw):
    assert_close(draw(n_strip=5), draw(compile=True, batch_size=3))


def test_strip_starts_from_white_noise(draw):
    start = draw(shard_size=400, batch_size=400, n_strip=400, n_steps=2, n_snapshots=2)["strip_x"][0]
    n = start.size  # 76,800 numbers: the mean is within 5/√n of 0, the variance within 5·√(2/n) of 1
    assert abs(start.mean()) < 5 / math.sqrt(n)
    assert abs(start.var() - 1) < 5 * math.sqrt(2 / n)


def test_shard_depends_on_seed_and_shard_alone(settings, draw):
    first = draw(1)
    torch.manual_seed(99)  # the global generator must not matter
    assert same(first, draw(1, n_samples=1000))
    others = [draw(0)]
    settings["seed"] = 4
    others += [draw(0), draw(1)]
    images = [first["arr_0"], *(other["arr_0"] for other in others)]
    for k, image in enumerate(images):
        for other in images[k + 1 :]:
            assert (image != other).mean() > 0.5


@pytest.mark.parametrize("batch_size", [1, 2, 3, None])
def test_batch_size_does_not_change_the_images(draw, batch_size):
    assert_close(draw(n_strip=5), draw(batch_size=batch_size))


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
def test_strip_timesteps(draw, changes, timesteps):
    """n_snapshots of them, spaced quadratically among the steps."""
    shard = draw(**changes)
    assert shard["strip_timesteps"].tolist() == timesteps
    assert len(shard["strip_x"]) == len(shard["strip_x0"]) == len(timesteps)


def test_skipped_last_timestep(settings, draw):
    settings["process"]["skip_last_timestep"] = True
    assert draw(n_steps=None)["strip_timesteps"][0] == 11


def test_released_prediction_stays_blurred(settings, draw):
    """strip_x0 released divides by √ᾱ alone: exact where nothing is blurred, different where something is."""
    exact, released = draw(strip_x0="exact"), draw(strip_x0="released")
    assert np.array_equal(exact["strip_x"], released["strip_x"])
    assert np.abs(exact["strip_x0"][0] - released["strip_x0"][0]).max() > 0.1
    settings["process"].update(f_type="none", f_N=0.0)
    exact, released = draw(strip_x0="exact"), draw(strip_x0="released")
    assert np.abs(exact["strip_x0"] - released["strip_x0"]).max() < 1e-3 * np.abs(exact["strip_x0"]).max()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_every_sampler_runs_from_the_settings(settings, draw, sampler, prediction):
    settings["process"]["prediction"] = prediction
    shard = draw(sampler=sampler, eta=0.5, n_steps=4)
    assert shard["strip_timesteps"][0] == 12
    assert shard["strip_timesteps"][-1] == 0
    assert shard["arr_0"].shape == (5, 8, 8, 3)


def test_options_reach_their_samplers(draw):
    def images(**changes):
        return draw(**changes)["arr_0"]

    assert not np.array_equal(images(noise_free_steps=0), images(noise_free_steps=2))
    stochastic, deterministic = images(sampler="ddim", eta=1.0), images(eta=0.0)
    assert not np.array_equal(deterministic, stochastic)
    assert np.array_equal(deterministic, images(noise_free_steps=0))


def command(settings, model, output, shard="0"):
    return [
        "sample", "--settings", json.dumps(settings), "--model", str(model), "--shard", shard, "--output", str(output)
    ]  # fmt: skip


def test_command_writes_the_shard(settings, model, draw, tmp_path):
    assert main(command(settings, model, tmp_path / "shards" / "1.npz", "1")) == 0
    with np.load(tmp_path / "shards" / "1.npz", allow_pickle=False) as file:
        assert same(dict(file), draw(1))
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
def test_no_gpu(draw):
    with pytest.raises(UserError, match="no GPU"):
        draw(device="cuda")


def test_bf16_is_close(draw):
    """bf16 has 8 bits: a state moves by some hundredths."""
    whole, rough = draw()["strip_x"], draw(precision="bf16")["strip_x"]
    difference = np.abs(whole - rough).mean() / whole.std()
    assert 1e-5 < difference < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_compiled_samples_on_the_gpu_are_the_plain_ones(draw, capsys):
    options = {"device": "cuda", "batch_size": 3}  # the last chunk is not full
    plain, fast = (draw(compile=compile_it, **options)["strip_x"] for compile_it in (False, True))
    assert "torch.compile failed" not in capsys.readouterr().err
    assert np.abs(plain - fast).max() < 1e-3 * np.abs(plain).max()
