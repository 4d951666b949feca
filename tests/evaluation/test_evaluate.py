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
from linear_features import linear_features
from pictures import write_images

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
    pixels = torch.from_numpy(samples.transpose(0, 3, 1, 2).astype(np.float32))
    x = linear_features(R, D).forward(pixels).numpy().astype(np.float64)
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
    made_with = result["run"].pop("made_with")
    assert (made_with["seed"], made_with["training.iterations"]) == (SETTINGS["seed"], 700)
    assert result["run"] == {
        **{key: SETTINGS[key] for key in ("run", "dataset", "label", "synthetic", "seed", "resolution")},
        **{"family": "blur", "prediction": "epsilon", "loss": "epsilon"},
        **{"f_type": "log", "f_N": 0.6, "direction": "coarse-to-fine", "mode_order": "paper", "basis": "gaussian-blur"},
        **{"iterations": 700, "n_steps": 50, "sampler": "reverse-diffusion"},
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
    monkeypatch.setattr("blurdiff.evaluation.features.load_network", lambda name, *_: linear_features(R, 40, name, 299))
    np.savez_compressed(folder / "reference.npz", mu=np.zeros(40), sigma=np.eye(40))
    assert stage(folder, network="inception") == 0
    result = json.loads((folder / "fid.json").read_text())
    assert (result["metric"], result["n_reference"], result["floor_mean"]) == ("FID", None, None)
    assert {score["value"] for score in result["others"].values()} == {None} and np.isfinite(result["value"])


def test_settings_may_be_json_itself_and_options_stand_above_them(folder, quick):
    text = json.dumps(SETTINGS | {"evaluation": {**SETTINGS["evaluation"], "device": "cuda"}})
    assert stage(folder, settings=text, device="cpu", batch_size=1) == 0


def without_iterations(folder):
    (folder / "settings.json").write_text(json.dumps({**SETTINGS, "training": {}}))


# What becomes of the folder, of the samples, and of the arrays of the reference, each with a part of the message.
# (Damaged files are those of tests/bad_input.)
FOLDER = {
    "no samples": (lambda folder: (folder / "samples.npz").unlink(), "cannot read"),
    "no reference": (lambda folder: (folder / "reference.npz").unlink(), "reference.npz"),
    "no settings": (lambda folder: (folder / "settings.json").unlink(), "settings.json"),
    "no iterations": (without_iterations, "training.iterations"),
}
SAMPLES = {
    "no arr_0": (lambda images: {"images": images}, "arr_0 is missing"),
    "float samples": (lambda images: {"arr_0": images / 255}, "samples.npz holds float64"),
    "channels first": (lambda images: {"arr_0": images.transpose(0, 3, 1, 2)}, "samples.npz holds uint8 (30, 3, 4, 4)"),
    "other count": (lambda images: {"arr_0": images[:-1]}, "holds 29 samples, the settings say sampling.n_samples: 30"),
}
REFERENCE = {
    "other network": ({"network": "inception"}, "features of inception, not of efficientnet-lite0"),
    "other weights": ({"weights_sha256": "a" * 64}, "weights_sha256 of efficientnet-lite0 is aaa"),
    "other input size": ({"input_size": 96}, "input_size of efficientnet-lite0 is 96, but 128 here"),
    "other resolution": ({"resolution": 64}, "images of 64 pixels, not 4"),
    "other dimension": ({"mu": np.zeros(3), "sigma": np.eye(3)}, "dimension of efficientnet-lite0 is 3, but 5"),
    "reference not finite": ({"mu": np.full(D, np.inf)}, "not finite"),
    "pytorch-fid's reference": ({"without": reference_arrays().keys() - {"mu", "sigma"}}, "features of inception"),
}


@pytest.mark.parametrize("kind", [*FOLDER, *SAMPLES, *REFERENCE, "batch_size", "threads"])
def test_bad_input_is_one_line_and_leaves_nothing(folder, quick, check_refused, kind):
    options = {}
    if kind in FOLDER:
        spoil, message = FOLDER[kind]
        spoil(folder)
    elif kind in SAMPLES:
        change, message = SAMPLES[kind]
        np.savez(folder / "samples.npz", **change(np.load(folder / "samples.npz")["arr_0"]))
    elif kind in REFERENCE:
        changes, message = REFERENCE[kind]
        write_reference(folder, **changes)
    else:
        options, message = {kind: 0}, f"--{kind.replace('_', '-')} must be"
    check_refused(stage(folder, **options), message, "fid.json", "own.npz")


def test_features_that_are_not_finite_leave_nothing(folder, monkeypatch, capsys):
    broken = FeatureNetwork("efficientnet-lite0", D, 128, "f" * 64, torch.device("cpu"), lambda x: x[:, :, 0, 0] / 0)
    monkeypatch.setattr("blurdiff.evaluation.features.load_network", lambda *_: broken)
    assert stage(folder) == 1
    assert "image 0 has features that are not finite" in capsys.readouterr().err
    assert not (folder / "fid.json").exists() and not (folder / "own.npz").exists()


def test_real_network_end_to_end(folder):
    """reference, then evaluate, with EfficientNet-Lite0 itself: the images of a floor subset are found again."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (24, R, R, 3), dtype=np.uint8)
    write_images(folder, images)
    np.savez(folder / "samples.npz", arr_0=images[::-1])
    options = [f"--images={folder}/images.npy", f"--manifest={folder}/manifest.json", "--n-samples=12", "--repeats=1"]
    assert main(["reference", *options, "--network=efficientnet-lite0", f"--output={folder}/reference.npz"]) == 0
    settings = json.dumps({**SETTINGS, "sampling": {"n_samples": 24}})
    assert stage(folder, settings=settings) == 0
    result = json.loads((folder / "fid.json").read_text())
    # The same images in another order: nothing beside the floor of two halves.
    assert abs(result["value"]) < 1e-3 * result["floor_mean"]
