"""The audit's two figures: the blur beside the released operator, and the samplers on Gaussian data."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from blurdiff.audit import operators
from blurdiff.audit.settings import QUARTIC, paper_process
from blurdiff.diffusion import schedules
from blurdiff.reporting import labels
from blurdiff.reporting.style import GREY, INK, TEXT_WIDTH, line_style

GAIN = 3  # of the differences shown
CHANNELS = ("red", "green", "blue")
# Colour and dashes of each sampler, in the order of the legend.
SAMPLER_LOOKS = {
    "reverse-diffusion": ("#0072b2", ""),
    "reverse-diffusion, noise in every step": ("#56b4e9", (2, 1)),
    "ancestral": ("#d55e00", (4, 1.5)),
    "ddim": ("#009e73", (6, 2)),
    "ode-heun": ("#cc79a7", (3, 1, 1, 1)),
}
SAMPLER_LABELS = {
    "reverse-diffusion": "reverse diffusion (the paper's), no noise in the last 2 steps",
    "reverse-diffusion, noise in every step": "reverse diffusion, noise in every step",
    "ancestral": "ancestral posterior",
    "ddim": "DDIM, η = 0",
    "ode-heun": "Heun (two evaluations a step)",
}
GRID_LABELS = {
    "all": "all {} steps",
    "uniform": "{} uniform",
    "quadratic": "{} quadratic",
    "snr": "{} snr",
    "information": "{} information",
}
PROCESS_KEYS = ["f_type", "f_N", "direction", "mode_order"]
# Ticks of the ratio for an axis whose ends have a ratio below the number.
RATIO_TICKS = [
    (1.15, [0.94, 0.96, 0.98, 1, 1.02, 1.04]),
    (1.5, [0.8, 0.9, 1, 1.1, 1.2]),
    (4, [0.4, 0.6, 0.8, 1, 1.4, 2]),
    (20, [0.2, 0.5, 1, 2, 5]),
    (np.inf, [0.001, 0.01, 0.1, 1, 10, 100]),
]


def operator_figure(resolution: int, n_timesteps: int) -> Figure:
    """A test image, blurred as the paper means and as the released code does, with D of every mode below."""
    settings = paper_process(n_timesteps=n_timesteps, **QUARTIC)
    total = schedules.blur_schedule(**QUARTIC, n_timesteps=n_timesteps)[1:].sum()
    image = operators.draw_image(resolution)
    blurred = operators.apply_operator(image, settings, "paper", total)
    released = operators.apply_operator(image, settings, "released", total)
    difference = 0.5 + GAIN * (released - blurred)

    figure = Figure(figsize=(TEXT_WIDTH, 5.7), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, squeeze=False, height_ratios=[1.1, 1.1, 0.95])[:, 0]
    width = operators.equivalent_blur(settings["sigma"], total)
    pictures = {
        "test image": image,
        f"the blur of the paper ({width:.2f} px)": blurred,
        "the released operator": released,
        f"grey + {GAIN} × their difference": difference,
    }
    for axes, (title, picture) in zip(top.subplots(1, 4), pictures.items(), strict=True):
        axes.imshow(picture.clip(0, 1).transpose(1, 2, 0), interpolation="nearest")
        bare(axes, title)

    D = operators.eigenvalues(settings, resolution, "paper")
    handed = operators.eigenvalues(settings, resolution, "released")
    panels = {"paper, every channel": D[0]}
    panels |= {f"released, {channel}": values for channel, values in zip(CHANNELS, handed, strict=True)}
    maps = middle.subplots(1, 4)
    for axes, (title, values) in zip(maps, panels.items(), strict=True):
        drawn = axes.imshow(values, vmin=D.min(), vmax=1, cmap="viridis", interpolation="nearest")
        bare(axes, title)
    maps[0].set(xlabel="mode n →", ylabel="← mode m")
    middle.colorbar(drawn, ax=maps, label="D of the mode", shrink=0.9, pad=0.01, aspect=15)

    axes = bottom.subplots()
    order = np.argsort(-D[0], axis=None, kind="stable")
    axes.plot(D[0].flat[order], color=INK, label="paper")
    axes.plot(handed[0].flat[order], color="#d55e00", linestyle=line_style((4, 1)), linewidth=1.1,
              label="released (red; green and blue lie upon it)")  # fmt: skip
    axes.set(xlabel="rank of the mode, from coarse to fine", ylabel="D of the mode", xlim=(0, order.size - 1))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2, handlelength=2.6)
    seaborn.despine(bottom)
    return figure


def bare(axes, title: str) -> None:
    """A picture's axes: a title, no ticks, no grid."""
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(False)


