"""Grids of images: samples side by side (Figures 2 and 3) and an overview of all runs beside their data."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from blurdiff.reporting import labels, mosaic
from blurdiff.reporting.style import GREY, TEXT_WIDTH, wrapped

ACROSS = 4  # grids of samples in a row, at most


def sample_grids(runs: Sequence[Mapping], samples: Sequence[np.ndarray], side: int = 6) -> tuple[Figure, str]:
    """Figures 2 and 3: the first side² samples of every run as square grids, side by side, in rows of about as many.

    `samples`: one uint8 (n, R, R, 3) per run; with fewer than side² images the grid is smaller. Returns the figure and
    its caption.
    """
    names = labels.run_labels(runs)
    data = [labels.data_label(run) for run in runs]
    grids = [first_grid(images, side, side) for images in samples]
    n_rows = -(-len(runs) // ACROSS)
    across = -(-len(runs) // n_rows)
    rows = [range(len(runs))[start : start + across] for start in range(0, len(runs), across)]
    columns = max(sum(grids[k].shape[1] for k in row) for row in rows)
    gaps = 0.15 * across + 0.012 * columns
    factor, dpi = mosaic.fit(columns, runs[0]["resolution"], TEXT_WIDTH - gaps)
    gap, between, line = round(0.012 * dpi), round(0.15 * dpi), round(0.16 * dpi)
    sheets = [mosaic.mosaic(grid, factor, gap) for grid in grids]
    margin = round(0.02 * dpi)
    widths = [sheet.shape[1] for sheet in sheets]
    points, heads = mosaic.headings(names, widths, dpi)
    notes = [wrapped(text, width / dpi, 0.875 * points, most=2) for text, width in zip(data, widths, strict=True)]
    under = mosaic.extra_lines(heads, points, dpi)
    head = 2 * line + under + mosaic.extra_lines(notes, 0.875 * points, dpi)
    width = max(sum(widths[k] + between for k in row) for row in rows) - between + 2 * margin
    heights = [head + max(sheets[k].shape[0] for k in row) for row in rows]
    figure = mosaic.blank(width, sum(heights) + between * (len(rows) - 1) + 2 * margin, dpi)
    top = margin
    for row, height in zip(rows, heights, strict=True):
        left = margin
        for k in row:
            mosaic.put_text(figure, heads[k], left, top + 0.45 * line, fontsize=points, fontweight="bold")
            below = top + under + 1.4 * line
            mosaic.put_text(figure, notes[k], left, below, fontsize=0.875 * points, color=GREY)
            mosaic.put_image(figure, sheets[k], left, top + head)
            left += widths[k] + between
        top += height + between
    counts = labels.either(f"{grid.shape[0]}×{grid.shape[1]}" for grid in grids)
    caption = (
        f"Samples of models trained on {labels.data_note(runs)}. {panels_note(names, across)}. Each grid shows"
        f" the first {counts} samples of its run, none selected. {labels.training_note(runs)};"
        f" {labels.sampling_note(runs)}.{mosaic.note(runs[0]['resolution'])}"
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
    names = [name for stack in drawn_stacks for name, _ in stack]
    points, lines = mosaic.headings(names, [columns * cell] * len(names), dpi, 7)
    heads = dict(zip(names, lines, strict=True))
    above = line + mosaic.extra_lines(lines, points, dpi)
    heights = [sum(above + sheet.shape[0] + line // 2 for _, sheet in stack) for stack in drawn_stacks]
    width = len(stacks) * (columns * cell - gap) + (len(stacks) - 1) * between + 2 * margin
    figure = mosaic.blank(width, max(heights) + 2 * margin - line // 2, dpi)
    for number, stack in enumerate(drawn_stacks):
        left, top = margin + number * (columns * cell - gap + between), margin
        for name, sheet in stack:
            mosaic.put_text(figure, heads[name], left, top + 0.45 * line, fontsize=points, fontweight="bold")
            mosaic.put_image(figure, sheet, left, top + above)
            top += above + sheet.shape[0] + line // 2
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


def panels_note(names: Sequence[str], across: int) -> str:
    """Which panel shows which of `names`, for a caption; there are `across` in a row."""
    names = [labels.markdown(name) for name in names]
    if len(names) > across:
        rows = [names[start : start + across] for start in range(0, len(names), across)]
        return ". ".join(f"Row {number}, from the left: {'; '.join(row)}" for number, row in enumerate(rows, 1))
    numbered = [f"Panel {number}" for number in range(1, across + 1)]
    places = {1: ["Shown"], 2: ["Left", "right"], 3: ["Left", "middle", "right"]}.get(across, numbered)
    return "; ".join(f"{place}: {name}" for place, name in zip(places, names, strict=True))
