"""Is coarse to fine better? Distance by the spectral tilt p, in pairs of the same seed: a table and a figure."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from blurdiff.config.made import STRIPS
from blurdiff.config.settings import Settings
from blurdiff.diffusion import families
from blurdiff.diffusion.timesteps import snr_crossings
from blurdiff.errors import UserError
from blurdiff.evaluation.metrics import FRECHET, METRICS
from blurdiff.evaluation.spectrum import power_of_data, radial_power_spectrum
from blurdiff.reporting import labels, tables
from blurdiff.reporting.differences import cell, compare, interval, sampler_label, sampler_labels, setting, shared
from blurdiff.reporting.style import GREY, LOOKS, TEXT_WIDTH, line_style
from blurdiff.reporting.summaries import Made

COLUMNS = ["dataset", "label", "synthetic", "prediction", "loss", "snr_shift", "snr_tilt", "run", "sampler", "grid",
           "eta", "noise_free_steps", "n_steps", "n_samples", "metric", "name", "better", "seeds", "mean", "std",
           "against", "pairs", "difference", "low", "high"]  # fmt: skip
TILT, SHIFT = "process.snr_tilt", "process.snr_shift"
# Beside p and δ, nothing else may differ between the runs of a comparison (column `comparison`).
MAY_DIFFER = {"seed", TILT, SHIFT, *STRIPS}


def make(
    runs: Sequence[Settings], evaluations: Sequence[Mapping], samples: Sequence[np.ndarray],
    images: Sequence[np.ndarray], studies: Sequence[pd.DataFrame],
) -> Made:  # fmt: skip
    """`summarise` and `draw`, of runs with a tilt and the studies of some of them."""
    table = summarise(evaluations, tables.study_evaluations(studies, evaluations))
    return Made(table[COLUMNS], render(table), *draw(table, runs, samples, images))


def summarise(evaluations: Sequence[Mapping], studies: Sequence[Sequence[Mapping]] = ()) -> pd.DataFrame:
    """A row for each run with a tilt, sampler and metric: mean and deviation over seeds, and the paired difference to
    the run with p = 0 and otherwise the same settings, with its 95 % t interval.

    `evaluations` as tables.read_evaluation gives them, `studies` as tables.study_evaluations does. The frame's columns
    `values`, `comparison` and `drawn` have each seed's number, all that is the same but p and δ, and which study.
    Raises UserError as Table 1 does, and when no run has a tilt.
    """
    rows = []
    for number, drawn in enumerate((evaluations, *studies)):
        groups = [group for group in tables.group_runs(drawn).values() if tilt(group[0]) is not None]
        zeros = {(comparison(group[0]), shift(group[0])): group for group in groups if tilt(group[0]) == 0}
        for group in groups:
            key, delta = comparison(group[0]), shift(group[0])
            zero = zeros.get((key, delta), ())
            about = {"snr_tilt": tilt(group[0]), "snr_shift": delta, "comparison": f"{number} {key}", "drawn": number}
            rows += [row | about for row in compare(group, zero if zero is not group else ())]
    if not rows:
        raise UserError("no run has a tilt; give runs process.snr_tilt, 0 among them")
    table = pd.DataFrame(rows, columns=[*COLUMNS, "values", "comparison", "drawn"])
    return table.astype(dict.fromkeys(["n_steps", "pairs"], "Int64"))


def tilt(run: Mapping) -> float | None:
    """p of a run's process; None where it has none."""
    value = setting(run, TILT)
    return None if value is None else float(value)


def comparison(run: Mapping) -> str:
    """What a run has in common with others of its comparison: all but seed, p and δ."""
    return json.dumps(shared(run, MAY_DIFFER), sort_keys=True)


def shift(run: Mapping) -> float:
    """δ of a run's process, a number."""
    found = setting(run, SHIFT)
    return families.snr_shift(families.ProcessConfig(snr_shift=found), run["resolution"])


