"""All metrics of all runs: a tidy CSV with a row for each run and metric, and Markdown with a row for each run."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from blurdiff.errors import UserError
from blurdiff.evaluation.metrics import FRECHET, METRICS, label
from blurdiff.reporting import labels, tables

ABOUT_RUN = ["dataset", "label", "synthetic", "run", "f_type", "f_N", "direction", "mode_order", "basis", "network",
             "n_samples", "n_reference", "resolution", "iterations", "n_steps", "sampler"]  # fmt: skip
ABOUT_SCORE = ["value", "error", "floor_mean", "floor_std"]


def make(evaluations: Sequence[Mapping]) -> tuple[pd.DataFrame, str]:
    """The table and the same in Markdown; raises UserError as `summarise` does."""
    table = summarise(evaluations)
    return table, render(table)


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


def summarise(evaluations: Sequence[Mapping]) -> pd.DataFrame:
    """A row for each run and metric, seeds averaged; `error` is the standard error of one seed's number.

    Raises UserError for evaluations that cannot stand in one table, as Table 1 does.
    """
    rows = []
    for group in tables.group_runs(evaluations).values():
        each = [scores(one) for one in group]
        for name in each[0]:
            own = pd.DataFrame([one.get(name, {}) for one in each], columns=ABOUT_SCORE, dtype=float)
            rows.append(
                {key: group[0][key] for key in ABOUT_RUN}
                | {"metric": name, "name": label(name, group[0]["network"]), "better": METRICS[name].better}
                | {"seeds": int(own["value"].count()), "mean": own["value"].mean(), "std": own["value"].std(ddof=1)}
                | {"error": (own["error"] ** 2).mean() ** 0.5}
                | {"floor": own["floor_mean"].iloc[0], "floor_std": own["floor_std"].iloc[0]}
            )
    return pd.DataFrame(rows).astype(dict.fromkeys(["n_reference", "n_steps"], "Int64"))


def render(table: pd.DataFrame) -> str:
    """Markdown: for each data set the runs and its floor, a column for each metric, and a caption above."""
    shown = table.drop_duplicates("metric")
    better = {"lower": "↓", "higher": "↑"}
    lines = [["data", "run", *(f"{row['name']} {better[row['better']]}" for row in shown.to_dict("records"))]]
    lines.append(["---", "---", *["---:"] * len(shown)])
    for dataset in dict.fromkeys(table["dataset"]):
        part = table[table["dataset"] == dataset]
        data = labels.markdown(labels.data_label(part.iloc[0]))
        for run in dict.fromkeys(part["run"]):
            own = part[part["run"] == run].set_index("metric")
            lines.append([data, labels.markdown(run), *(cell(own, name) for name in shown["metric"])])
        floor = part.drop_duplicates("metric").set_index("metric")
        floor = floor.assign(mean=floor["floor"], std=floor["floor_std"], error=float("nan"))
        if floor["mean"].notna().any():
            lines.append([data, "floor: data against data", *(cell(floor, name) for name in shown["metric"])])
    return f"{caption(table)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(own: pd.DataFrame, name: str) -> str:
    """Mean ± deviation over seeds; of one seed the number, with its standard error in parentheses; a dash for none."""
    if name not in own.index or pd.isna(own.at[name, "mean"]):
        return "–"
    row = own.loc[name]
    if not pd.isna(row["std"]):
        return f"{tables.decimals(row['mean'])} ± {tables.decimals(row['std'], like=row['mean'])}"
    error = "" if pd.isna(row["error"]) else f" ({tables.decimals(row['error'], like=row['mean'])})"
    return tables.decimals(row["mean"]) + error


def caption(table: pd.DataFrame) -> str:
    """What the table shows and at what scale, in Markdown."""
    shown = table.drop_duplicates("metric").to_dict("records")
    means = "; ".join(f"{row['name']}: {METRICS[row['metric']].meaning}" for row in shown)
    seeds = sorted(set(table["seeds"]) - {0})
    deviation = "One seed: no error bars between runs" if seeds == [1] else "Mean ± standard deviation over seeds"
    network, n_samples = labels.either(table["network"]), labels.either(table["n_samples"].tolist())
    return (
        f"**All metrics**, from features of {network} of {n_samples} samples a run; ↓: lower is better, ↑: higher."
        f" {means}. All but the Fréchet distance are against no more images of the data than there are samples. In"
        f" parentheses: the standard error from the choice of images. {deviation}. Floor: what as many images of the"
        " data get as samples."
    )
