import hashlib
import os

import numpy as np
import pytest
import torch

from blurdiff.cli import main
from blurdiff.evaluation import reference
from blurdiff.evaluation.frechet import frechet_distance
from blurdiff.evaluation.measures import Comparison
from blurdiff.evaluation.metrics import METRICS
from blurdiff.evaluation.records import read_reference
from linear_features import linear_features
from pictures import write_images

R = 4


def make_data(folder, n, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, R, R, 3), dtype=np.uint8)
    write_images(folder, images)
    return images


def stage(folder, **options):
    options = {
        "images": folder / "images.npy",
        "manifest": folder / "manifest.json",
        "network": "efficientnet-lite0",
        "n_samples": 20,
        "batch_size": 7,
        "output": folder / "statistics.npz",
    } | options
    return main(["reference", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())])


def features_of(images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return linear_features(R).forward(pixels).numpy().astype(np.float64)


def test_statistics_and_floor(tmp_path, quick, capsys):
    images = make_data(tmp_path, 100)
    assert stage(tmp_path, repeats=4) == 0
    found = read_reference(tmp_path / "statistics.npz")
    x = features_of(images)
    np.testing.assert_allclose(found.mu, x.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.sigma, np.cov(x, rowvar=False), rtol=1e-5, atol=1e-6)
    assert found.n == 100 and found.floor_n == 20
    assert found.floors.keys() == METRICS.keys() and {floor.shape for floor in found.floors.values()} == {(4,)}
    assert found.network == "efficientnet-lite0" and found.metric == "FD-EfficientNet-Lite0"
    assert found.weights_sha256 == "f" * 64 and found.input_size == 128 and found.resolution == R
    assert found.images_sha256 == hashlib.sha256(images.tobytes()).hexdigest()

    # The subsets, recognised by their features, then the floor from the images themselves.
    subsets = reference.draw_subsets(100, 20, 4, seed=0)
    np.testing.assert_allclose(found.features, x[subsets[-1]], rtol=1e-4, atol=1e-5)
    for k, subset in enumerate(subsets[:-1]):
        part, rest = x[subset], np.delete(x, subset, axis=0)
        expected = frechet_distance(part.mean(0), np.cov(part.T), rest.mean(0), np.cov(rest.T))
        assert found.floors["frechet"][k] == pytest.approx(expected, rel=1e-4)
        others = Comparison(part, None, x[subsets[-1]]).scores(METRICS.keys() - {"frechet"})
        for name, score in others.items():
            assert found.floors[name][k] == pytest.approx(score.value, rel=1e-3, abs=1e-4)
    floor = found.floors["frechet"]
    assert f"100 images; FD-EfficientNet-Lite0 floor of 20 images: {floor[0]:.4g}" in capsys.readouterr().out


def test_same_seed_same_file_whatever_the_batch(tmp_path, quick):
    make_data(tmp_path, 60)
    values = []
    for name, seed, batch_size in (("a", 1, 7), ("b", 1, 64), ("c", 2, 7)):
        assert stage(tmp_path, seed=seed, batch_size=batch_size, output=tmp_path / f"{name}.npz") == 0
        values.append(read_reference(tmp_path / f"{name}.npz").floors["frechet"])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)
    assert not np.allclose(values[0], values[2], rtol=1e-2)


@pytest.mark.parametrize(("n", "there"), [(40, True), (39, False), (15, False)])
def test_floor_needs_twice_the_samples(tmp_path, quick, capsys, n, there):
    make_data(tmp_path, n)
    assert stage(tmp_path) == 0
    found = read_reference(tmp_path / "statistics.npz")
    assert found.floors.keys() == (METRICS.keys() if there else set())
    assert all(floor.shape == (3,) and np.isfinite(floor).all() for floor in found.floors.values())
    assert len(found.features) == min(n, 20)
    assert (f"none, {n} images are fewer than 2 x 20" in capsys.readouterr().out) == (not there)


def test_subsets_are_disjoint_where_possible():
    disjoint = reference.draw_subsets(60, 20, 2, seed=5)
    assert sorted(disjoint.ravel()) == list(range(60))
    overlapping = reference.draw_subsets(59, 20, 3, seed=5)
    assert overlapping.shape == (4, 20) and all(len(set(row)) == 20 for row in overlapping)
    assert (np.diff(overlapping, axis=1) > 0).all() and overlapping.max() < 59
    # Samples of the floor are never among the images that they are compared with.
    assert not set(overlapping[:-1].ravel()) & set(overlapping[-1])


def touch_a_pixel(folder):
    images = np.load(folder / "images.npy")
    images[30, 1, 2, 0] ^= 1
    np.save(folder / "images.npy", images)


# What becomes of the data, with a part of the message; and options that cannot be.
BROKEN = {
    "no images": (lambda folder: (folder / "images.npy").unlink(), "images.npy"),
    "truncated images": (lambda folder: os.truncate(folder / "images.npy", 1000), "truncated"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    "other images": (touch_a_pixel, "sha256"),
    "list as manifest": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json"),
    "one image": (lambda folder: make_data(folder, 1), "at least 2"),
}
OPTIONS = [("n_samples", 1), ("repeats", 0), ("seed", -1), ("batch_size", 0), ("threads", 0)]


@pytest.mark.parametrize(
    ("spoil", "message", "options"),
    [(*broken, {}) for broken in BROKEN.values()]
    + [(lambda folder: None, f"--{name.replace('_', '-')} must be", {name: value}) for name, value in OPTIONS],
    ids=[*BROKEN, *(f"{name}={value}" for name, value in OPTIONS)],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, quick, check_refused, spoil, message, options):
    make_data(tmp_path, 60)
    spoil(tmp_path)
    check_refused(stage(tmp_path, **options), message, "statistics.npz")


def test_cuda_without_a_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make_data(tmp_path, 60)
    assert stage(tmp_path, device="cuda") == 1
    assert "no GPU" in capsys.readouterr().err