def gaussian_figure(curves: pd.DataFrame) -> Figure:
    """Final/true standard deviation against spatial frequency: a column a process, a row a grid, a line a sampler.

    The log schedule's errors are far larger than all others; its columns stand apart, with axes of their own.
    """
    grids = curves.drop_duplicates("grid").set_index("grid")["n_steps"]
    by_process = dict(list(curves.groupby(PROCESS_KEYS, sort=False)))
    blocks = [[key for key in by_process if (key[0] == "log") == log] for log in (False, True)]
    figure = Figure(figsize=(TEXT_WIDTH, 1.25 * len(grids) + 1.0), layout="constrained")
    charts, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.25 * len(grids) + 0.4, 0.5])[:, 0]
    parts = charts.subfigures(1, 2, width_ratios=[len(block) + 0.6 for block in blocks])
    for part, block in zip(parts, blocks, strict=True):
        panels = part.subplots(len(grids), len(block), sharex=True, sharey="row", squeeze=False)
        for column, key in enumerate(block):
            for axes, grid in zip(panels[:, column], grids.index, strict=True):
                draw_ratios(axes, by_process[key][by_process[key]["grid"] == grid])
            panels[0, column].set_title(process_title(dict(zip(PROCESS_KEYS, key, strict=True))), fontsize=7)
        for axes in panels[:, 0]:
            ratio_axis(axes)
        panels[-1, 0].set(xlim=(0, curves["frequency"].max()), xticks=[0, 0.5])
        part.supxlabel("spatial frequency (cycles / pixel)", fontsize=8)
        seaborn.despine(part)
    parts[0].supylabel("final / true standard deviation", fontsize=8)
    for axes, (grid, n_steps) in zip(panels[:, -1], grids.items(), strict=True):
        text = GRID_LABELS[grid].format(f"{n_steps:,}")
        axes.annotate(text, (1.08, 0.5), xycoords="axes fraction", rotation=270, va="center", fontsize=7)
    handles = [
        Line2D([], [], color=colour, linestyle=line_style(dashes), label=SAMPLER_LABELS[sampler])
        for sampler, (colour, dashes) in SAMPLER_LOOKS.items()
    ]
    bottom.legend(handles=handles, loc="center", ncols=2, handlelength=2.6)
    return figure


def draw_ratios(axes: Axes, rows: pd.DataFrame) -> None:
    """One line a sampler, and the true standard deviation as a line at 1."""
    axes.axhline(1, color=GREY, linewidth=0.8, zorder=1)
    for sampler, (colour, dashes) in SAMPLER_LOOKS.items():
        line = rows[rows["sampler"] == sampler]
        axes.plot(line["frequency"], line["ratio"], color=colour, linestyle=line_style(dashes), linewidth=1.1)


def ratio_axis(axes: Axes) -> None:
    """A logarithmic axis with a few ticks in plain numbers, fine ones where the range is narrow."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    choices = next(ticks for widest, ticks in RATIO_TICKS if high / low < widest)
    axes.set_yticks(choices, [f"{tick:g}" for tick in choices])
    axes.set_yticks([], minor=True)
    axes.set_ylim(low, high)


def process_title(process: Mapping) -> str:
    """Schedule and variant, a line each."""
    name = "no blur" if process["f_type"] == "none" else process["f_type"]
    variant = labels.variant_label(paper_process(**process))
    return f"{name}\n{variant.replace(' mode', '')}"
