import json

import numpy as np
import pytest
import torch

from blurdiff.cli import main
from blurdiff.config.runs import read_settings
from blurdiff.evaluation.evaluate import describe_run
from blurdiff.evaluation.features import FeatureNetwork
from blurdiff.evaluation.frechet import frechet_distance
from blurdiff.evaluation.measures import Comparison
from blurdiff.evaluation.metrics import METRICS
from blurdiff.evaluation.records import read_reference

R, D, N = 4, 5, 30
SETTINGS = {
    "run": "bedroom_log",
    "dataset": "bedroom",
    "label": "bedroom (synthetic)",
    "synthetic": True,
    "seed": 3,
    "resolution": R,
    "process": {"f_type": "log", "f_N": 0.6, "n_timesteps": 50},
    "training": {"iterations": 700},
    "sampling": {"n_samples": N, "n_steps": None},
    "evaluation": {"network": "efficientnet-lite0", "batch_size": 8, "device": "cpu", "threads": 1},
}
MATRIX = np.random.default_rng(99).normal(0, 0.02, (3 * R * R, 2048)).astype(np.float32)


def network(name="efficientnet-lite0", dimension=D, input_size=128):
    """A stand-in for a feature network: a fixed linear map of the pixels, in float32."""
    matrix = torch.from_numpy(MATRIX[:, :dimension])
    return FeatureNetwork(name, dimension, input_size, "f" * 64, torch.device("cpu"), lambda x: x.flatten(1) @ matrix)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("blurdiff.evaluation.features.load_network", lambda name, weights, device: network(name))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", arr_0=rng.integers(0, 200, (N, R, R, 3), dtype=np.uint8))
    write_reference(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    return tmp_path


def reference_arrays():
    real = np.random.default_rng(1).normal(1, 2, (80, D))
    return {
        "mu": real.mean(0),
        "sigma": np.cov(real.T),
        "n": np.int64(80),
        "floor.frechet": np.array([1.0, 2.0, 4.0]),
        "floor.kernel": np.array([0.5]),
        "floor.recall": np.full(2, np.nan),
        "floor_n": np.int64(N),
        "features": real[:N].astype(np.float32),
        "network": "efficientnet-lite0",
        "weights_sha256": "f" * 64,
        "input_size": np.int64(128),
        "resolution": np.int64(R),
    }


def write_reference(folder, without=(), **changes):
    arrays = {key: value for key, value in (reference_arrays() | changes).items() if key not in without}
    np.savez(folder / "reference.npz", **arrays)


def stage(folder, **options):
    options = {
        "samples": folder / "samples.npz",
        "reference": folder / "reference.npz",
        "settings": folder / "settings.json",
        "network": "efficientnet-lite0",
        "output": folder / "fid.json",
        "statistics": folder / "own.npz",
    } | options
    return main(["evaluate", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())])


