"""Every run against no blur, in pairs: runs with the same seed share initial weights, order of the data and noise."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from blurdiff.config.made import STRIPS
from blurdiff.errors import UserError
from blurdiff.evaluation.metrics import METRICS, label
from blurdiff.reporting import labels, metrics, tables
from blurdiff.reporting.samplers import method_label

LEVEL = 0.95  # of the intervals
COLUMNS = [*metrics.ABOUT_RUN, "grid", "eta", "prediction", "loss", "against", "metric", "name", "better", "seeds",
           "difference", "std", "low", "high"]  # fmt: skip
# Settings that may differ within a pair: what a blur is, and what says nothing of the samples.
BLUR = ("family", "f_type", "f_N", "f_anchor", "f_table", "direction", "floor", "mode_order", "sigma", "power",
        "sigma_max", "snr_tilt", "noise_shape")  # fmt: skip
MAY_DIFFER = {"seed", *(f"process.{key}" for key in BLUR), *STRIPS}


def make(evaluations: Sequence[Mapping], studies: Sequence[Sequence[Mapping]] = ()) -> tuple[pd.DataFrame, str]:
    """A row for each blurred run, sampler and metric, and the same to read; `std` is that of the pairs' differences.

    Compared are the runs' own samples, and those of each sampler of the studies (tables.study_evaluations). Runs
    without a run without blur beside them are in the Markdown alone. Raises UserError as Table 1 does, and when an
    evaluation does not say what its samples were made with.
    """
    rows, left_out = [], []
    for number, drawn in enumerate((evaluations, *studies)):
        groups = list(tables.group_runs(drawn).values())
        for group in groups:
            if is_without_blur(group[0]):
                continue
            found = compare(group, partners_of(group[0], groups))
            rows += [row | {"drawn": number} for row in found]
            if not found:
                left_out.append(group[0]["run"])
    left_out = labels.distinct(left_out)
    table = pd.DataFrame(rows, columns=[*COLUMNS, "drawn"])
    table = table.astype(dict.fromkeys(["n_reference", "n_steps"], "Int64"))
    return table[COLUMNS], render(table, left_out)


def is_without_blur(run: Mapping) -> bool:
    """Whether a run is what others are compared with."""
    return run["family"] == "blur" and run["f_type"] == "none" and not setting(run, "process.snr_tilt")


def setting(run: Mapping, key: str) -> Any:
    """One of those that an evaluation's samples were made with; None where it does not say."""
    return (run.get("made_with") or {}).get(key)


def partners_of(run: Mapping, groups: Sequence[Sequence[Mapping]]) -> list[Sequence[Mapping]]:
    """The runs that a run may be compared with, those first that know as much of the images as it does."""
    partners = [one for one in groups if is_without_blur(one[0]) and shared(one[0]) == shared(run)]
    tilted = [setting(one, "process.snr_tilt") is not None for one in (run, *(one[0] for one in partners))]
    return [one for _, one in sorted(zip(tilted[1:], partners, strict=True), key=lambda pair: pair[0] != tilted[0])]


def shared(evaluation: Mapping, may_differ: Collection[str] = MAY_DIFFER) -> dict:
    """What a run has in common with its partner: data set, and all settings but those that `may_differ`."""
    if not isinstance(evaluation.get("made_with"), dict):
        raise UserError(f"{evaluation['path']}: run.made_with is missing; evaluate the run again")
    settings = {key: value for key, value in evaluation["made_with"].items() if key not in may_differ}
    return {"dataset": evaluation["dataset"], "resolution": evaluation["resolution"], **settings}


def compare(group: Sequence[Mapping], partners: Sequence[Sequence[Mapping]]) -> list[dict]:
    """The rows of a run, given its seeds' evaluations and those of runs without blur; the first with a seed of it."""
    own = {one["seed"]: metrics.scores(one) for one in group}
    for partner in partners:
        other = {one["seed"]: metrics.scores(one) for one in partner}
        pairs = [(own[seed], other[seed]) for seed in own if seed in other]
        if pairs:
            about = {key: group[0][key] for key in COLUMNS if key in group[0]} | {"against": partner[0]["run"]}
            about |= {key: setting(group[0], f"sampling.{key}") for key in ("grid", "eta")}
            network = group[0]["network"]
            return [
                about
                | {"metric": name, "name": label(name, network), "better": METRICS[name].better}
                | interval([difference(*(one.get(name, {}).get("value") for one in pair)) for pair in pairs])
                for name in pairs[0][0]
            ]
    return []


