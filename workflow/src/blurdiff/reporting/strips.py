"""Processes over time: the reverse processes side by side (Figure 1), and how any process is laid out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from blurdiff.data.images import RANGES
from blurdiff.errors import UserError
from blurdiff.reporting import labels, mosaic
from blurdiff.reporting.inputs import Strips
from blurdiff.reporting.style import GREY, TEXT_WIDTH, text_width, wrapped

LEAST = 8  # columns: with fewer, images are as large as with so many
STATE, PREDICTION = "$x_i$", r"$\hat{x}_0$"  # beside the rows; captions are plain text
DISPLAY_NOTE = (
    "Display of x_i: at each i of each run a linear map, from black to white over the image range and the 1st to 99th"
    " percentiles of the values shown, so brightness cannot be compared between panels."
)


def reverse_process(
    runs: Sequence[Mapping], strips: Sequence[Strips], n_images: int = 1, n_columns: int = 11
) -> tuple[Figure, str]:
    """Figure 1: for every run, the states x_i and the predictions x̂_0(x_i) of the same samples, from i = N to 0.

    At most `n_images` samples and `n_columns` snapshots are shown. Returns the figure and its caption.
    Raises UserError when the runs differ in range or number of snapshots.
    """
    low, high = model_range(runs)
    count = min(n_images, *(strip.x.shape[1] for strip in strips))
    chosen = []
    for strip in strips:
        pick = np.unique(np.linspace(0, len(strip.timesteps) - 1, n_columns).round().astype(int))
        chosen.append(Strips(strip.timesteps[pick], strip.x[pick], strip.x0[pick]))
    check_alike(chosen)
    blocks = [rows_of(strip, count, low, high) for strip in chosen]
    figure = draw(runs, blocks, [strip.timesteps for strip in chosen], [STATE, PREDICTION] * count)
    caption = (
        f"Reverse processes side by side, from noise (left) to sample (right), on {labels.data_note(runs)}. Upper rows:"
        f" the state x_i at timestep i; lower rows: the image x̂_0 that the network predicts from"
        f" it.{start_note(runs, chosen)} {DISPLAY_NOTE} x̂_0 is clipped to the image range."
        f" {labels.training_note(runs)}; {labels.sampling_note(runs)}." + mosaic.note(runs[0]["resolution"])
    )
    return figure, caption


def check_alike(strips: Sequence[Strips]) -> None:
    """Raise UserError unless the strips of several runs have as many snapshots each."""
    if len({len(strip.timesteps) for strip in strips}) > 1:
        raise UserError("strips: the runs have different numbers of snapshots; sample them with one n_snapshots")


def rows_of(strip: Strips, count: int, low: float, high: float) -> np.ndarray:
    """The first `count` samples of a strip as uint8 (2 count, K, R, R, 3): x_i and x̂_0 of each in turn."""
    state, prediction = display(strip.x[:, :count], low, high), mosaic.to_pixels(strip.x0[:, :count], low, high)
    return np.stack([row for k in range(count) for row in (state[:, k], prediction[:, k])])


def same_start(strips: Sequence[Strips]) -> bool:
    """Whether the strips of several runs start from one and the same state."""
    return len(strips) > 1 and all(np.allclose(strip.x[0], strips[0].x[0], atol=1e-4) for strip in strips)


def start_note(runs: Sequence[Mapping], strips: Sequence[Strips]) -> str:
    """What a caption says of the noise that several runs start from; empty where it is not the same."""
    if same_start(strips):
        return " The runs start from the same noise."
    draws = {(run["seed"], run["sampling"]["shard_size"]) for run in runs}
    if len(runs) > 1 and len(draws) == 1 and any(starts_from_prior(run) for run in runs):
        return " The runs start from the same draw of noise; those with a Gaussian prior give it its mean and spread."
    return ""


def starts_from_prior(run: Mapping) -> bool:
    """Whether a run's samples start from what the prior of its model becomes at the last timestep."""
    process = run["process"]
    has_one = process["prediction"] == "gaussian" or process["snr_tilt"] is not None
    return run["sampling"]["start"] == "prior" and (has_one or process["noise_shape"] == "data")


