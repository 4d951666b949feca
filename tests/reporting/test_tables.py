"""Table 1: its numbers against independent computation, its layout, and what it refuses."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blurdiff.reporting import inputs, tables


def cells(markdown: str) -> list[list[str]]:
    """The rows of a Markdown table, header first, without its rule."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


def matrix(settings):
    """The paper's runs with fine-to-coarse, in the order of a config."""
    return [
        settings("bedroom", "none", 0.0),
        settings("bedroom", "log", 0.6),
        settings("bedroom", "quartic"),
        settings("church", "none", 0.0),
        settings("church", "quartic", direction="fine-to-coarse"),
        settings("church", "quartic"),
    ]


def test_tidy_rows_in_the_order_given(settings, write_evaluation, make_table):
    runs = matrix(settings)
    _, rows, _, _ = make_table([write_evaluation(run, 10.0 + k) for k, run in enumerate(runs)])
    assert [row["run"] for row in rows] == [run["run"] for run in runs]
    assert [float(row["mean"]) for row in rows] == [10, 11, 12, 13, 14, 15]
    # The paper's FID-10K (its Table 1); fine-to-coarse has none there.
    assert [row["paper"] for row in rows] == ["9.24", "73.23", "7.86", "6.04", "", "5.89"]
    first = rows[0]
    assert (first["seeds"], first["std"], first["n_steps"], first["iterations"]) == ("1", "", "20", "3000")
    assert (first["floor"], first["floor_std"], first["n_reference"]) == ("3.25", "0.5", "50")
    assert first["synthetic"] == "True" and first["metric"] == "FD-EfficientNet-Lite0"
    expected = (
        "dataset label f_type f_N direction mode_order metric n_samples n_reference resolution iterations n_steps"
    )
    assert set(f"{expected} floor_n sampler seeds mean std paper floor floor_std synthetic".split()) <= set(first)


def test_mean_and_sample_deviation_over_seeds(settings, write_evaluation, make_table):
    values = [12.5, 14.0, 19.25]
    quartic = [write_evaluation(settings(seed=seed), value) for seed, value in enumerate(values)]
    none = [write_evaluation(settings(f_type="none", f_N=0.0, seed=seed), value) for seed, value in enumerate([1, 3])]
    _, rows, markdown, _ = make_table(quartic + none)
    mean = math.fsum(values) / 3
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / 2)
    assert float(rows[0]["mean"]) == pytest.approx(mean, rel=1e-9)
    assert float(rows[0]["std"]) == pytest.approx(std, rel=1e-9)
    assert [row["seeds"] for row in rows] == ["3", "2"]
    assert f"{mean:.2f} ± {std:.2f}" in markdown and "2.00 ± 1.41" in markdown
    assert "over 2 or 3 seeds" in markdown


def test_layout_as_in_the_paper(settings, write_evaluation, make_table):
    _, _, markdown, _ = make_table([write_evaluation(run, 10.0 + k) for k, run in enumerate(matrix(settings))])
    header, *rows = cells(markdown)
    assert header[:3] == ["f(N)", "f_type", "bedroom (synthetic): FD-EfficientNet-Lite0"]
    assert header[3] == "paper: FID-10K, LSUN bedroom (not comparable: other metric, data and scale)"
    assert header[4].startswith("church (synthetic)") and header[5].startswith("paper: FID-10K, LSUN church")
    assert rows == [
        ["0 (no blur)", "–", "10.00", "9.24", "13.00", "6.04"],
        ["0.6", "log", "11.00", "73.23", "–", "–"],
        ["0.1406", "quartic", "12.00", "7.86", "15.00", "5.89"],
        ["0.1406", "quartic, fine-to-coarse", "–", "–", "14.00", "–"],
        ["", "floor: data against data", "3.25 ± 0.50", "", "3.25 ± 0.50", ""],
    ]
    for words in (
        "not FID",
        "synthetic",
        "8×8",
        "3,000 iterations",
        "40 samples of 20 reverse diffusion steps",
        "One seed",
    ):
        assert words in markdown