def difference(own: float | None, other: float | None) -> float:
    """own − other, NaN where one is not known."""
    return math.nan if own is None or other is None else own - other


def interval(differences: Sequence[float]) -> dict[str, float]:
    """Number, mean and deviation of what is known of the pairs' differences, and the ends of Student's t interval."""
    known = np.array([one for one in differences if not math.isnan(one)])
    n, mean = len(known), known.mean() if len(known) else math.nan
    std = known.std(ddof=1) if n > 1 else math.nan
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * std / math.sqrt(n) if n > 1 else math.nan
    return {"seeds": n, "difference": mean, "std": std, "low": mean - half, "high": mean + half}


def render(table: pd.DataFrame, left_out: Sequence[str]) -> str:
    """Markdown: a caption, and a line for each run and sampler (column `drawn`), a column for each metric."""
    shown = table.drop_duplicates("metric")
    better = {"lower": "↓", "higher": "↑"}
    names = [f"{one['name']} {better[one['better']]}" for one in records(shown)]
    lines = [["data", "run", "against", "sampler", "seeds", *names]]
    lines.append(["---", "---", "---", "---", "---:", *["---:"] * len(shown)])
    for (_, run), part in table.groupby(["drawn", "run"], sort=False):
        own = {one["metric"]: one for one in records(part)}
        first, seeds = part.iloc[0], part["seeds"].max()
        about = [labels.data_label(first), run, first["against"], sampler_label(first), str(seeds)]
        lines.append([*map(labels.markdown, about), *(cell(own.get(name), seeds) for name in shown["metric"])])
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines) if len(table) else ""
    return f"{caption(table, left_out)}\n" + (f"\n{body}" if body else "")


def sampler_label(row: Mapping) -> str:
    """A sampler with its options, and the number of its steps."""
    return f"{method_label(row)}, {labels.either([row['n_steps']])} steps"


def records(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


def cell(row: Mapping | None, seeds: int) -> str:
    """The difference and its interval; a dash for none, and how many seeds where they are fewer than the run's."""
    if row is None or not row["seeds"]:
        return "–"
    known = [row[key] for key in ("difference", "low", "high") if not math.isnan(row[key])]
    mean, *ends = (signed(value, like=max(known, key=abs)) for value in known)
    brackets = [f"[{', '.join(ends)}]"] if ends else []
    fewer = [f"({row['seeds']} of {seeds} seeds)"] if row["seeds"] < seeds else []
    return " ".join([mean, *brackets, *fewer])


def signed(value: float, like: float) -> str:
    """With its sign, a true minus, and as many decimals as Table 1 would give to `like`."""
    text = tables.decimals(abs(value), like=like)
    return f"{'−' if value < 0 else '+'}{text}" if float(text) else text


def caption(table: pd.DataFrame, left_out: Sequence[str]) -> str:
    """What the table shows, what it leaves out, and at what scale, in Markdown."""
    sentences = [
        "**Differences from no blur.** Runs with the same seed share initial weights, the order of the data, the noise"
        " and the start of sampling, so each is compared with the run without blur of the same seed and otherwise the"
        " same settings. Below 0, the run's number is smaller than without blur; ↓: lower is better, ↑: higher."
    ]
    if len(table):
        n_samples = labels.either(table["n_samples"].tolist())
        sentences.append(f"Features of {labels.either(table['network'])}, {n_samples} samples a run.")
    if (table["seeds"] > 1).any():
        sentences.append(f"Mean over seeds, and in brackets its {LEVEL:.0%} t interval.".replace("%", " %"))
    if (table["seeds"] == 1).any():
        sentences.append("One seed: no interval, so such a difference may be chance.")
    if not len(table):
        sentences.append("There is no pair to compare.")
    if left_out:
        names = ", ".join(map(labels.markdown, left_out))
        sentences.append(f"Left out, for want of a run without blur of the same settings and seed: {names}.")
    return " ".join(sentences)