def best_against_best(table: pd.DataFrame) -> list[dict]:
    """For each comparison: the best shift of p = 0, the best of all other tilts and shifts, and
    the paired difference of the two. Both are chosen by the mean that is compared here, which flatters the second, of
    which there are more; other data have to confirm it."""
    found = []
    distances = table[table["metric"] == FRECHET]
    for _, part in distances.groupby("comparison", sort=False):
        zero, others = part[part["snr_tilt"] == 0], part[part["snr_tilt"] != 0]
        if len(zero) and len(others):
            first, second = zero.loc[zero["mean"].idxmin()], others.loc[others["mean"].idxmin()]
            found.append({"zero": first, "best": second, **interval(second["values"] - first["values"])})
    return found


def render(table: pd.DataFrame) -> str:
    """Markdown: a line for each data set, prediction, shift and p, a column for each sampler, and best against best."""
    distances = table[table["metric"] == FRECHET]
    names = sampler_labels(distances)
    samplers = list(names.values())
    lines = []
    # A run has one place in every comparison: its rows are one line, however it was drawn from.
    for _, part in distances.sort_values(["dataset", "prediction", "loss", "snr_shift", "snr_tilt"]).groupby(
        "run", sort=False
    ):
        first = part.iloc[0]
        cells = {names[row["drawn"], sampler_label(row)]: numbers(row) for row in part.to_dict("records")}
        about = [labels.markdown(labels.data_label(first)), first["prediction"], f"{first['snr_shift']:.3g}"]
        lines.append([*about, labels.number_label(first["snr_tilt"]), *(cells.get(name, "–") for name in samplers)])
    text = [
        f"**{distances['name'].iloc[0]} by spectral tilt p** (smaller is better; p = 0 is DDPM, p = 1 the same SNR at"
        " all frequencies, p < 0 coarser first than DDPM). Mean over seeds ± their deviation; in brackets the 95 % t"
        " interval of the paired difference to p = 0 with the same δ. δ shifts the log SNR of all frequencies alike.",
        "",
        labels.table(["data", "prediction", "δ", "p", *samplers], 2 + len(samplers), lines),
    ]
    for one in best_against_best(table):
        zero, best = one["zero"], one["best"]
        data, name = labels.markdown(labels.data_label(zero)), names[zero["drawn"], sampler_label(zero)]
        text.append(
            f"- {data}, {zero['prediction']}, {name}: best of p = 0 at δ = {zero['snr_shift']:.3g}"
            f" ({zero['mean']:.1f}); best of the others p = {labels.number_label(best['snr_tilt'])}, δ ="
            f" {best['snr_shift']:.3g} ({best['mean']:.1f}); difference {cell(one, one['pairs'])}"
        )
    text += [
        "",
        "The best are chosen by the very numbers that are compared, so that only other data can confirm them.",
        "",
    ]
    return "\n".join(text)


def numbers(row: Mapping) -> str:
    """A cell of the table."""
    spread = "" if np.isnan(row["std"]) else f" ± {row['std']:.1f}"
    against = f" ({cell(row, row['pairs'])})" if row["pairs"] else ""
    return f"{row['mean']:.1f}{spread}{against}"


def octaves(resolution: int) -> list[tuple[int, int]]:
    """[first, last) waves across the image, of every octave: 1, 2 to 3, 4 to 7 … up to the corners."""
    starts = [2**k for k in range(resolution.bit_length()) if 2**k <= resolution / 2]
    return [(start, 2 * start) for start in starts]


def octave_power(spectrum: tuple[np.ndarray, np.ndarray], resolution: int) -> np.ndarray:
    """The mean power in every octave, of (frequencies, power)."""
    return np.array([spectrum[1][first:last].mean() for first, last in octaves(resolution)])


def lost_at(settings: Settings, images: np.ndarray) -> np.ndarray:
    """The timestep at which each octave's SNR passes 1, the median over its modes (NaN where there is none), for the
    power of `images`. A mode of the basis has √(λ_m + λ_n)/2π waves per pixel."""
    process, resolution = settings.process, settings.resolution
    power = families.power_of(process, images)
    crossing = snr_crossings(families.build_process(process, resolution, power=power), power)[0].numpy()
    laplacian = families.basis_of(process, resolution).laplacian
    waves = np.sqrt(laplacian[:, None] + laplacian) * resolution / (2 * np.pi)
    inside = [crossing[(waves >= first) & (waves < last)] for first, last in octaves(resolution)]
    return np.array([np.median(each) if each.size else np.nan for each in inside])


