"""The stage: what it writes, and what it refuses before anything is written."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from blurdiff.audit import figures, gaussian, stage
from blurdiff.cli import main
from blurdiff.reporting import style

ALL = [name for names in stage.GROUPS.values() for name in names]


def audit(folder, names, *options):
    return main(["audit", "--output", *(str(folder / name) for name in names), *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "deep"
    assert audit(folder, ALL, "--resolution", "16", "--n-timesteps", "100") == 0
    return folder


def test_files(made):
    assert sorted(path.name for path in made.iterdir()) == sorted(ALL)
    for name in ("operator", "gaussian"):
        assert (made / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        image = np.asarray(Image.open(made / f"{name}.png").convert("L"))
        assert image.shape[1] > 1200
        assert image.std() > 10
    assert (made / "differences.md").read_text(encoding="utf-8").startswith("# Paper and released code")
    rows = pd.read_csv(made / "differences.csv")
    assert list(rows) == ["item", "paper", "released", "default", "switch", "quantity", "value", "unit"]
    measurements = pd.read_csv(made / "measurements.csv")
    assert set(measurements["item"]) == set(rows.loc[rows["value"].notna(), "item"])


def test_figure_shows_the_table(made):
    curves = pd.read_csv(made / "gaussian.csv")
    with style.style():
        figure = figures.gaussian_figure(curves)
    panels = figure.axes if figure.axes else [a for part in figure.subfigs for a in part.axes]
    assert len(panels) == 5 * 7
    lines = {tuple(np.round(line.get_ydata(), 12)) for axes in panels for line in axes.lines[1:]}
    keys = ["f_type", "f_N", "direction", "mode_order", "sampler", "grid"]
    shown = {tuple(np.round(rows["ratio"], 12)) for _, rows in curves.groupby(keys)}
    assert lines == shown
    for axes in panels:
        low, high = axes.get_ylim()
        assert any(low <= tick <= high for tick in axes.get_yticks())


def test_experiment_is_complete(made):
    curves, summary = pd.read_csv(made / "gaussian.csv"), pd.read_csv(made / "gaussian_summary.csv")
    assert len(summary) == len(gaussian.PROCESSES) * 5 * len(gaussian.SAMPLERS)
    keys = ["f_type", "f_N", "direction", "mode_order", "sampler", "grid"]
    assert not summary.duplicated(keys).any()
    numbers = summary.select_dtypes("number")
    assert np.isfinite(numbers).all(axis=None)
    assert (numbers >= 0).all(axis=None)
    assert (curves.groupby(keys)["n_modes"].sum() == 16 * 16).all()
    assert (curves["ratio"] >= curves["ratio_min"] * (1 - 1e-9)).all()
    assert (curves["ratio"] <= curves["ratio_max"] * (1 + 1e-9)).all()
    heun = summary[(summary["sampler"] == "ode-heun") & (summary["grid"] == "uniform")]
    assert (heun["evaluations"] == 99).all()


def test_one_group_alone_gives_equal_bytes(made, tmp_path):
    assert audit(tmp_path, stage.GROUPS["operator"], "--resolution", "16", "--n-timesteps", "100") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["operator.pdf", "operator.png"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (made / path.name).read_bytes()


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["differences.txt"], [], ["differences.txt", "makes no such file", "gaussian.csv"]),
        (["operator.png"], [], ["operator.pdf is made together with operator.png"]),
        (["operator.png", "operator.pdf", "x/operator.png"], [], ["x/operator.png", "twice"]),
        (ALL, ["--resolution", "8"], ["--resolution 8: must be 16 or more"]),
        (ALL, ["--n-timesteps", "20"], ["--n-timesteps 20: must be 100 or more"]),
    ],
)
def test_refusals(tmp_path, capsys, names, options, words):
    assert audit(tmp_path, names, *options) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not list(tmp_path.iterdir())
