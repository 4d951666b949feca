"""Collect the evaluations of all runs in Table 1: a tidy CSV and the paper's layout in Markdown."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from blurdiff.config.made import SAMPLES, STRIPS, check_made, check_model_beside
from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.evaluation import records
from blurdiff.reporting import inputs, labels
from blurdiff.reporting.summaries import Made
from blurdiff.runtime.files import atomic_path

# Table 1 of the paper: FID of 10,000 samples at 64×64, by data set, schedule and f(N) as printed.
PAPER_FID = {
    "bedroom": {("none", 0.0): 9.24, ("log", 0.6): 73.23, ("quartic", 0.14): 7.86},
    "church": {("none", 0.0): 6.04, ("quartic", 0.14): 5.89},
}
PAPER_ITERATIONS = {"bedroom": 450_000, "church": 600_000}
# What an evaluation must have: finite numbers, and the description of its run.
NUMBERS = ("value", "n_samples")
OPTIONAL_NUMBERS = ("n_reference", "floor_mean", "floor_std", "floor_n")
RUN_KEYS = ("run", "dataset", "label", "synthetic", "f_type", "f_N", "direction", "mode_order", "basis", "seed",
            "iterations", "n_steps", "sampler", "resolution", "family", "prediction", "loss")  # fmt: skip
# Columns that name a row, that is, all seeds of a run.
ROW_KEYS = [key for key in RUN_KEYS if key != "seed"]
COLUMNS = ["dataset", "label", "synthetic", "run", "family", "f_type", "f_N", "direction", "mode_order", "basis",
           "prediction", "metric", "n_samples", "n_reference", "resolution", "iterations", "n_steps", "sampler",
           "seeds", "mean", "std", "paper", "floor", "floor_std", "floor_n"]  # fmt: skip
FLOOR = ("", "floor: data against data", "")  # the row of the data itself, as `row_keys` has it
# What one data set's evaluations must agree in to stand in one column.
SAME_IN_DATASET = ("n_samples", "n_reference", "resolution", "floor_mean")
SAME_EVERYWHERE = ("metric", "network", "weights_sha256", "input_size")


def read_evaluation(path: str) -> dict:
    """One fid.json, flattened: the keys of its run beside its own, and `path`.

    Raises UserError when a key is missing or a number is not finite.
    """
    evaluation = records.read_evaluation(path)
    run = evaluation.run or {}
    missing = [key for key in RUN_KEYS if key not in run]
    if missing:
        raise UserError(f"{path}: run.{missing[0]} is missing; evaluate the run again")
    row = {**asdict(evaluation), **run, "path": str(path)}
    optional = [key for key in OPTIONAL_NUMBERS if row[key] is not None]
    for key in [*NUMBERS, "f_N", "iterations", "resolution", *optional]:
        if isinstance(row[key], bool) or not isinstance(row[key], int | float) or not math.isfinite(row[key]):
            raise UserError(f"{path}: {key} is {row[key]!r}, not a finite number; look at the run, evaluate it again")
    return row


def read_evaluations(paths: Sequence[str], runs: Sequence[Settings]) -> list[dict]:
    """`read_evaluation` of several fid.json. With `runs`, these must be theirs, one each, in any order.

    Raises UserError also for samples that were made with other settings than their run's.
    """
    evaluations = [read_evaluation(path) for path in paths]
    wanted = {(run.run, run.seed): run for run in runs}
    for each in evaluations if runs else ():
        if (each["run"], each["seed"]) not in wanted:
            raise UserError(f"{each['path']}: is of run {each['run']}, seed {each['seed']}, which --settings lacks")
        check_made(each["path"], each.get("made_with", {}), wanted[each["run"], each["seed"]], SAMPLES, *STRIPS)
    if missing := sorted(wanted.keys() - {(each["run"], each["seed"]) for each in evaluations}):
        run, seed = missing[0]
        raise UserError(f"--evaluations: no fid.json is of run {run}, seed {seed}; give one for each run in --settings")
    return evaluations


def read_studies(paths: Sequence[str], runs: Sequence[Settings]) -> list[pd.DataFrame]:
    """Several samplers.csv, each with its path in `attrs`. With `runs`, these must be of some of them, and their models
    trained with the settings of these; UserError otherwise, or for what is no whole study."""
    wanted, studies = {(run.run, run.seed): run for run in runs}, []
    for path in paths:
        study = inputs.read_csv(path, "delete it and run again")
        if tuple(study.columns) != records.STUDY_COLUMNS or study.empty:
            raise UserError(f"{path} is not a study of samplers; delete it and run again")
        run, seed = study["run"].iloc[0], study["seed"].iloc[0]
        if runs:
            if (run, seed) not in wanted:
                raise UserError(f"{path}: is of run {run}, seed {seed}, which --settings lacks")
            check_model_beside(path, wanted[run, seed])
        study.attrs["path"] = str(path)
        studies.append(study)
    return studies


def study_evaluations(studies: Sequence[pd.DataFrame], evaluations: Sequence[Mapping]) -> list[list[dict]]:
    """What the studies of samplers found, as evaluations like those of the same runs: a list for each sampler and
    number of steps. They have the Fréchet distance alone.

    Raises UserError for a study of a run that is not among `evaluations`.
    """
    own = {(each["run"], each["seed"]): each for each in evaluations}
    found: dict[tuple, list[dict]] = {}
    for study in studies:
        seen: Counter[tuple] = Counter()
        path = study.attrs["path"]
        for row in study.to_dict("records"):
            if (row["run"], row["seed"]) not in own:
                raise UserError(f"{path}: is of run {row['run']}, seed {row['seed']}, which has no evaluation here")
            drawn = {key: row[key] for key in ("sampler", "grid", "eta", "noise_free_steps", "n_steps")}
            run = dict(own[row["run"], row["seed"]])
            made_with = run.get("made_with", {}) | {f"sampling.{key}": value for key, value in drawn.items()}
            nothing: dict[str, Any] = dict.fromkeys(("floor_mean", "floor_std", "floor_n", "error"))
            numbers = {key: row[key] for key in ("value", "n_samples", "metric")}
            each = run | drawn | numbers | nothing | {"others": {}, "made_with": made_with, "path": path}
            # Of samplers that differ in what samplers.csv does not hold, as `start`, there are several rows in order.
            key = tuple(drawn.values())
            seen[key] += 1
            found.setdefault((*key, seen[key]), []).append(each)
    return list(found.values())


def write_csv(table: pd.DataFrame, path: str | os.PathLike, digits: int | None = None) -> None:
    """Write a table, atomically, numbers with so many significant `digits`; all of them without."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format=digits and f"%.{digits}g", lineterminator="\n")