def draw(
    table: pd.DataFrame, runs: Sequence[Settings], samples: Sequence[np.ndarray], images: Sequence[np.ndarray]
) -> tuple[Figure, str]:
    """Distance against p, a panel for each data set and prediction; other metrics; power of the samples by octave; and
    when each octave is lost. `runs` are those with a tilt, of all seeds, with their samples and data. Returns the
    figure and its caption."""
    distances = table[table["metric"] == FRECHET]
    usual = distances.groupby("dataset")["snr_shift"].agg(lambda shifts: shifts.mode().iloc[0])
    panels = list(distances.groupby(["dataset", "prediction", "loss"], sort=False))
    names = sampler_labels(distances)
    datasets = labels.distinct(run.dataset for run in runs)
    own = table[(table["seeds"] > 0) & (table["snr_shift"] == table["dataset"].map(usual))]
    # Studies of samplers have the distance alone, so that these are of the runs' own samples.
    shown = [name for name in labels.distinct(own["metric"]) if METRICS[name].better == "higher"]
    heights = [2.4, 1.5 * len(datasets) * bool(shown), 2.1]
    figure = Figure(figsize=(TEXT_WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(2 + bool(shown), 1, squeeze=False, height_ratios=list(filter(None, heights)))
    top, *middle, bottom = parts[:, 0]
    for axis, (_, part) in zip(
        top.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0], panels, strict=True
    ):
        draw_distances(axis, part, usual[part["dataset"].iloc[0]], names)
    handles = {
        text: handle for axis in top.axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    top.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    between = middle[0].subplots(len(datasets), len(shown), squeeze=False, sharex=True) if shown else []
    below = bottom.subplots(1, 2 * len(datasets), squeeze=False)[0]
    for number, dataset in enumerate(datasets):
        for name, axis in zip(shown, between[number] if shown else [], strict=True):
            draw_metric(axis, own[(own["dataset"] == dataset) & (own["metric"] == name)])
            axis.set_xlabel("tilt $p$" if dataset == datasets[-1] else "")
        drawn_from = [
            (run, drawn, data)
            for run, drawn, data in zip(runs, samples, images, strict=True)
            if run.dataset == dataset and families.snr_shift(run.process, run.resolution) == usual[dataset]
        ]
        draw_octaves(below[2 * number], below[2 * number + 1], drawn_from)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    seeds = len({run.seed for run in runs})
    several = f"mean over {seeds} seeds, with the 95 % t interval of the paired difference to p = 0" if seeds > 1 else (
        "one seed, so that nothing is known of chance"
    )  # fmt: skip
    caption = (
        "Is coarse to fine better? Above: distance (smaller is better) against the spectral tilt p of the process, by"
        f" sampler; {several}. p = 0 is DDPM, p = 1 gives all frequencies the same SNR at every timestep, p < 0 loses"
        f" fine detail even earlier than DDPM. All have the mean log SNR of the same schedule, δ ="
        f" {labels.either(f'{each:.3g}' for each in usual)}; hollow: the first sampler with another δ."
        " Below, for each data set: other metrics of the runs' own samples, larger is better, with the same intervals;"
        " the power of these samples over that of the data by octave (waves across the image);"
        " and the timestep at which each octave's SNR passes 1 on its way to noise."
        f" Data: {labels.data_note(runs)}; {labels.training_note(runs)}."
    )
    return figure, caption


def draw_distances(axis: Axes, part: pd.DataFrame, usual: float, names: Mapping[tuple[int, str], str]) -> None:
    """A line for each sampler at the usual δ; the first sampler's distances at other shifts as hollow marks, joined."""
    for number, (key, rows) in enumerate(part[part["snr_shift"] == usual].groupby("comparison", sort=False)):
        colour, dashes = LOOKS[number % len(LOOKS)]
        name = labels.verbatim(names[rows["drawn"].iloc[0], sampler_label(rows.iloc[0])])
        draw_means(axis, rows, color=colour, linestyle=line_style(dashes), marker="o", label=name)
        if number == 0:
            others = part[(part["snr_shift"] != usual) & (part["comparison"] == key)]
            for other, line in others.sort_values("snr_tilt").groupby("snr_shift"):
                end = line.iloc[-1]
                axis.plot(line["snr_tilt"], line["mean"], "o-", color=colour, markerfacecolor="white", markersize=4,
                          linewidth=0.5)  # fmt: skip
                axis.annotate(f"δ={other:.3g}", (end["snr_tilt"], end["mean"]), (4, 3), fontsize=5.5,
                              textcoords="offset points", color=GREY)  # fmt: skip
    first = part.iloc[0]
    axis.set(xlabel="tilt $p$", ylabel=first["name"])
    axis.set_title(f"{labels.verbatim(labels.data_label(first))}\n{first['prediction']}", fontsize=7)
    axis.label_outer()


def draw_means(axis: Axes, rows: pd.DataFrame, **look: Any) -> None:
    """The means of `rows` against p, with half the interval of the difference to p = 0 to either side."""
    rows = rows.sort_values("snr_tilt")
    half = (rows["high"] - rows["low"]).fillna(0) / 2
    axis.errorbar(rows["snr_tilt"], rows["mean"], yerr=half, markersize=3, elinewidth=0.8, capsize=2, **look)


def draw_metric(axis: Axes, part: pd.DataFrame) -> None:
    """One metric of the runs' own samples, a line for each prediction, drawn as in `draw_octaves`."""
    for (_, rows), (line, marker) in zip(part.groupby(["prediction", "loss"], sort=False), styles(), strict=False):
        draw_means(axis, rows, color=LOOKS[0][0], linestyle=line, marker=marker, linewidth=1)
    axis.set_title(f"{part['name'].iloc[0]} →", fontsize=7)
    axis.set_ylim(bottom=0)


def styles() -> Iterator[tuple[str, str]]:
    """A line and a marker for each prediction."""
    return zip(itertools.chain("-", itertools.repeat(":")), itertools.cycle("os^v"), strict=False)


def draw_octaves(power_axis: Axes, order_axis: Axes, own: Sequence[tuple[Settings, np.ndarray, np.ndarray]]) -> None:
    """Power by octave and the timestep at which each is lost, a line for each octave, against p."""
    rows: dict[tuple[str, float], list[np.ndarray]] = {}
    order: dict[float, np.ndarray] = {}
    resolution, data = own[0][0].resolution, own[0][2]
    of_data = octave_power(power_of_data(data, 10_000), resolution)
    for run, drawn, _ in own:
        p = float(run.process.snr_tilt or 0)
        rows.setdefault((run.process.prediction, p), []).append(
            octave_power(radial_power_spectrum(drawn), resolution) / of_data
        )
        if p not in order:
            order[p] = lost_at(run, data)
    predictions = labels.distinct(prediction for prediction, _ in rows)
    for k, (first, last) in enumerate(octaves(resolution)):
        colour = LOOKS[(k + 1) % len(LOOKS)][0]
        text = f"{first}" if last == first + 1 else f"{first} to {last - 1}"
        for prediction, (line, marker) in zip(predictions, styles(), strict=False):
            tilts = sorted(p for name, p in rows if name == prediction)
            means = [np.mean(rows[prediction, p], axis=0)[k] for p in tilts]
            power_axis.plot(tilts, means, color=colour, marker=marker, markersize=3, linewidth=1,
                            linestyle=line)  # fmt: skip
        order_axis.plot(sorted(order), [order[p][k] for p in sorted(order)], color=colour, marker="o", markersize=3,
                        label=text)  # fmt: skip
    power_axis.axhline(1, color=GREY, linewidth=0.8)
    power_axis.set(xlabel="tilt $p$", ylabel="power, samples / data", yscale="log")
    order_axis.set(xlabel="tilt $p$", ylabel="timestep at which SNR = 1")
    order_axis.legend(title="waves", fontsize=6, title_fontsize=6)
    note = ", ".join(f"{name} {style}" for name, style in zip(predictions, ("solid", "dotted"), strict=False))
    power_axis.set_title(f"own samples: {note}" if len(predictions) > 1 else "own samples", fontsize=7)
    order_axis.set_title("order in which octaves are lost", fontsize=7)