def test_evaluation(folder, quick, capsys):
    assert stage(folder, features=folder / "features.npy") == 0
    result = json.loads((folder / "fid.json").read_text())
    samples, real = np.load(folder / "samples.npz")["arr_0"], reference_arrays()
    pixels = samples.transpose(0, 3, 1, 2).reshape(N, -1).astype(np.float64)
    x = pixels @ MATRIX[:, :D].astype(np.float64)
    expected = frechet_distance(x.mean(0), np.cov(x.T), real["mu"], real["sigma"])
    assert result["value"] == pytest.approx(expected, rel=1e-4) and result["metric"] == "FD-EfficientNet-Lite0"
    scores = Comparison(x, None, real["features"]).scores(METRICS.keys() - {"frechet"})
    assert result["others"].keys() == scores.keys()
    for name, score in scores.items():
        assert result["others"][name]["value"] == pytest.approx(score.value, rel=1e-3)
        assert result["others"][name]["error"] == (pytest.approx(score.error, rel=1e-3) if name == "kernel" else None)
    assert (result["others"]["kernel"]["floor_mean"], result["others"]["kernel"]["floor_std"]) == (0.5, None)
    assert result["others"]["recall"]["floor_mean"] is None
    assert (result["n_samples"], result["n_reference"], result["floor_n"], result["floor_repeats"]) == (N, 80, N, 3)
    assert result["floor_mean"] == pytest.approx(7 / 3)
    assert result["floor_std"] == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert (result["network"], result["weights_sha256"]) == ("efficientnet-lite0", "f" * 64)
    assert result["input_size"] == 128
    assert result["run"] == {
        **{key: SETTINGS[key] for key in ("run", "dataset", "label", "synthetic", "seed", "resolution")},
        **{"family": "blur", "prediction": "epsilon", "loss": "epsilon"},
        **{"f_type": "log", "f_N": 0.6, "direction": "coarse-to-fine", "mode_order": "paper", "basis": "gaussian-blur"},
        **{"iterations": 700, "n_steps": 50, "sampler": "reverse-diffusion"},
        "made_with": {
            **{"process.f_type": "log", "process.f_N": 0.6, "process.n_timesteps": 50},
            **{"training.iterations": 700, "sampling.n_samples": N, "sampling.n_steps": 50},
        },
    }
    own = read_reference(folder / "own.npz")
    np.testing.assert_allclose(own.mu, x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.sigma, np.cov(x.T), rtol=1e-4, atol=1e-5)
    assert own.n == N
    features = np.load(folder / "features.npy")
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, x, rtol=1e-4, atol=1e-5)
    assert "bedroom_log, seed 3: FD-EfficientNet-Lite0" in capsys.readouterr().out


@pytest.mark.parametrize(("n_steps", "skip", "steps"), [(None, False, 50), (None, True, 49), (7, True, 7)])
def test_all_steps_are_those_that_were_trained(n_steps, skip, steps):
    changes = {"process": {**SETTINGS["process"], "skip_last_timestep": skip}, "sampling": {"n_steps": n_steps}}
    assert describe_run(read_settings(json.dumps(SETTINGS | changes)))["n_steps"] == steps


def test_samples_that_are_the_real_images_have_distance_zero(folder, quick):
    assert stage(folder) == 0
    own = read_reference(folder / "own.npz")
    write_reference(folder, mu=own.mu, sigma=own.sigma)
    assert stage(folder) == 0
    assert abs(json.loads((folder / "fid.json").read_text())["value"]) < 1e-9 * np.trace(own.sigma)


def test_reference_without_floor(folder, quick):
    write_reference(folder, without=("floor.frechet",))
    assert stage(folder) == 0
    result = json.loads((folder / "fid.json").read_text())
    assert result["floor_mean"] is None and result["floor_std"] is None and result["floor_repeats"] == 0


def test_reference_of_pytorch_fid(folder, monkeypatch):
    monkeypatch.setattr(
        "blurdiff.evaluation.features.load_network", lambda name, *_: network(name, dimension=40, input_size=299)
    )
    np.savez_compressed(folder / "reference.npz", mu=np.zeros(40), sigma=np.eye(40))
    assert stage(folder, network="inception") == 0
    result = json.loads((folder / "fid.json").read_text())
    assert (result["metric"], result["n_reference"], result["floor_mean"]) == ("FID", None, None)
    assert {score["value"] for score in result["others"].values()} == {None} and np.isfinite(result["value"])


def test_settings_may_be_json_itself_and_options_stand_above_them(folder, quick):
    text = json.dumps(SETTINGS | {"evaluation": {**SETTINGS["evaluation"], "device": "cuda"}})
    assert stage(folder, settings=text, device="cpu", batch_size=1) == 0


