"""Grids of images: samples side by side (Figures 2 and 3) and an overview of all runs beside their data."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from blurdiff.reporting import labels, mosaic
from blurdiff.reporting.style import GREY, TEXT_WIDTH


def sample_grids(runs: Sequence[Mapping], samples: Sequence[np.ndarray], side: int = 6) -> tuple[Figure, str]:
    """Figures 2 and 3: the first side² samples of every run as square grids, side by side.

    `samples`: one uint8 (n, R, R, 3) per run; with fewer than side² images the grid is smaller. Returns the figure and
    its caption.
    """
    names = labels.run_labels(runs)
    data = [labels.data_label(run) for run in runs]
    grids = [first_grid(images, side, side) for images in samples]
    columns = sum(grid.shape[1] for grid in grids)
    gaps = 0.15 * len(runs) + 0.012 * columns
    factor, dpi = mosaic.fit(columns, runs[0]["resolution"], TEXT_WIDTH - gaps)
    gap, between, line = round(0.012 * dpi), round(0.15 * dpi), round(0.16 * dpi)
    sheets = [mosaic.mosaic(grid, factor, gap) for grid in grids]
    margin = round(0.02 * dpi)
    top = margin + 2 * line
    width = sum(sheet.shape[1] for sheet in sheets) + between * (len(sheets) - 1) + 2 * margin
    figure = mosaic.blank(width, top + max(sheet.shape[0] for sheet in sheets) + margin, dpi)
    left = margin
    points = min(mosaic.font_size(name, sheet.shape[1], dpi) for name, sheet in zip(names, sheets, strict=True))
    for sheet, name, label in zip(sheets, names, data, strict=True):
        mosaic.put_text(figure, name, left, margin + 0.45 * line, fontsize=points, fontweight="bold")
        mosaic.put_text(figure, label, left, margin + 1.4 * line, fontsize=0.875 * points, color=GREY)
        mosaic.put_image(figure, sheet, left, top)
        left += sheet.shape[1] + between
    counts = labels.either(f"{grid.shape[0]}×{grid.shape[1]}" for grid in grids)
    panels = "; ".join(
        f"{place}: {labels.markdown(name)}" for place, name in zip(places(len(names)), names, strict=True)
    )
    caption = (
        f"Samples of models trained on {labels.data_note(runs)}. {panels}. Each grid shows the first {counts} samples"
        f" of its run, none selected. {labels.training_note(runs)}; {labels.sampling_note(runs)}."
        + mosaic.note(runs[0]["resolution"])
    )
    return figure, caption


def overview(
    runs: Sequence[Mapping],
    samples: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    rows: int = 4,
    columns: int = 8,
) -> tuple[Figure, str]:
    """Training images and samples of every run, the first rows × columns of each; a column of blocks for each data set.

    `samples` and `images`: one uint8 (n, R, R, 3) per run, of the run's samples and of its data set. With one data set
    the blocks fill two columns. Returns the figure and its caption.
    """
    stacks: dict[str, list[tuple[str, np.ndarray]]] = {}
    for run, name, drawn, real in zip(runs, labels.run_labels(runs), samples, images, strict=True):
        stack = stacks.setdefault(run["dataset"], [(f"training images: {labels.data_label(run)}", real)])
        stack.append((name, drawn))
    if len(stacks) == 1:
        (blocks,) = stacks.values()
        half = (len(blocks) + 1) // 2
        stacks = {"left": blocks[:half], "right": blocks[half:]}
    resolution = runs[0]["resolution"]
    factor, dpi = mosaic.fit(columns * len(stacks), resolution, TEXT_WIDTH - 0.3 * len(stacks))
    gap, between, line, margin = round(0.012 * dpi), round(0.2 * dpi), round(0.2 * dpi), round(0.02 * dpi)
    cell = resolution * factor + gap
    drawn_stacks = [
        [(name, mosaic.mosaic(first_grid(block, rows, columns), factor, gap)) for name, block in blocks]
        for blocks in stacks.values()
    ]
    heights = [sum(line + sheet.shape[0] + line // 2 for _, sheet in stack) for stack in drawn_stacks]
    width = len(stacks) * (columns * cell - gap) + (len(stacks) - 1) * between + 2 * margin
    figure = mosaic.blank(width, max(heights) + 2 * margin - line // 2, dpi)
    points = min(mosaic.font_size(name, columns * cell, dpi, 7) for stack in drawn_stacks for name, _ in stack)
    for number, stack in enumerate(drawn_stacks):
        left, top = margin + number * (columns * cell - gap + between), margin
        for name, sheet in stack:
            mosaic.put_text(figure, name, left, top + 0.45 * line, fontsize=points, fontweight="bold")
            mosaic.put_image(figure, sheet, left, top + line)
            top += line + sheet.shape[0] + line // 2
    caption = (
        f"Training images and samples of every run, the first of each, none selected. Data: {labels.data_note(runs)}."
        f" {labels.training_note(runs)}; {labels.sampling_note(runs)}." + mosaic.note(runs[0]["resolution"])
    )
    return figure, caption


def first_grid(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The first images as (rows, columns, R, R, 3); fewer rows or columns where there are not as many images."""
    columns = min(columns, len(images))
    rows = min(rows, len(images) // columns)
    return np.asarray(images[: rows * columns]).reshape(rows, columns, *images.shape[1:])


def places(count: int) -> list[str]:
    """Where `count` panels in a row stand, for a caption."""
    return {1: ["Shown"], 2: ["Left", "right"], 3: ["Left", "middle", "right"]}.get(
        count, [f"Panel {number}" for number in range(1, count + 1)]
    )
