"""Curves: the blur schedules (Figure 4), training loss over iterations, and the spectrum of samples."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from blurdiff.diffusion.schedules import blur_schedule
from blurdiff.evaluation.spectrum import power_of_data, radial_power_spectrum
from blurdiff.reporting import labels
from blurdiff.reporting.inputs import LOSSES
from blurdiff.reporting.style import COLUMN_WIDTH, GREY, TEXT_WIDTH, line_style, looks, wrapped

LEGEND_MARGIN = 0.1  # inches, of both sides together
ROW_HEIGHT, LABEL_LINES = 1.2, 6  # of the panels of a data set: inches for its label, and its lines, at most
QUARTILE_TITLES = ["all $i$", "$i$ ≤ N/4", "N/4 < $i$ ≤ N/2", "N/2 < $i$ ≤ 3N/4", "$i$ > 3N/4"]


def blur_schedules(runs: Sequence[Mapping]) -> tuple[Figure, str]:
    """Figure 4: the blur schedules f(i) of `runs` against i, each schedule once. Returns the figure and its caption."""
    keys = ("f_type", "f_N", "n_timesteps", "f_anchor", "f_table")
    schedules: dict[tuple, Mapping] = {}
    for run in runs:
        schedules.setdefault(tuple(run["process"][key] for key in keys), run)
    shown = list(schedules.values())
    timesteps = [run["process"]["n_timesteps"] for run in shown]
    names = schedule_names([run["process"] for run in shown])
    look = looks(shown, names)
    figure = Figure(figsize=(COLUMN_WIDTH, 2.2), layout="constrained")
    axes = figure.subplots()
    starts: dict[str, list[str]] = {}
    for name, (f_type, f_N, n_timesteps, anchor, table) in zip(names, schedules, strict=True):
        f = blur_schedule(f_type, f_N, n_timesteps, anchor, table)
        starts.setdefault(f"f(0) = {labels.number_label(float(f[0]) or 0.0)}", []).append(labels.markdown(name))
        colour, dashes = look[name]
        axes.plot(
            np.arange(len(f)),
            f,
            color=colour,
            linestyle=line_style(dashes),
            label=labels.verbatim(name),
            clip_on=False,
            zorder=3,
        )
    axes.set(xlabel="timestep $i$", ylabel="blur schedule $f(i)$", xlim=(0, max(timesteps)))
    if min(np.min(line.get_ydata()) for line in axes.lines) >= 0:
        axes.set_ylim(bottom=0)
    seaborn.despine(figure)
    legend_within(figure, axes)
    told = [start if start == "f(0) = 0" else f"{start} ({'; '.join(own)})" for start, own in starts.items()]
    caption = (
        f"Blur schedules f(i) against the timestep i (N = {labels.either(timesteps)}): the blur of step"
        f" i is W to the power of f(i), with {' or '.join(told)}. Computed from the formulas, no data."
    )
    return figure, caption


def schedule_names(processes: Sequence[Mapping]) -> list[str]:
    """One label for each blur schedule, from its own keys: N where there are several, all else of those alike."""
    names = [labels.schedule_label(process) for process in processes]
    if len({process["n_timesteps"] for process in processes}) > 1:
        names = [f"{name}, N = {process['n_timesteps']:,}" for name, process in zip(names, processes, strict=True)]
    for key in ("f_anchor", "f_table", "f_type", "f_N"):
        values: dict[str, set] = {}
        for name, process in zip(names, processes, strict=True):
            values.setdefault(name, set()).add(process[key])
        names = [
            labels.one_line(f"{name}, {key.replace('_', ' ')} = {process[key]}" if len(values[name]) > 1 else name)
            for name, process in zip(names, processes, strict=True)
        ]
    return names


def training_curves(runs: Sequence[Mapping], histories: Sequence[pd.DataFrame]) -> tuple[Figure, str]:
    """Training loss against iteration, one row per data set: over all timesteps and for each quarter of them.

    `histories`: one frame per run (columns iteration, loss, loss_q1 … loss_q4). Returns the figure and its caption.
    """
    names = labels.run_labels(runs, with_seed=False)
    frames = []
    for number, (run, name, history) in enumerate(zip(runs, names, histories, strict=True)):
        long = thin(history).melt("iteration", LOSSES, "part", "value").dropna()
        frames.append(long.assign(data=run["dataset"], process=name, line=number))
    table = pd.concat(frames, ignore_index=True)
    panels = [(LOSSES.index(part), part, title) for part, title in zip(LOSSES, QUARTILE_TITLES, strict=True)]

    def draw_row(axes: Sequence[Axes], rows: pd.DataFrame) -> None:
        for axis, (_, part, _) in zip(axes, panels, strict=True):
            draw_lines(axis, rows[rows["part"] == part], "iteration", "value", runs, names)
            axis.set(xscale="log", yscale="log")

    losses = labels.distinct(run["process"]["loss"] for run in runs)
    symbol = "loss $L_\\epsilon$" if losses == ["epsilon"] else "loss"
    figure = facets(table, draw_row, [title for _, _, title in panels], runs, names, "iteration", symbol)
    seeds = labels.distinct(run["seed"] for run in runs)
    several = " One line per seed." if len(seeds) > 1 else ""
    own = "" if len(losses) == 1 else " Each run has its own loss, so those of different losses cannot be compared."
    caption = (
        f"Training loss (mean over pixels and colours) against iteration, over all timesteps i and in each quarter of"
        f" them, both axes logarithmic, averaged over iterations in windows of equal ratio.{own}{several}"
        f" Data: {labels.data_note(runs)}; {labels.training_note(runs)}."
    )
    return figure, caption


def spectra(runs: Sequence[Mapping], samples: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> tuple[Figure, str]:
    """Radially averaged power of samples over that of training images, against frequency; one panel per data set.

    `samples` and `images`: one uint8 (n, R, R, 3) per run. As many training images as samples are compared, evenly
    spread over the data set. Returns the figure and its caption.
    """
    names = labels.run_labels(runs, with_seed=False)
    frames, data_power = [], {}
    for number, (run, name, drawn, data) in enumerate(zip(runs, names, samples, images, strict=True)):
        key = (run["dataset"], min(len(drawn), len(data)))
        if key not in data_power:
            data_power[key] = power_of_data(data, len(drawn))
        frequencies, power = radial_power_spectrum(drawn)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(data_power[key][1] > 0, power / data_power[key][1], np.nan)
        frame = pd.DataFrame({"frequency": frequencies, "ratio": ratio})[np.asarray(frequencies) > 0]
        frames.append(frame.assign(data=run["dataset"], process=name, line=number))
    table = pd.concat(frames, ignore_index=True)

    def draw_row(axes: Sequence[Axes], rows: pd.DataFrame) -> None:
        axes[0].axhline(1, color=GREY, linewidth=0.8, zorder=1)
        draw_lines(axes[0], rows, "frequency", "ratio", runs, names)
        axes[0].set(yscale="log")
        axes[0].set_xlim(left=0)

    figure = facets(table, draw_row, [""], runs, names, "spatial frequency (cycles / pixel)", "power, samples / data")
    counts = labels.either(len(drawn) for drawn in samples)
    caption = (
        f"Radially averaged power spectrum of {counts} samples, divided by that of as many training images (or all"
        f" there are). 1: as in the data; below, detail of that scale is missing; above, there is too much of it;"
        f" above 0.5 only diagonal waves exist. Data: {labels.data_note(runs)}."
        f" {labels.training_note(runs)}; {labels.sampling_note(runs)}."
    )
    return figure, caption


def facets(
    table: pd.DataFrame, draw_row: Callable, titles: Sequence[str], runs: Sequence[Mapping], names: Sequence[str],
    x_label: str, y_label: str,
) -> Figure:  # fmt: skip
    """Small multiples with shared axes and one legend below.

    `table` has a column `data` (the data set); `draw_row(axes, rows)` draws the rows of one data set into its panels,
    one for each of `titles`. With one title, the data sets' panels stand side by side; else each data set has a row.
    """
    data = {run["dataset"]: labels.data_label(run) for run in runs}
    across = len(titles) == 1
    n_rows, n_columns = (1, len(data)) if across else (len(data), len(titles))
    width = min(TEXT_WIDTH, COLUMN_WIDTH * n_columns) if across else TEXT_WIDTH
    room = (width - 0.6) / n_columns - 0.1 if across else ROW_HEIGHT
    data = {name: labels.verbatim(wrapped(label, room, most=LABEL_LINES)) for name, label in data.items()}
    height = 2.1 + 0.13 * max(label.count("\n") for label in data.values()) if across else 1.45 * n_rows + 0.35
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for number, (name, label) in enumerate(data.items()):
        axes = [panels[0, number]] if across else list(panels[number])
        draw_row(axes, table[table["data"] == name])
        if across:
            axes[0].set_title(label)
        else:
            place = {"xycoords": "axes fraction", "rotation": 270, "va": "center", "multialignment": "center"}
            axes[-1].annotate(label, (1.03, 0.5), fontsize=8, **place)
    for axis, title in zip(panels[0], titles, strict=False):
        if title:
            axis.set_title(title)
    for axis in panels.flat:
        axis.set(xlabel="", ylabel="")
    for axis in panels[-1] if across else [panels[-1, n_columns // 2]]:
        axis.set_xlabel(x_label)
    for axis in panels[:, 0]:
        axis.set_ylabel(y_label)
    plain_log_ticks(panels[0, 0].xaxis, panels[0, 0].yaxis)
    seaborn.despine(figure)
    legend_below(figure, legend_handles(runs, names))
    return figure


def legend_within(figure: Figure, axes: Axes) -> None:
    """The legend of the only panel of a figure: inside, or below where it would take more than half of the height."""
    legend = axes.legend(loc="best", handlelength=2.6)
    legend.set_in_layout(False)
    figure.draw_without_rendering()
    own, panel = legend.get_window_extent(), axes.get_window_extent()
    if own.width > panel.width or own.height > panel.height / 2:
        legend.remove()
        legend_below(figure, axes.get_lines())


def legend_below(figure: Figure, handles: Sequence[Line2D]) -> None:
    """One legend below the panels, in as many columns as fit; the figure grows by its height, and by what one column
    may need in width."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)
        wanted = legend.get_window_extent(renderer).width / figure.dpi + LEGEND_MARGIN
        if wanted <= figure.get_figwidth() or columns == 1:
            break
        legend.remove()
    rows = -(-len(handles) // columns)
    figure.set_size_inches(max(figure.get_figwidth(), wanted), figure.get_figheight() + 0.16 * rows)


def draw_lines(axis: Axes, rows: pd.DataFrame, x: str, y: str, runs: Sequence[Mapping], names: Sequence[str]) -> None:
    """One line per run (column `line`), in the colour and dashes of its process (column `process`)."""
    look = looks(runs, names)
    seaborn.lineplot(
        rows, x=x, y=y, hue="process", style="process", units="line", estimator=None, legend=False, linewidth=1.1,
        palette={name: colour for name, (colour, _) in look.items()}, hue_order=list(look),
        dashes={name: dashes for name, (_, dashes) in look.items()}, style_order=list(look), ax=axis,
    )  # fmt: skip


def legend_handles(runs: Sequence[Mapping], names: Sequence[str]) -> list[Line2D]:
    """A legend entry for each process."""
    return [
        Line2D([], [], color=colour, label=labels.verbatim(name), linestyle=line_style(dashes))
        for name, (colour, dashes) in looks(runs, names).items()
    ]


def plain_log_ticks(*axes: Axis) -> None:
    """Write ticks of logarithmic axes as plain numbers, few but at least two (shared axes follow)."""
    for axis in axes:
        if axis.get_scale() != "log":
            continue
        low, high = axis.get_view_interval()
        if high < 4 * low:
            low, high = np.sqrt(low * high) / 2, np.sqrt(low * high) * 2
            axis.set_view_interval(low, high, ignore=True)
        decades = np.floor(np.log10(high)) - np.ceil(np.log10(low)) + 1
        axis.set_major_locator(LogLocator(subs=(1,) if decades >= 2 else (1, 2, 5), numticks=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: power_label(value)))
        axis.set_minor_formatter(NullFormatter())


def power_label(value: float) -> str:
    """0.01, 0.1, 1, 10, 100, 1k, 10k, 1M."""
    for unit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{suffix}"
    return f"{value:g}"


def thin(history: pd.DataFrame, windows: int = 40) -> pd.DataFrame:
    """Average the rows of a history over windows of iterations of equal ratio: legible on a logarithmic axis."""
    iteration = history["iteration"].clip(lower=1)
    edges = np.geomspace(iteration.min(), iteration.max() + 1, windows + 1)
    return history.groupby(np.digitize(iteration, edges)).mean().reset_index(drop=True)