def spoil(folder, kind):
    """Spoil one input; returns the options that point to it and a part of the message that must come."""
    samples = folder / "samples.npz"
    images = np.load(samples)["arr_0"]
    if kind == "no samples":
        samples.unlink()
        return {}, "cannot read"
    if kind == "truncated samples":
        samples.write_bytes(samples.read_bytes()[:-30])
        return {}, "samples.npz: it is damaged"
    if kind == "flipped samples":
        data = bytearray(samples.read_bytes())
        data[len(data) // 2] ^= 1
        samples.write_bytes(data)
        return {}, "samples.npz: it is damaged"
    if kind == "no arr_0":
        np.savez(samples, images=images)
        return {}, "arr_0 is missing"
    if kind == "float samples":
        np.savez(samples, arr_0=images / 255)
        return {}, "samples.npz holds float64"
    if kind == "channels first":
        np.savez(samples, arr_0=images.transpose(0, 3, 1, 2))
        return {}, "samples.npz holds uint8 (30, 3, 4, 4)"
    if kind == "other count":
        np.savez(samples, arr_0=images[:-1])
        return {}, "holds 29 samples, the settings say sampling.n_samples: 30"
    if kind == "no reference":
        (folder / "reference.npz").unlink()
        return {}, "reference.npz"
    changes = {
        "other network": ({"network": "inception"}, "features of inception, not of efficientnet-lite0"),
        "other weights": ({"weights_sha256": "a" * 64}, "weights_sha256 of efficientnet-lite0 is aaa"),
        "other input size": ({"input_size": 96}, "input_size of efficientnet-lite0 is 96, but 128 here"),
        "other resolution": ({"resolution": 64}, "images of 64 pixels, not 4"),
        "other dimension": ({"mu": np.zeros(3), "sigma": np.eye(3)}, "dimension of efficientnet-lite0 is 3, but 5"),
        "reference not finite": ({"mu": np.full(D, np.inf)}, "not finite"),
    }
    if kind in changes:
        change, message = changes[kind]
        write_reference(folder, **change)
        return {}, message
    if kind == "pytorch-fid's reference":
        write_reference(folder, without=reference_arrays().keys() - {"mu", "sigma"})
        return {}, "features of inception"
    if kind == "no iterations":
        (folder / "settings.json").write_text(json.dumps({**SETTINGS, "training": {}}))
        return {}, "training.iterations"
    if kind == "no settings":
        return {"settings": folder / "absent.json"}, "absent.json"
    option, value = kind.split("=")
    return {option: value}, f"--{option.replace('_', '-')} must be"


@pytest.mark.parametrize(
    "kind",
    [
        "no samples",
        "truncated samples",
        "flipped samples",
        "no arr_0",
        "float samples",
        "channels first",
        "other count",
        "no reference",
        "other network",
        "other weights",
        "other input size",
        "other resolution",
        "other dimension",
        "reference not finite",
        "pytorch-fid's reference",
        "no iterations",
        "no settings",
        "batch_size=0",
        "threads=0",
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, quick, capsys, kind):
    options, message = spoil(folder, kind)
    assert stage(folder, **options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (folder / "fid.json").exists() and not (folder / "own.npz").exists()


def test_features_that_are_not_finite_leave_nothing(folder, monkeypatch, capsys):
    broken = FeatureNetwork("efficientnet-lite0", D, 128, "f" * 64, torch.device("cpu"), lambda x: x[:, :, 0, 0] / 0)
    monkeypatch.setattr("blurdiff.evaluation.features.load_network", lambda *_: broken)
    assert stage(folder) == 1
    assert "image 0 has features that are not finite" in capsys.readouterr().err
    assert not (folder / "fid.json").exists() and not (folder / "own.npz").exists()


def test_real_network_end_to_end(folder):
    """reference, then evaluate, with EfficientNet-Lite0 itself: the images of a floor subset are found again."""
    import hashlib

    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (24, R, R, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    manifest = {"n_used": 24, "resolution": R, "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "samples.npz", arr_0=images[::-1])
    options = [f"--images={folder}/images.npy", f"--manifest={folder}/manifest.json", "--n-samples=12", "--repeats=1"]
    assert main(["reference", *options, "--network=efficientnet-lite0", f"--output={folder}/reference.npz"]) == 0
    settings = json.dumps({**SETTINGS, "sampling": {"n_samples": 24}})
    assert stage(folder, settings=settings) == 0
    result = json.loads((folder / "fid.json").read_text())
    # The same images in another order: nothing beside the floor of two halves.
    assert abs(result["value"]) < 1e-3 * result["floor_mean"]
