"""The benchmark as a figure: how much faster than its baseline each implementation is, stage by stage."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from blurdiff.benchmark.rows import CEILINGS, PROCESS
from blurdiff.reporting import style
from blurdiff.runtime.files import write_text

BAR, BASELINE, TARGET = "#0072b2", "#b8b8b8", "#d55e00"
NUMBERS = ("throughput", "ratio", "ratio_min", "ratio_max", "share_of_matrix_product")  # that are drawn
TOP, BOTTOM, LINE, GAP = 0.25, 0.6, 0.17, 0.2  # inches


def write(table: str | Path, png: str | Path, quick: bool = False) -> None:
    """The figure of a benchmark.csv as PNG, PDF and caption (.md), beside one another."""
    with open(table, newline="", encoding="utf-8") as file:
        rows: list[dict] = list(csv.DictReader(file))
    for row in rows:
        row |= {name: float(row[name]) for name in NUMBERS if row[name] != ""}
    with style.style():
        figure, caption = draw(rows, quick)
        style.save(figure, png, Path(png).with_suffix(".pdf"), "blurdiff benchmark")
    write_text(Path(png).with_suffix(".md"), caption + "\n")


def draw(rows: Sequence[dict], quick: bool = False) -> tuple[Figure, str]:
    """Bars of the ratio to the baseline, with its spread and the targets; returns figure and caption."""
    shown = [row for row in rows if row["stage"] not in (CEILINGS, PROCESS) and row["ratio"] != ""]
    stages = list(dict.fromkeys(row["stage"] for row in shown))
    height = TOP + BOTTOM + LINE * (len(shown) + len(stages)) + GAP * len(stages)
    figure = Figure(figsize=(style.TEXT_WIDTH, height))
    axes = figure.add_axes((0.42, BOTTOM / height, 0.56, 1 - (TOP + BOTTOM) / height))
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
    at, furthest = -GAP, 1.0
    for stage in stages:
        at += GAP
        axes.annotate(stage, (-0.74, at), weight="bold", fontsize=8, annotation_clip=False, **beside)
        for row in (row for row in shown if row["stage"] == stage):
            at += LINE
            baseline, wanted = row["implementation"] == row["baseline"], targets(row)
            axes.barh(at, row["ratio"], height=0.72 * LINE, color=BASELINE if baseline else BAR, zorder=2)
            if not baseline:
                axes.hlines(at, row["ratio_min"], row["ratio_max"], color=style.INK, linewidth=0.8, zorder=3)
            axes.vlines(wanted, at - 0.5 * LINE, at + 0.5 * LINE, color=TARGET, linewidth=1.6, zorder=4)
            axes.annotate(row["implementation"], (-0.02, at), ha="right", fontsize=7, **beside)
            end = max(row["ratio"], row["ratio_max"], *wanted)
            axes.annotate(numbers(row), (end, at), (4, 0), textcoords="offset points", va="center", fontsize=6.5,
                          zorder=5)  # fmt: skip
            furthest = max(furthest, end)
        at += LINE
    axes.set_ylim(at, -LINE)
    axes.set_xlim(0, 1.75 * furthest)  # room for the words beside the longest bar
    axes.axvline(1, color=style.GREY, linewidth=0.8, zorder=1)
    axes.set_xlabel("throughput / baseline")
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    measured_on = sorted({f"{row['device_name']} ({row['device']}, threads: {row['threads']})" for row in shown})
    caption = (
        "Throughput over that of the grey baseline of the same stage, measured in the same run: medians of"
        f" {max((int(row['repeats']) for row in shown), default=0)} interleaved repeats; the thin line spans the ratios"
        " within the rounds. Orange marks are the throughput wanted. Beside each bar: the ratio, the throughput and,"
        " where FLOPs are counted, the share of the measured matrix product in the row's precision."
        f" Device: {'; '.join(measured_on)}. {shown[0]['versions'] if shown else ''}."
    )
    if quick:
        caption = f"Of --quick: sizes are tiny and the numbers mean nothing. {caption}"
    return figure, caption


def targets(row: dict) -> list[float]:
    """The targets of a row as ratios to its baseline: one against another row stands where that row's ratio would
    have to be reached by so much."""
    found = []
    for wanted, reached in zip(str(row["target"]).split("; "), str(row["reached"]).split("; "), strict=False):
        if wanted and reached:
            least = float(wanted.removeprefix("at least ").split()[0])
            found.append(row["ratio"] * least / float(reached))
    return found


def numbers(row: dict) -> str:
    """What stands beside a bar, numbers to three digits: 0.0712, 3.4, 512, 1,420."""
    rate, share = row["throughput"], row["share_of_matrix_product"]
    amount = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{row['ratio']:.2f}×  {amount} {row['unit']}" + (f", {share:.0%}" if share != "" else "")
