"""Every run against no blur, in pairs: runs with the same seed share initial weights, order of the data and noise."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from blurdiff.config.made import STRIPS
from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.reporting import labels, metrics, tables
from blurdiff.reporting.samplers import method_label
from blurdiff.reporting.summaries import Made

LEVEL = 0.95  # of the intervals
COLUMNS = [*metrics.ABOUT_RUN, "grid", "eta", "noise_free_steps", "prediction", "loss", "against", "metric", "name",
           "better", "seeds", "difference", "std", "low", "high"]  # fmt: skip
# Settings that may differ within a pair: what a blur is, and what says nothing of the samples.
BLUR = ("family", "f_type", "f_N", "f_anchor", "f_table", "direction", "floor", "mode_order", "sigma", "power",
        "sigma_max", "snr_tilt", "noise_shape")  # fmt: skip
MAY_DIFFER = {"seed", *(f"process.{key}" for key in BLUR), *STRIPS}


def make(runs: Sequence[Settings], evaluations: Sequence[Mapping], studies: Sequence[pd.DataFrame]) -> Made:
    """A row for each blurred run, sampler and metric; `std` is that of the pairs' differences.

    Compared are the runs' own samples, and those of each sampler of the studies. Runs without a run without blur
    beside them are in the Markdown alone. Raises UserError as Table 1 does, and when an evaluation does not say what
    its samples were made with.
    """
    rows, left_out = [], []
    for number, drawn in enumerate((evaluations, *tables.study_evaluations(studies, evaluations))):
        groups = list(tables.group_runs(drawn).values())
        for group in groups:
            if is_without_blur(group[0]):
                continue
            if partner := partner_of(group, groups):
                rows += [row | {"drawn": number} for row in compare(group, partner)]
            else:
                left_out.append(group[0]["run"])
    table = pd.DataFrame(rows, columns=[*COLUMNS, "drawn", "pairs", "deviation"])
    # Of a run's own numbers nothing is told here: what is counted and deviates are the differences.
    table = table.assign(seeds=table["pairs"], std=table["deviation"])
    table = table.astype(dict.fromkeys(["n_reference", "n_steps"], "Int64"))
    return Made(table[COLUMNS], render(table, labels.distinct(left_out)))


def is_without_blur(run: Mapping) -> bool:
    """Whether a run is what others are compared with."""
    return run["family"] == "blur" and run["f_type"] == "none" and not setting(run, "process.snr_tilt")


def setting(run: Mapping, key: str) -> Any:
    """One of those that an evaluation's samples were made with; None where it does not say."""
    return (run.get("made_with") or {}).get(key)


def partner_of(group: Sequence[Mapping], groups: Sequence[Sequence[Mapping]]) -> Sequence[Mapping]:
    """The run without blur that a run is compared with, of those that share a seed with it: the first that knows as
    much of the images as it does, or else the first; () if there is none."""
    run, seeds = group[0], {one["seed"] for one in group}
    partners = [
        one
        for one in groups
        if is_without_blur(one[0]) and shared(one[0]) == shared(run) and seeds & {other["seed"] for other in one}
    ]
    tilted = setting(run, "process.snr_tilt") is not None
    return next(iter(sorted(partners, key=lambda one: (setting(one[0], "process.snr_tilt") is not None) != tilted)), ())


def shared(evaluation: Mapping, may_differ: Collection[str] = MAY_DIFFER) -> dict:
    """What a run has in common with its partner: data set, and all settings but those that `may_differ`."""
    if not isinstance(evaluation.get("made_with"), dict):
        raise UserError(f"{evaluation['path']}: run.made_with is missing; evaluate the run again")
    settings = {key: value for key, value in evaluation["made_with"].items() if key not in may_differ}
    return {"dataset": evaluation["dataset"], "resolution": evaluation["resolution"], **settings}


def compare(group: Sequence[Mapping], partner: Sequence[Mapping]) -> list[dict]:
    """The rows of a run (metrics.rows_of), each with what it is against and the `interval` of the paired differences,
    given its seeds' evaluations and those of its partner; these may be none."""
    others = {row["metric"]: row["values"] for row in (metrics.rows_of(partner) if partner else [])}
    about = {key: setting(group[0], f"sampling.{key}") for key in ("grid", "eta", "noise_free_steps")}
    about["against"] = partner[0]["run"] if partner else None
    nothing = pd.Series(dtype=float)
    return [
        row | about | interval(row["values"] - others.get(row["metric"], nothing)) for row in metrics.rows_of(group)
    ]


def interval(differences: pd.Series) -> dict[str, float]:
    """Number, mean and deviation of what is known of the pairs' differences, and the ends of Student's t interval."""
    known = differences.dropna()
    n, mean, deviation = len(known), known.mean(), known.std()
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * deviation / math.sqrt(n) if n > 1 else math.nan
    return {"pairs": n, "difference": mean, "deviation": deviation, "low": mean - half, "high": mean + half}


def render(table: pd.DataFrame, left_out: Sequence[str]) -> str:
    """Markdown: a caption, and a line for each run and sampler (column `drawn`), a column for each metric."""
    shown, lines, names = metrics.heads(table), [], sampler_labels(table)
    for (_, run), part in table.groupby(["drawn", "run"], sort=False):
        first, seeds = part.iloc[0], part["pairs"].max()
        own = {row["metric"]: cell(row, seeds) for row in part.to_dict("records")}
        sampler = names[first["drawn"], sampler_label(first)]
        about = [labels.data_label(first), run, first["against"], sampler, str(seeds)]
        lines.append([*map(labels.markdown, about), *(own.get(metric, "–") for metric in shown)])
    heads = ["data", "run", "against", "sampler", "seeds", *shown.values()]
    body = f"\n{labels.table(heads, 1 + len(shown), lines)}" if lines else ""
    return f"{caption(table, left_out)}\n{body}"


def sampler_label(row: Mapping) -> str:
    """A sampler with its options, and the number of its steps."""
    return f"{method_label(row)}, {labels.count(row['n_steps'], 'step')}"


def sampler_labels(table: pd.DataFrame) -> dict[tuple[int, str], str]:
    """What each sampler is called, by column `drawn` (0 for the runs' own samples, or which of the studies') and
    `sampler_label`: this, and where it stands for both, which of them."""
    found = {(row["drawn"], sampler_label(row)): row["n_samples"] for row in table.to_dict("records")}
    own, names = {name for drawn, name in found if drawn == 0}, {}
    both = own & {name for drawn, name in found if drawn != 0}
    for (drawn, name), n in found.items():
        origin = f"{n} samples of the study" if drawn else "own samples"
        names[drawn, name] = f"{name} ({origin})" if name in both else name
    return names


def cell(row: Mapping, seeds: int) -> str:
    """The difference and its interval; a dash for none, and how many pairs where they are fewer than these seeds."""
    if not row["pairs"]:
        return "–"
    known = [row[key] for key in ("difference", "low", "high") if not math.isnan(row[key])]
    mean, *ends = (signed(value, like=max(known, key=abs)) for value in known)
    brackets = [f"[{', '.join(ends)}]"] if ends else []
    fewer = [f"({row['pairs']} of {seeds} seeds)"] if row["pairs"] < seeds else []
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