def test_the_papers_own_experiment_is_comparable(settings, write_evaluation, make_table):
    scale = {"synthetic": False, "label": "LSUN bedroom", "resolution": 64, "iterations": 450_000, "n_steps": 1000}
    path = write_evaluation(
        settings(), 7.9, metric="FID", n_samples=10_000, n_reference=3_033_042, changes_of_run=scale
    )
    _, _, markdown, _ = make_table([path])
    assert cells(markdown)[0][2:] == ["LSUN bedroom: FID", "paper: FID-10K, LSUN bedroom"]
    assert "not FID" not in markdown and "synthetic" not in markdown
    path = write_evaluation(
        settings(), 7.9, metric="FID", n_samples=10_000, changes_of_run={**scale, "iterations": 5000}
    )
    assert "(not comparable: other scale)" in make_table([path])[2]


def test_another_family_is_not_called_no_blur_and_equal_labels_have_the_names_of_their_sets(
    settings, write_evaluation, make_table
):
    runs = [settings("rooms", f_type="none", f_N=0.0), settings("rooms", family="shaped-noise", f_type="none", f_N=0.0)]
    runs = [run | {"label": "mine", "run": f"r{k}"} for k, run in enumerate([*runs, settings("halls")])]
    _, rows, markdown, _ = make_table([write_evaluation(run, 5.0 + k) for k, run in enumerate(runs)])
    header, *lines = cells(markdown)
    assert [head.partition(":")[0] for head in header[2:]] == ["mine (synthetic) (rooms)", "mine (synthetic) (halls)"]
    assert ["–", "shaped noise", "6.00", "–"] in lines and ["0 (no blur)", "–", "5.00", "–"] in lines
    assert [row["family"] for row in rows] == ["blur", "shaped-noise", "blur"]


def test_a_data_set_that_the_paper_lacks_has_no_paper_column(settings, write_evaluation, make_table):
    run = settings("kitchen") | {"label": "kitchen", "synthetic": False}
    _, rows, markdown, _ = make_table(
        [write_evaluation(run, 5.0, floor_mean=None, floor_std=None, floor_n=None, n_reference=None)]
    )
    assert [rows[0][key] for key in ("paper", "floor", "floor_n", "n_reference")] == [""] * 4
    assert cells(markdown) == [["f(N)", "f_type", "kitchen: FD-EfficientNet-Lite0"], ["0.1406", "quartic", "5.00"]]


@pytest.mark.parametrize(
    "process, paper",
    [
        ({"f_N": 0.14}, "7.86"),  # as the paper prints it
        ({"f_N": 0.15}, ""),
        ({"direction": "reversed"}, ""),
        ({"basis": "dct"}, ""),
        ({"mode_order": "released"}, "7.86"),
        ({"f_type": "log", "f_N": 0.140625}, ""),
        ({"f_type": "none", "f_N": 0.3, "direction": "fine-to-coarse"}, "9.24"),  # without blur neither matters
    ],
)
def test_which_runs_the_papers_values_belong_to(settings, write_evaluation, make_table, process, paper):
    assert make_table([write_evaluation(settings(**process), 5.0)])[1][0]["paper"] == paper


def test_runs_that_differ_in_something_else_keep_rows_of_their_own(settings, write_evaluation, make_table):
    other = settings() | {"run": "bedroom_quartic_sigma-0.8"}
    _, rows, markdown, _ = make_table([write_evaluation(settings(), 5.0), write_evaluation(other, 6.0)])
    assert len(rows) == 2
    assert [row[1:3] for row in cells(markdown)[1:3]] == [
        ["quartic, run bedroom_quartic", "5.00"],
        ["quartic, run bedroom_quartic_sigma-0.8", "6.00"],
    ]


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"metric": "FID"}, "metric"),
        ({"weights_sha256": "1" * 64}, "weights_sha256"),
        ({"n_samples": 41}, "n_samples"),
        ({"n_reference": 51}, "n_reference"),
        ({"floor_mean": 3.5}, "floor_mean"),
    ],
)
def test_mixtures_are_refused(settings, write_evaluation, make_table, changes, word):
    first = write_evaluation(settings(f_type="log", f_N=0.6), 5.0)
    status, _, _, error = make_table([first, write_evaluation(settings(), 5.0, **changes)])
    assert status == 1 and error.count("\n") == 1
    assert word in error and "bedroom_quartic_0_fid.json" in error and "bedroom_log_0_fid.json" in error


