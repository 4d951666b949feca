"""results/tilt.csv and its figure: paired differences by hand, best against best, and the order of the octaves."""

import numpy as np
import pytest

from blurdiff.config.runs import complete_settings
from blurdiff.errors import UserError
from blurdiff.reporting import tables, tilt

NO_BLUR = {"f_type": "none", "f_N": 0.0}


@pytest.fixture
def write(settings, write_evaluation):
    """The evaluations of runs: {(p, δ): a value for each seed}."""

    def write(values, prediction="epsilon", **changes):
        found = []
        for (p, shift), own in values.items():
            for seed, value in enumerate(own):
                run = settings(**NO_BLUR, seed=seed, snr_tilt=p, snr_shift=shift, prediction=prediction)
                run["run"] = f"{prediction}_{p}_{shift}"
                found.append(tables.read_evaluation(write_evaluation(run, value, **changes)))
        return found

    return write


@pytest.fixture
def draw(settings, runs_with_files):
    """The figure and caption of evaluations, whose runs have files."""

    def draw(evaluations):
        runs = []
        for one in evaluations:
            process = {key: one["made_with"][f"process.{key}"] for key in ("prediction", "snr_tilt", "snr_shift")}
            runs.append(settings(one["dataset"], **NO_BLUR, seed=one["seed"], **process) | {"run": one["run"]})
        files = runs_with_files(runs)
        samples, images = [np.load(path)["arr_0"] for path in files["samples"]], map(np.load, files["images"])
        return tilt.draw(tilt.summarise(evaluations), list(map(complete_settings, runs)), samples, list(images))

    return draw


def test_differences_are_to_no_tilt_with_the_same_shift_and_seed(write):
    evaluations = write(
        {(0.0, 0.0): [10.0, 14.0], (-1.0, 0.0): [7.0, 13.0], (0.0, 2.0): [5.0, 6.0], (1.0, 2.0): [4, 7]}
    )
    evaluations += write({(-1.0, 0.0): [1.0, 2.0]}, prediction="v")
    table = tilt.summarise(evaluations)
    rows = {(row["prediction"], row["snr_tilt"], row["snr_shift"]): row
            for row in table[table["metric"] == "frechet"].to_dict("records")}  # fmt: skip
    # −3 and −1: mean −2, deviation √2, half the interval 12.7062 · √2/√2.
    row = rows["epsilon", -1.0, 0.0]
    assert (row["mean"], row["std"], row["pairs"], row["against"]) == (10, pytest.approx(18**0.5), 2, "epsilon_0.0_0.0")
    assert [row[key] for key in ("difference", "low", "high")] == pytest.approx([-2, -14.7062, 10.7062], abs=1e-4)
    assert rows["epsilon", 1.0, 2.0]["difference"] == 0  # −1 and +1
    assert rows["v", -1.0, 0.0]["pairs"] == 0  # nothing to compare it with
    assert np.isnan(rows["epsilon", 0.0, 0.0]["difference"])

    [best] = tilt.best_against_best(table)
    assert (best["zero"]["snr_shift"], best["best"]["snr_tilt"], best["best"]["snr_shift"]) == (2.0, 1.0, 2.0)
    assert best["difference"] == 0
    text = tilt.render(table)
    assert "| bedroom (synthetic) | epsilon | 0 | −1 | 10.0 ± 4.2 (−2.00 [−14.71, +10.71]) |" in text
    assert "best of p = 0 at δ = 2 (5.5); best of the others p = 1, δ = 2 (5.5)" in text


