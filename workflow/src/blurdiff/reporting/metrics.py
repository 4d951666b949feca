"""All metrics of all runs: a tidy CSV with a row for each run and metric, and Markdown with a row for each run."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.evaluation.metrics import FRECHET, METRICS, label
from blurdiff.reporting import labels, tables
from blurdiff.reporting.summaries import Made

ABOUT_RUN = ["dataset", "label", "synthetic", "run", "f_type", "f_N", "direction", "mode_order", "basis", "network",
             "n_samples", "n_reference", "resolution", "iterations", "n_steps", "sampler"]  # fmt: skip
COLUMNS = [*ABOUT_RUN, "metric", "name", "better", "seeds", "mean", "std", "error", "floor", "floor_std"]
ABOUT_SCORE = ["value", "error", "floor_mean", "floor_std"]


def make(runs: Sequence[Settings], evaluations: Sequence[Mapping]) -> Made:
    """The table; raises UserError as `summarise` does."""
    table = summarise(evaluations)
    return Made(table, render(table))


def scores(evaluation: Mapping) -> dict[str, dict]:
    """The numbers of an evaluation by metric, in the order of METRICS; UserError when one is missing or none."""
    own = {FRECHET: {key: evaluation.get(key) for key in ABOUT_SCORE}, **evaluation["others"]}
    for name, score in own.items():
        for key, value in score.items():
            known = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
            if value is not None and not known:
                raise UserError(
                    f"{evaluation['path']}: {key} of {name} is {value!r}, no number; evaluate the run again"
                )
    return {name: own[name] for name in METRICS if name in own}


def rows_of(group: Sequence[Mapping]) -> list[dict]:
    """A row for each metric of a run, given the evaluations of its seeds: what these say of the run, mean and deviation
    of its numbers, their standard error and floor; `values` has the number of each seed that has one."""
    first, rows = group[0], []
    found = {one["seed"]: scores(one) for one in group}
    for name in found[first["seed"]]:
        own = pd.DataFrame([one.get(name, {}) for one in found.values()], found, ABOUT_SCORE, dtype=float)
        values = own["value"].dropna()
        rows.append(
            {**first, "metric": name, "name": label(name, first["network"]), "better": METRICS[name].better}
            | {"seeds": len(values), "mean": values.mean(), "std": values.std(), "values": values}
            | {"error": (own["error"] ** 2).mean() ** 0.5}
            | {"floor": own["floor_mean"].iloc[0], "floor_std": own["floor_std"].iloc[0]}
        )
    return rows


def summarise(evaluations: Sequence[Mapping]) -> pd.DataFrame:
    """A row for each run and metric, seeds averaged; `error` is the standard error of one seed's number.

    Raises UserError for evaluations that cannot stand in one table, as Table 1 does.
    """
    rows = [row for group in tables.group_runs(evaluations).values() for row in rows_of(group)]
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(["n_reference", "n_steps"], "Int64"))


def heads(table: pd.DataFrame) -> dict[str, str]:
    """How the metrics of a table are called above its columns, and which way is better."""
    shown = table.drop_duplicates("metric")
    arrows = shown["better"].map({"lower": "↓", "higher": "↑"})
    return dict(zip(shown["metric"], shown["name"] + " " + arrows, strict=True))


def render(table: pd.DataFrame) -> str:
    """Markdown: for each data set the runs and its floor, a column for each metric, and a caption above."""
    shown, lines = heads(table), []
    for _, part in table.groupby("dataset", sort=False):
        data = labels.markdown(labels.data_label(part.iloc[0]))
        rows = [(labels.markdown(row["run"]), row["metric"], row) for row in part.to_dict("records")]
        if part["floor"].notna().any():
            rows += [
                ("floor: data against data", row["metric"], tables.of_floor(row))
                for row in part.drop_duplicates("metric").to_dict("records")
            ]
        cells: dict[str, dict[str, str]] = {}
        for name, metric, row in rows:
            cells.setdefault(name, {})[metric] = tables.cell(row)
        lines += [[data, name, *(own.get(metric, "–") for metric in shown)] for name, own in cells.items()]
    return f"{caption(table)}\n\n{labels.table(['data', 'run', *shown.values()], len(shown), lines)}"


def caption(table: pd.DataFrame) -> str:
    """What the table shows and at what scale, in Markdown."""
    shown = table.drop_duplicates("metric").to_dict("records")
    means = "; ".join(f"{row['name']}: {METRICS[row['metric']].meaning}" for row in shown)
    seeds = sorted(set(table["seeds"]) - {0})
    deviation = "Mean ± standard deviation over seeds"
    if seeds == [1]:
        deviation = "In parentheses: the standard error from the choice of images. One seed: no error bars between runs"
    network, n_samples = labels.either(table["network"]), labels.either(table["n_samples"].tolist())
    return (
        f"**All metrics**, from features of {network} of {n_samples} samples a run; ↓: lower is better, ↑: higher."
        f" {means}. All but the Fréchet distance are against no more images of the data than there are samples."
        f" {deviation}. Floor: what as many images of the data get as samples."
    )