def test_other_data_sets_may_have_other_sample_counts(settings, write_evaluation, make_table):
    church = write_evaluation(settings("church"), 5.0, n_samples=41, n_reference=77, floor_mean=9.0)
    status, rows, _, _ = make_table([write_evaluation(settings(), 5.0), church])
    assert status == 0 and [row["n_reference"] for row in rows] == ["50", "77"]


@pytest.mark.parametrize(
    "key, value",
    [
        *(("value", value) for value in (math.nan, None, "12", True)),
        ("run.f_N", math.inf),
        *((key, ...) for key in ("value", "metric", "run", "run.dataset", "run.seed")),
    ],
)
def test_a_value_that_is_no_number_and_a_missing_key_are_refused(settings, write_evaluation, make_table, key, value):
    path = write_evaluation(settings(), 5.0)
    evaluation = json.loads(Path(path).read_text())
    part, _, name = key.rpartition(".")
    owner = evaluation[part] if part else evaluation
    owner[name] = value
    if value is ...:
        del owner[name]
    Path(path).write_text(json.dumps(evaluation))
    status, _, _, error = make_table([path])
    assert status == 1 and error.count("\n") == 1 and path in error
    assert (name if value is ... else f"{name} is") in error


def test_broken_files_are_refused(settings, write_evaluation, make_table, tmp_path):
    broken = tmp_path / "broken.json"
    for text in ("", "[1, 2]", '{"metric": "FI'):
        broken.write_text(text)
        status, _, _, error = make_table([write_evaluation(settings(), 5.0), str(broken)])
        assert status == 1 and str(broken) in error and error.count("\n") == 1
    assert make_table([str(tmp_path / "absent.json")])[0] == 1


def test_a_seed_given_twice_or_made_otherwise_is_refused(settings, write_evaluation, make_table):
    path = write_evaluation(settings(), 5.0)
    assert "seed twice" in make_table([path, path])[3]
    other = write_evaluation(settings(seed=1), 5.0, changes_of_run={"iterations": 6000})
    assert "iterations" in make_table([path, other])[3]


def test_the_papers_value_stands_beside_its_own_process_and_prediction_only():
    run = {"dataset": "bedroom", "f_type": "none", "f_N": 0.0, "direction": "coarse-to-fine", "basis": "gaussian-blur"}
    run |= {"family": "blur", "prediction": "epsilon", "loss": "epsilon"}
    assert tables.paper_value(run) == 9.24
    assert tables.paper_value(run | {"family": "blurring-diffusion"}) is None
    assert tables.paper_value(run | {"prediction": "x0"}) is None
    assert tables.paper_value(run | {"loss": "balanced"}) is None


def test_a_label_is_text_in_markdown_and_csv(settings, write_evaluation, make_table):
    odd = "a | b <i> _c_ $x$ *d*\n&amp; \\ `e`"
    run = settings("kitchen") | {"label": odd}
    _, rows, markdown, _ = make_table([write_evaluation(run, 5.0)])
    assert rows[0]["label"] == odd
    escaped = r"a \| b \<i\> \_c\_ \$x\$ \*d\* \&amp; \\ \`e\` (synthetic)"
    header = next(line for line in markdown.splitlines() if line.startswith("|"))
    assert header == f"| f(N) | f_type | {escaped}: FD-EfficientNet-Lite0 |"
    assert markdown.count(escaped) == 2  # in the caption too


def test_a_run_may_be_called_as_pandas_calls_nothing(tmp_path):
    pd.DataFrame({"run": ["None", "NA", "null"], "value": [1.0, np.nan, 3.0]}).to_csv(tmp_path / "a.csv", index=False)
    table = inputs.read_csv(tmp_path / "a.csv", "run again")
    assert table["run"].tolist() == ["None", "NA", "null"]
    assert table["value"].isna().tolist() == [False, True, False]
    (tmp_path / "b.csv").write_text("iteration,loss\n1,nan\n2,0.5\n")
    assert inputs.read_csv(tmp_path / "b.csv", "run again")["loss"].dtype == float