def test_runs_that_differ_in_more_than_p_are_no_pair(write, settings, write_evaluation):
    """Another network, noise schedule or sampler is another comparison, with best and differences of its own."""
    evaluations = write({(0.0, 0.0): [10.0, 14.0], (-1.0, 0.0): [7.0, 13.0]})
    for seed, value in enumerate((50.0, 60.0)):
        run = settings(**NO_BLUR, seed=seed, snr_tilt=1.0, noise_schedule="cosine") | {"run": "other"}
        evaluations.append(tables.read_evaluation(write_evaluation(run, value)))
    table = tilt.summarise(evaluations)
    pairs = table[table["metric"] == "frechet"].set_index("run")["pairs"].to_dict()
    assert pairs == {"epsilon_0.0_0.0": 0, "epsilon_-1.0_0.0": 2, "other": 0}
    [best] = tilt.best_against_best(table)
    assert best["best"]["run"] == "epsilon_-1.0_0.0"


def test_without_a_tilt_there_is_nothing_to_show(settings, write_evaluation):
    with pytest.raises(UserError, match="snr_tilt"):
        tilt.summarise([tables.read_evaluation(write_evaluation(settings(), 1.0))])


@pytest.mark.parametrize("basis", ["gaussian-blur", "dct", "haar"])
@pytest.mark.parametrize(("p", "order"), [(-1.0, -1), (0.0, -1), (1.0, 0), (2.0, 1)])
def test_the_order_in_which_octaves_are_lost(settings, p, order, basis):
    """Detail first without a tilt; all at once with equal SNR; coarse waves first beyond. No wavelet of Haar's is as
    short as the finest octave's waves."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(200, 16, 16, 3)).cumsum(1).cumsum(2)
    images = np.clip(128 + 6 * (images - images.mean((1, 2), keepdims=True)), 0, 255).astype(np.uint8)
    run = settings(**NO_BLUR, snr_tilt=p, n_timesteps=1000, basis=basis)
    run["resolution"] = 16
    lost = tilt.lost_at(complete_settings(run), images)
    assert len(lost) == len(tilt.octaves(16)) == 4
    assert np.isnan(lost).tolist() == [False, False, False, basis == "haar"]
    lost = lost[np.isfinite(lost)]
    if order:
        assert (order * np.diff(lost) >= 0).all()
        assert lost[0] != lost[-1]
    else:
        assert np.ptp(lost) <= 1


def test_data_sets_may_have_shifts_of_their_own(settings, write_evaluation, draw):
    runs = [
        settings(dataset, **NO_BLUR, snr_tilt=p, snr_shift=shift) | {"run": f"{dataset}{p}"}
        for dataset, shift in (("a", 0.0), ("b", 3.0))
        for p in (0.0, 1.0)
    ]
    figure, caption = draw([tables.read_evaluation(write_evaluation(run, 5.0)) for run in runs])
    assert "δ = 0 or 3" in caption
    assert all(axes.get_lines() for axes in figure.axes)


def test_the_figure_has_a_panel_for_each_prediction(write, draw):
    values = {(0.0, 0.0): [10.0, 14.0], (-1.0, 0.0): [7.0, 13.0], (0.0, 2.0): [5.0, 6.0]}
    none = {"error": None, "floor_mean": None, "floor_std": None}
    others = {"precision": {"value": 0.5, **none}, "recall": {"value": None, **none}}
    figure, caption = draw(write(values, others=others) + write(values, prediction="v", others=others))
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels)[:2] == ["bedroom (synthetic)\nepsilon", "bedroom (synthetic)\nv"]
    line = panels["bedroom (synthetic)\nepsilon"].get_lines()[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([-1, 0], [10, 12])
    assert "mean over 2 seeds" in caption
    # Of both predictions, at the shift that most have; recall was not measured.
    lines = [list(bars.lines[0].get_xdata()) for bars in panels["precision →"].containers]
    assert lines == [[-1, 0], [-1, 0]]
    assert "recall →" not in panels
    # Three octaves of 8 pixels, each with a line: the first wave is the last to go.
    ends = [line.get_ydata()[1] for line in panels["order in which octaves are lost"].get_lines()]
    assert len(ends) == 3
    assert ends == sorted(ends, reverse=True)
