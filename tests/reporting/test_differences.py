"""results/differences.csv and .md: paired differences and intervals by hand, what has no pair, and what is refused."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def make(make_table):
    """Run the stage; gives (status, rows of the CSV by run and metric, Markdown or the error).

    Rows of another sampler than the runs' own have its name in their key as well.
    """

    def make(paths, studies=()):
        status, found, text, error = make_table(paths, "differences", studies)
        rows = {}
        for row in found:
            other = [] if row["sampler"] == "reverse-diffusion" else [row["sampler"]]
            rows[row["run"], row["metric"], *other] = row
        return status, rows, text or error

    return make


@pytest.fixture
def write(settings, write_evaluation):
    """Write the evaluations of a run, a value for each seed; gives their paths."""

    def write(f_type, values, dataset="bedroom", first_seed=0, **changes):
        f_N = 0.0 if f_type == "none" else 0.5
        seeds = range(first_seed, first_seed + len(values))
        return [
            write_evaluation(settings(dataset, f_type, f_N, seed=seed), value, **changes)
            for seed, value in zip(seeds, values, strict=True)
        ]

    return write


# Student's t at 97.5 %: 12.7062 with one degree of freedom, 4.30265 with two.
@pytest.mark.parametrize(
    ("none", "quartic", "expected", "shown"),
    [
        # −3 and −1: mean −2, deviation √2, half the interval 12.7062 · √2/√2.
        ([10.0, 14.0], [7.0, 13.0], (2, -2, 2**0.5, -14.7062, 10.7062), "−2.00 [−14.71, +10.71]"),
        # 1, 2 and 6: mean 3, deviation √7, half the interval 4.30265 · √(7/3).
        ([20.0, 10.0, 5.0], [21.0, 12.0, 11.0], (3, 3, 7**0.5, -3.57246, 9.57246), "+3.00 [−3.57, +9.57]"),
    ],
)
def test_differences_and_intervals(make, write, none, quartic, expected, shown):
    # Seeds are matched by number, in whatever order; a seed that one of the two lacks is no pair.
    _, rows, text = make([*reversed(write("none", [*none, 99.0])), *write("quartic", quartic)])
    assert list(rows) == [("bedroom_quartic", name) for name in ("frechet", "kernel", "recall")]
    for metric, scale in (("frechet", 1), ("kernel", 100)):
        row = rows["bedroom_quartic", metric]
        found = [scale * float(row[key]) for key in ("difference", "std", "low", "high")]
        assert found == pytest.approx(expected[1:], abs=1e-4)
        assert (row["seeds"], row["against"], row["better"]) == (str(expected[0]), "bedroom_none", "lower")
    recall = rows["bedroom_quartic", "recall"]
    assert [recall[key] for key in ("seeds", "difference", "low", "high")] == ["0", "", "", ""]
    about = f"bedroom_quartic | bedroom_none | reverse diffusion, 20 steps | {expected[0]}"
    assert f"| bedroom (synthetic) | {about} | {shown} |" in text
    assert "95 %" in text and "no interval" not in text and "eft out" not in text and "nan" not in text


def test_one_seed_has_no_interval(make, write):
    _, rows, text = make(write("none", [4.0]) + write("log", [1.5]))
    row = rows["bedroom_log", "frechet"]
    assert [row[key] for key in ("seeds", "difference", "std", "low", "high")] == ["1", "-2.5", "", "", ""]
    assert "ne seed: no interval" in text and "95 %" not in text
    assert "| bedroom_log | bedroom_none | reverse diffusion, 20 steps | 1 | −2.50 | −0.0250 | – |" in text


def test_the_samplers_of_the_studies_are_compared_as_well(make, write, write_study):
    values = {("none", 0): (3, 30), ("none", 1): (3, 40), ("log", 0): (2, 35), ("log", 1): (1, 47)}
    drawn = [
        {"sampler": "ancestral", "grid": "uniform", "n_steps": 5},
        {"sampler": "ode-heun", "grid": "information", "n_steps": 7},
    ]
    studies = [
        write_study(
            f"bedroom_{f_type}", seed, [how | {"value": value} for how, value in zip(drawn, found, strict=True)]
        )
        for (f_type, seed), found in values.items()
    ]
    assert "seed 1, which has no evaluation here" in make(write("none", [4.0]), studies)[2]
    paths = write("none", [4.0, 6.0]) + write("log", [5.0, 9.0])
    _, rows, text = make(paths, studies)
    assert list(rows)[3:] == [("bedroom_log", "frechet", "ancestral"), ("bedroom_log", "frechet", "ode-heun")]
    # −1 and −2: mean −1.5, deviation √½, half the interval 12.7062 · √½/√2; 5 and 7 likewise with √2.
    for name, expected in (("ancestral", (-1.5, -7.8531, 4.8531)), ("ode-heun", (6, -6.7062, 18.7062))):
        row = rows["bedroom_log", "frechet", name]
        assert [float(row[key]) for key in ("difference", "low", "high")] == pytest.approx(expected, abs=1e-4)
        assert row["n_samples"] == "96"
    assert "| ODE, Heun, information grid, 7 steps | 2 | +6.00 [−6.71, +18.71] |" in text


def test_samplers_that_differ_in_one_option_stay_apart(make, write, write_study):
    """η, and what samplers.csv does not hold, as the start: rows of their own, in pairs with their like."""
    drawn = [("ddim", 0, 2), ("ddim", 1, 2), ("ancestral", 0, 2), ("ancestral", 0, 2), ("reverse-diffusion", 0, 0)]
    studies = []
    for f_type, values in (("none", (1, 2, 3, 4, 5)), ("log", (11, 22, 33, 44, 55))):
        rows = [
            {"sampler": sampler, "eta": eta, "noise_free_steps": quiet, "value": value, "grid": "uniform", "n_steps": 5}
            for (sampler, eta, quiet), value in zip(drawn, values, strict=True)
        ]
        studies.append(write_study(f"bedroom_{f_type}", 0, rows))
    text = make(write("none", [4.0]) + write("log", [5.0]), studies)[2]
    noisy = "reverse diffusion, noise in every step"
    for sampler, difference in (("DDIM", 10), ("DDIM η = 1", 20), ("ancestral", 30), ("ancestral", 40), (noisy, 50)):
        assert f"| {sampler}, 5 steps | 1 | +{difference}.00 |" in text


def test_own_samples_and_those_of_a_study_that_draws_alike_are_told_apart(make, write, write_study):
    row = {"sampler": "reverse-diffusion", "grid": "uniform", "noise_free_steps": 2, "n_steps": 20}
    studies = [write_study(f"bedroom_{f_type}", 0, [row | {"value": v}]) for f_type, v in (("none", 1), ("log", 9))]
    text = make(write("none", [4.0]) + write("log", [5.0]), studies)[2]
    assert "| reverse diffusion, 20 steps (own samples) | 1 | +1.00 |" in text
    assert "| reverse diffusion, 20 steps (96 samples of the study) | 1 | +8.00 |" in text


def test_a_number_that_one_of_a_pair_lacks_is_no_pair(make, write):
    lacking = {"others": {"kernel": {"value": None, "error": None, "floor_mean": None, "floor_std": None}}}
    first = write("none", [4.0]), write("log", [5.0])
    second = write("none", [4.0], first_seed=1), write("log", [7.0], first_seed=1, **lacking)
    _, rows, text = make([path for paths in (*first, *second) for path in paths])
    assert rows["bedroom_log", "frechet"]["seeds"] == "2"
    assert [rows["bedroom_log", "kernel"][key] for key in ("seeds", "difference", "low")] == ["1", "0.01", ""]
    assert "+0.0100 (1 of 2 seeds)" in text and "ne seed: no interval" in text


@pytest.mark.parametrize(
    ("key", "value", "paired"),
    [
        ("sampling.grid", "snr", False),
        ("process.prediction", "gaussian", False),
        ("process.basis", "dct", False),
        ("training.learning_rate", 1.0, False),
        ("process.direction", "reversed", True),
        ("process.floor", 0.03, True),
        ("sampling.n_strip", 3, True),
    ],
)
def test_only_the_blur_may_differ_within_a_pair(make, write, key, value, paired):
    (path,) = write("quartic", [3.0])
    content = json.loads(Path(path).read_text())
    content["run"]["made_with"][key] = value
    Path(path).write_text(json.dumps(content))
    status, rows, text = make([*write("none", [1.0]), path, *write("log", [2.0])])
    assert status == 0 and ("bedroom_log", "frechet") in rows
    assert (("bedroom_quartic", "frechet") in rows) is paired
    assert ("Left out" in text and "bedroom_quartic" in text.split("Left out")[1]) is not paired


@pytest.mark.parametrize("other", [("church", 0), ("bedroom", 1)], ids=["data set", "seed"])
def test_no_pair_at_all_is_said(make, write, other):
    dataset, seed = other
    status, rows, text = make(write("none", [1.0], dataset, seed) + write("quartic", [2.0]))
    assert status == 0 and not rows
    assert "no pair" in text and "bedroom_quartic" in text and "|" not in text


def test_another_family_has_a_partner_and_is_none(make, write):
    """The f_type of Blurring Diffusion is none, but it blurs."""
    (path,) = write("none", [3.0])
    content = json.loads(Path(path).read_text())
    content["run"] |= {"run": "heat", "family": "blurring-diffusion"}
    content["run"]["made_with"]["process.family"] = "blurring-diffusion"
    Path(f"{path}.heat").write_text(json.dumps(content))
    _, rows, _ = make([f"{path}.heat", path])
    assert list(rows)[0] == ("heat", "frechet") and rows["heat", "frechet"]["against"] == "bedroom_none"


def test_an_evaluation_that_does_not_say_its_settings_is_refused(make, write):
    paths = write("none", [1.0]) + write("quartic", [2.0], changes_of_run={"made_with": None})
    status, _, error = make(paths)
    assert status == 1 and "made_with" in error and paths[1] in error and "evaluate" in error