def make(runs: Sequence[Settings], evaluations: Sequence[Mapping]) -> Made:
    """Table 1; raises UserError as `summarise` does."""
    table = summarise(evaluations)
    return Made(table, render(table))


def summarise(evaluations: Sequence[Mapping]) -> pd.DataFrame:
    """The tidy table: one row per run in order of appearance, seeds averaged, the paper's value beside it.

    Raises UserError for evaluations that cannot stand in one table: several metrics or feature networks, other sample
    counts or references within a data set, one seed twice, or seeds of a run made with different settings.
    """
    records = []
    for group in group_runs(evaluations).values():
        first = group[0]
        values = pd.Series([float(one["value"]) for one in group])
        records.append(
            {key: first[key] for key in COLUMNS if key in first}
            | {"seeds": len(group), "mean": values.mean(), "std": values.std(ddof=1), "paper": paper_value(first)}
            | {"floor": first["floor_mean"], "floor_std": first["floor_std"]}
        )
    table = pd.DataFrame(records)[COLUMNS]
    table = table.astype(dict.fromkeys(["n_reference", "n_steps", "floor_n"], "Int64"))
    numbers = ["f_N", "mean", "std", "paper", "floor", "floor_std"]
    return table.astype(dict.fromkeys(numbers, float))


def group_runs(evaluations: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """The evaluations by run, in order of appearance; UserError as `summarise` says."""
    refuse_mixtures(evaluations)
    rows: dict[str, list[Mapping]] = {}
    for evaluation in evaluations:
        rows.setdefault(evaluation["run"], []).append(evaluation)
    for name, group in rows.items():
        first = group[0]
        for other in group[1:]:
            differing = [key for key in ROW_KEYS if other[key] != first[key]]
            if differing:
                raise UserError(
                    f"{other['path']}: {differing[0]} of run {name} is {other[differing[0]]}, but"
                    f" {first[differing[0]]} in {first['path']}; seeds of a run must differ in the seed alone"
                )
        seeds = [one["seed"] for one in group]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{group[-1]['path']}: run {name} has a seed twice (seeds {seeds}); give each once")
    return rows


def refuse_mixtures(evaluations: Sequence[Mapping]) -> None:
    """Raise UserError for the first evaluation whose number cannot be compared with those before it."""
    first_of: dict[str, Mapping] = {}
    for evaluation in evaluations:
        for first, keys in (
            (evaluations[0], SAME_EVERYWHERE),
            (first_of.setdefault(evaluation["dataset"], evaluation), SAME_IN_DATASET),
        ):
            for key in keys:
                if evaluation.get(key) != first.get(key):
                    raise UserError(
                        f"{evaluation['path']}: {key} is {evaluation.get(key)}, but {first.get(key)} in"
                        f" {first['path']};"
                        " evaluate both in one way, or put them in tables of their own"
                    )


def paper_value(run: Mapping) -> float | None:
    """The paper's FID-10K for this data set and process, None where the paper has none."""
    if run["family"] != "blur" or run["prediction"] != "epsilon" or run["loss"] != "epsilon":
        return None
    if run["f_type"] != "none" and (run["direction"] != "coarse-to-fine" or run["basis"] != "gaussian-blur"):
        return None
    for (f_type, f_N), value in PAPER_FID.get(run["dataset"], {}).items():
        # The paper prints 0.14 for the 0.140625 of its code.
        if run["f_type"] == f_type and (f_type == "none" or math.isclose(run["f_N"], f_N, abs_tol=1e-3)):
            return value
    return None


def render(table: pd.DataFrame) -> str:
    """The table in the paper's layout, as Markdown: rows f(N) and f_type, columns data sets, a caption above."""
    header, columns = ["f(N)", "f_type"], []
    called = {dataset: labels.data_label(part.iloc[0]) for dataset, part in table.groupby("dataset", sort=False)}
    for dataset, part in table.groupby("dataset", sort=False):
        columns.append((dataset, "mean"))
        alike = list(called.values()).count(called[dataset]) > 1
        label = labels.markdown(called[dataset]) + f" ({labels.markdown(dataset)})" * alike
        header.append(f"{label}: {part.iloc[0]['metric']}")
        if part["paper"].notna().any():
            columns.append((dataset, "paper"))
            header.append(f"paper: FID-10K, LSUN {labels.markdown(dataset)}{not_comparable(part)}")
    keys, texts = row_keys(table), {}
    for key, row in zip(keys, table.to_dict("records"), strict=True):
        texts[key, row["dataset"]] = {"mean": cell(row), "paper": cell({"mean": row["paper"], "std": math.nan})}
        texts[FLOOR, row["dataset"]] = {"mean": cell(of_floor(row)), "paper": ""}
    shown = sorted(dict.fromkeys(keys), key=lambda key: key[2] != "")  # the paper's own rows first
    shown += [FLOOR] * int(table["floor"].notna().any())
    lines = [
        [
            f_N,
            ", ".join(word for word in words if word not in ("", "–")) or "–",
            *(texts.get((key, data), {}).get(what, "–") for data, what in columns),
        ]
        for key in shown
        for f_N, *words in [key]
    ]
    return f"{caption(table)}\n\n{labels.table(header, len(columns), lines)}"


def row_keys(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """For every row of `table`, the row of the Markdown table that it belongs to: f(N), f_type, what else is special.

    Two runs of a data set never share a row: where the process does not tell them apart, their names do.
    """
    keys = []
    for row in table.to_dict("records"):
        if row["family"] != "blur":
            f_N, f_type = "–", labels.schedule_label(row)
        elif row["f_type"] == "none":
            f_N, f_type = "0 (no blur)", "–"
        else:
            f_N, f_type = labels.number_label(row["f_N"]), row["f_type"]
        keys.append((f_N, f_type, labels.variant_label(row)))
    places = list(zip(table["dataset"], keys, strict=True))
    clashing = {key for dataset, key in places if places.count((dataset, key)) > 1}
    return [
        (*key[:2], ", ".join(filter(None, [key[2], f"run {labels.markdown(name)}"]))) if key in clashing else key
        for key, name in zip(keys, table["run"], strict=True)
    ]


def cell(row: Mapping) -> str:
    """Mean ± deviation over seeds; of one seed the number, in parentheses its standard error where there is one; a dash
    for none."""
    mean = row["mean"]
    if pd.isna(mean):
        return "–"
    if not pd.isna(row["std"]):
        return f"{decimals(mean)} ± {decimals(row['std'], like=mean)}"
    error = row.get("error", math.nan)
    return decimals(mean) if pd.isna(error) else f"{decimals(mean)} ({decimals(error, like=mean)})"


def of_floor(row: Mapping) -> dict:
    """What a row says of the data itself in place of samples."""
    return {**row, "mean": row["floor"], "std": row["floor_std"], "error": math.nan}


def decimals(value: float, like: float | None = None) -> str:
    """Two decimals, as in the paper, and three significant digits below 1; as many decimals as `like` has, if given."""
    size = abs(value if like is None else like)
    places = 2 - min(0, math.floor(math.log10(size))) if size > 0 else 2
    return labels.fixed(value, places)


def not_comparable(part: pd.DataFrame) -> str:
    """In what the rows of one data set differ from the paper's experiment, in parentheses; empty where in nothing."""
    first = part.iloc[0]
    scale = (part["iterations"] != PAPER_ITERATIONS[first["dataset"]]).any() or first["resolution"] != 64
    differs = {
        "metric": first["metric"] != "FID",
        "data": bool(first["synthetic"]) or "lsun" not in first["label"].lower(),
        "scale": scale or first["n_samples"] != 10_000,
    }
    words = [word for word, different in differs.items() if different]
    return f" (not comparable: other {labels.join_words(words)})" if words else ""


def caption(table: pd.DataFrame) -> str:
    """What the table shows and at what scale, in Markdown."""
    rows = table.to_dict("records")
    metric = rows[0]["metric"]
    sentences = [f"**Table 1.** {metric} by blur schedule and data set (lower is better)."]
    if metric != "FID":
        sentences.append(
            f"{metric} is a Fréchet distance between features of another network than FID's Inception: it is not FID,"
            " and its numbers cannot be compared with any FID, the paper's included."
        )
    for dataset in dict.fromkeys(table["dataset"]):
        own = [row for row in rows if row["dataset"] == dataset]
        first = own[0]
        n_reference = first["n_reference"]
        images = "statistics of an unknown number of images" if pd.isna(n_reference) else f"{n_reference:,} images"
        synthetic = ", drawn procedurally" if first["synthetic"] else ""
        sentences.append(
            f"{labels.markdown(labels.data_label(first))}{synthetic}:"
            f" {first['resolution']}×{first['resolution']} pixels,"
            f" {labels.either(row['iterations'] for row in own)} iterations, {first['n_samples']:,} samples of"
            f" {steps_label(own)} against {images}."
        )
    seeds = sorted({row["seeds"] for row in rows})
    if seeds == [1]:
        sentences.append("One seed per run, so differences between rows have no error bars.")
    else:
        sentences.append(f"Mean ± sample standard deviation over {' or '.join(map(str, seeds))} seeds.")
    if table["floor"].notna().any():
        counts = labels.either(int(row["floor_n"]) for row in rows if not pd.isna(row["floor_n"]))
        sentences.append(
            f"Floor: the distance of {counts or 'some'} images of the data itself to all others, what a perfect model"
            " would get."
        )
    if table["paper"].notna().any():
        sentences.append(
            "The paper's columns: its FID of 10,000 samples, 64×64, 450,000 (bedroom) and 600,000 (church) iterations."
        )
    return " ".join(sentences)


def steps_label(rows: Sequence[Mapping]) -> str:
    """How many steps of which sampler made the samples of `rows`."""
    return labels.either(labels.drawn_label(row["n_steps"], row["sampler"]) for row in rows)
