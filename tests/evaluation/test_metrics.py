"""Kernel distance, precision, recall, density and coverage: published implementations, plain definitions, limits."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from blurdiff.evaluation import measures, pairs
from blurdiff.evaluation.measures import DENSITY_K, PRECISION_K, Comparison, Score
from blurdiff.evaluation.metrics import METRICS, label
from running import run_python

OTHERS = [name for name in METRICS if name != "frechet"]
COPIED = ["precision", "recall", "coverage"]


def features(n, seed, d=32, shift=0.0, scale=1.0, dtype=np.float32):
    return np.random.default_rng(seed).normal(shift, scale, (n, d)).astype(dtype)


def values(samples, real, names=OTHERS):
    return {name: score.value for name, score in Comparison(samples, None, real).scores(names).items()}


@pytest.fixture(params=[7, 64, 2048], ids=lambda tile: f"tiles of {tile}")
def tile(request, monkeypatch):
    """Tiles that cut the sets into many uneven parts, into some, and not at all."""
    monkeypatch.setattr(pairs, "TILE", request.param)


# Real features are far from zero beside their distances, so some sets are, and of another scale.
SETS = [
    ({}, {"shift": 0.1, "scale": 0.8}),
    ({"shift": 30.0}, {"shift": 30.1, "scale": 0.9}),
    ({"scale": 5.0}, {"scale": 4.0}),
]


@pytest.mark.parametrize(("real", "samples"), SETS)
@pytest.mark.parametrize(("n_real", "n_samples"), [(130, 130), (90, 150)])
def test_numbers_are_those_of_prdc(tile, real, samples, n_real, n_samples):
    x, y = features(n_real, 0, **real), features(n_samples, 1, **samples)
    near, wide = (compute_prdc(x.astype(np.float64), y.astype(np.float64), k) for k in (PRECISION_K, DENSITY_K))
    expected = {name: near[name] for name in ("precision", "recall")}
    expected |= {name: wide[name] for name in ("density", "coverage")}
    found = values(y, x, expected)
    assert found == pytest.approx(expected, abs=1e-6)
    assert 0.01 < found["recall"] < 0.99  # the case tells something


@pytest.mark.parametrize(("real", "samples"), SETS)
def test_numbers_are_those_of_torch_fidelity(tile, real, samples):
    x, y = features(130, 2, **real), features(130, 3, **samples)
    sets = [torch.from_numpy(z.astype(np.float64)) for z in (y, x)]
    kernel = kid_features_to_metric(*sets, kid_subsets=1, kid_subset_size=130, verbose=False)
    near = prc_features_to_metric(*sets, verbose=False)
    found = values(y, x)
    assert found["kernel"] == pytest.approx(kernel["kernel_inception_distance_mean"], rel=1e-6, abs=1e-9)
    assert [found[name] for name in ("precision", "recall")] == pytest.approx(
        [near[name] for name in ("precision", "recall")], abs=1e-6
    )


def test_kernel_distance_and_its_error_by_their_definitions(tile):
    x, y = features(9, 4, d=4, dtype=np.float64), features(12, 5, d=4, shift=0.5, dtype=np.float64)

    def distance(a, b):
        def k(u, v):
            return (float(u @ v) / 4 + 1) ** 3

        own = [np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]) for z in (a, b)]
        return sum(own) - 2 * np.mean([k(u, v) for u in a for v in b])

    without = [
        [distance(np.delete(x, i, 0), y) for i in range(len(x))],
        [distance(x, np.delete(y, j, 0)) for j in range(len(y))],
    ]
    error = np.sqrt(sum((len(each) - 1) * np.var(each) for each in without))
    score = Comparison(y, None, x).scores(["kernel"])["kernel"]
    assert score == (pytest.approx(distance(x, y), rel=1e-11), pytest.approx(error, rel=1e-9))


def test_kernel_distance_is_unbiased_and_its_error_is_the_deviation_over_draws():
    scores = [
        Comparison(features(40, 1000 + k, d=8, shift=0.5), None, features(40, 3000 + k, d=8)).scores(["kernel"])[
            "kernel"
        ]
        for k in range(300)
    ]
    drawn = np.array([score.value for score in scores])
    large = values(features(3000, 1, d=8, shift=0.5), features(3000, 2, d=8), ["kernel"])["kernel"]
    assert abs(drawn.mean() - large) < 4 * drawn.std() / np.sqrt(len(drawn)) + 0.05 * large
    assert np.sqrt(np.mean([score.error**2 for score in scores])) == pytest.approx(drawn.std(), rel=0.2)
    same = [values(features(20, k, d=3), features(20, 500 + k, d=3), ["kernel"])["kernel"] for k in range(400)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(len(same)) and np.min(same) < 0


def test_copies_and_strangers(tile):
    x = features(60, 6)
    assert values(x[::-1], x, COPIED) == dict.fromkeys(COPIED, 1)
    far = values(features(60, 7, shift=100), x)
    assert {name: far[name] for name in OTHERS[1:]} == dict.fromkeys(OTHERS[1:], 0)
    # One image over and over is precise, and covers no more than the images near it.
    one = values(np.repeat(x[:1], 60, 0), x)
    assert one["precision"] == 1 and one["recall"] < 0.1 and one["coverage"] < 0.5


@pytest.mark.parametrize("n", range(1, 7))
def test_too_few_images_give_no_number(n):
    scores = Comparison(features(n, 8), None, features(9, 9)).scores(OTHERS)
    there = {name for name, score in scores.items() if score.value is not None}
    assert there == {name for name, least in zip(OTHERS, (2, 4, 4, 6, 6), strict=True) if n >= least}
    assert (scores["kernel"].error is not None) == (n >= 3)
    assert set(Comparison(features(9, 8), None, None).scores(OTHERS).values()) == {Score(None)}


def test_memory_is_that_of_tiles():
    """Of 6,000 × 6,000 pairs a matrix in float64 has 288 MB; the walk takes less than 60 beside that of a start."""
    code = (
        "import resource, numpy as np, torch; from blurdiff.evaluation import pairs\n"
        "torch.set_num_threads(1); x = np.random.default_rng(0).normal(size=(6000, 8)).astype('f')\n"
        "pairs.TILE = 512; pairs.compare(x[:600], x[:600], (3, 5))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; pairs.compare(x, x + 1, (3, 5))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)"
    )
    done = run_python("-c", code)
    assert float(done.stdout) < 60


def test_every_metric_has_its_function_and_words():
    for name, metric in METRICS.items():
        assert callable(getattr(measures, metric.measure)) and metric.better in ("lower", "higher")
        assert not metric.meaning.endswith(".")
        assert all(label(name, network) for network in ("inception", "efficientnet-lite0"))


def test_the_table_is_read_without_what_measures():
    code = "import sys, blurdiff.evaluation.metrics; print(*sys.modules)"
    done = run_python("-c", code)
    assert done.returncode == 0 and not {"numpy", "torch", "pandas"} & set(done.stdout.split())
