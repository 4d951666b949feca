"""Every metric of every run, a panel for each: which run is better by which number, and how far from the data."""

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blurdiff.reporting import labels, metrics
from blurdiff.reporting.style import GREY, TEXT_WIDTH, looks, text_width, wrapped

ARROWS = {"lower": "←", "higher": "→"}  # where the better runs lie


def metrics_of_runs(runs: Sequence[Mapping], evaluations: Sequence[Mapping]) -> tuple[Figure, str]:
    """A row of panels for each data set, a panel for each metric, a line of it for each run, its seeds averaged.

    `evaluations`: one for each run and seed, as `read_evaluation` gives them. Returns the figure and its caption.
    Raises UserError for evaluations that cannot stand in one table.
    """
    table = metrics.summarise(evaluations)
    label_of = dict(zip([run["run"] for run in runs], labels.run_labels(runs, with_seed=False), strict=True))
    colours = {name: colour for name, (colour, _) in looks(runs, labels.run_labels(runs, with_seed=False)).items()}
    parts = [part for _, part in table.groupby("dataset", sort=False)]
    counts = [part["run"].nunique() for part in parts]
    shown = table.drop_duplicates("metric").to_dict("records")
    lines_of = {run: textwrap.wrap(label, 30, break_on_hyphens=False) for run, label in label_of.items()}
    line_height = max(0.27, 0.12 * max(map(len, lines_of.values())) + 0.03)
    # The layout makes room for what of a title reaches beyond twice its panel.
    beside = TEXT_WIDTH - 0.1 - max(text_width(line, 7) for lines in lines_of.values() for line in lines)
    room = min(beside, 1.9 * (beside / len(shown) - 0.1))
    titles = [wrapped(labels.data_label(part.iloc[0]), room, weight="bold") for part in parts]
    heights = [line_height * n + 0.35 + 0.13 * title.count("\n") for n, title in zip(counts, titles, strict=True)]
    figure = Figure(figsize=(TEXT_WIDTH, 0.6 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(parts), len(shown), sharex="col", squeeze=False, height_ratios=counts)
    for row, part, title in zip(panels, parts, titles, strict=True):
        own_runs = part["run"].drop_duplicates()
        lines = [labels.verbatim("\n".join(lines_of[run])) for run in own_runs]
        for axes, metric in zip(row, shown, strict=True):
            own = part[part["metric"] == metric["metric"]].set_index("run")
            draw_metric(axes, own.reindex(own_runs), [colours[label_of[run]] for run in own_runs])
            axes.set_yticks(range(len(lines)), lines)
            axes.set_ylim(len(lines) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0, labelleft=axes is row[0])
        row[0].set_title(labels.verbatim(title), loc="left", fontweight="bold")
    for axes, metric in zip(panels[-1], shown, strict=True):
        axes.set_xlabel("\n".join(textwrap.wrap(f"{metric['name']} {ARROWS[metric['better']]}", 15)))
        if table.loc[table["metric"] == metric["metric"], "mean"].isna().all():
            axes.set_xlim(0, 1)  # no run has this number: no ticks of 1e-17
    seaborn.despine(figure, left=True)
    return figure, caption(table, runs)


def draw_metric(axes: Axes, own: pd.DataFrame, colours: Sequence[str]) -> None:
    """One panel: the runs of `own` from the top, with the deviation over seeds or the number's own standard error, and
    the floor of the data as a line."""
    error = own["std"].fillna(own["error"]).fillna(0)
    for k, (mean, half, colour) in enumerate(zip(own["mean"], error, colours, strict=True)):
        axes.errorbar(mean, k, xerr=half, fmt="o", markersize=3.5, color=colour, elinewidth=1, zorder=3)
    floors = own[["floor", "floor_std"]].dropna(subset="floor")
    if len(floors):
        floor, spread = floors.iloc[0]
        axes.axvline(floor, color=GREY, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
        axes.axvspan(floor - spread, floor + spread, color=GREY, alpha=0.2, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=0.5, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.margins(x=0.12)


def caption(table: pd.DataFrame, runs: Sequence[Mapping]) -> str:
    """What is shown, and at what scale, in Markdown."""
    names = labels.join_words(labels.distinct(labels.markdown(name) for name in table["name"]))
    several = (table["seeds"] > 1).any()
    bars = "Bars: the standard deviation over seeds" if several else "One seed; bars: the standard error, where known"
    return (
        f"Every metric of every run: {names}. The arrow points to where the better runs lie; the dashed line is what"
        f" as many images of the data get against the others. {bars}. Features of {labels.either(table['network'])},"
        f" {labels.either(table['n_samples'].tolist())} samples a run. Data: {labels.data_note(runs)};"
        f" {labels.training_note(runs)}; {labels.sampling_note(runs)}."
    )