def model_range(runs: Sequence[Mapping]) -> tuple[float, float]:
    """The range of image values that the runs' models work in; raises UserError when they have not one and the same."""
    ranges = {run["process"]["range"] for run in runs}
    if len(ranges) > 1:
        raise UserError(f"process.range: {', '.join(sorted(ranges))} in one figure; give runs of one range")
    scale, shift = RANGES[ranges.pop()]
    return shift, 255 / scale + shift


def display(state: np.ndarray, low: float, high: float) -> np.ndarray:
    """States (K, n, R, R, 3) of a run as uint8, with one linear map per timestep.

    A state's values are noise around 0 early and an image in [low, high] late: the map covers the 1st to 99th
    percentile of what is shown, and at least the image range.
    """
    shown = np.empty(state.shape, np.uint8)
    for k, values in enumerate(state):
        bottom, top = np.percentile(values, [1, 99])
        shown[k] = mosaic.to_pixels(values, min(bottom, low), max(top, high))
    return shown


def draw(
    runs: Sequence[Mapping], blocks: Sequence[np.ndarray], timesteps: Sequence[np.ndarray], row_labels: Sequence[str]
) -> Figure:
    """One block per run: its label, its timesteps (once, where all runs have the same), its rows of images.

    `blocks`: uint8 (rows, K, R, R, 3) per run, K not always the same; `row_labels`: one per row, to its left.
    """
    data = [labels.data_label(run) for run in runs]
    told = [text if k == 0 or text != data[k - 1] else "" for k, text in enumerate(data)]
    columns, resolution = max(block.shape[1] for block in blocks), runs[0]["resolution"]
    side, apart = 0.3, 0.2
    room = TEXT_WIDTH - side - 0.2
    names, notes, taken = [], [], []
    for name, text in zip(labels.run_labels(runs), told, strict=True):
        # A label and its data set's share a line; captions have the latter in full.
        left_over = room - apart - text_width(name, weight="bold")
        notes.append(wrapped(text, max(left_over, 0.4 * room), 7, most=1))
        beside = apart + text_width(notes[-1], 7)
        names.append(wrapped(name, room - beside, weight="bold"))
        taken.append(beside + max(text_width(line, weight="bold") for line in names[-1].split("\n")))
    factor, dpi = mosaic.fit(columns, resolution, room, LEAST)
    gap, margin, line, left = round(0.015 * dpi), round(0.02 * dpi), round(0.17 * dpi), round(side * dpi)
    cell = resolution * factor + gap
    same = all(np.array_equal(steps, timesteps[0]) for steps in timesteps)
    sheets = [mosaic.mosaic(block, factor, gap) for block in blocks]
    heads = [number == 0 or not same for number in range(len(runs))]
    tops = [line + mosaic.extra_lines([name], 8, dpi) for name in names]
    heights = [
        top + line * head + sheet.shape[0] + line // 2 for top, head, sheet in zip(tops, heads, sheets, strict=True)
    ]
    right = left + max(columns * cell - gap, round(max(taken) * dpi))
    figure = mosaic.blank(right + margin, sum(heights) - line // 2 + 2 * margin, dpi)
    top = margin
    for number, sheet in enumerate(sheets):
        mosaic.put_text(figure, names[number], left, top + 0.45 * line, fontweight="bold")
        mosaic.put_text(figure, notes[number], right, top + 0.45 * line, ha="right", fontsize=7, color=GREY)
        start = top + tops[number]
        if heads[number]:
            for k, i in enumerate(timesteps[number]):
                text = f"$i$ = {i}" if k == 0 else str(i)
                mosaic.put_text(
                    figure,
                    text,
                    left + k * cell + (cell - gap) / 2,
                    start + 0.5 * line,
                    ha="center",
                    fontsize=7,
                    parse_math=k == 0,
                )
            start += line
        mosaic.put_image(figure, sheet, left, start)
        for row, text in enumerate(row_labels):
            mosaic.put_text(
                figure, text, left - 0.04 * dpi, start + row * cell + (cell - gap) / 2, ha="right", parse_math=True
            )
        top += heights[number]
    return figure
