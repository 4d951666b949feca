"""Reverse processes that move: states x_i above predictions x̂_0, from noise to image, as an animated WebP."""

import io
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from blurdiff.errors import UserError
from blurdiff.reporting import labels, mosaic
from blurdiff.reporting.inputs import Strips
from blurdiff.reporting.strips import DISPLAY_NOTE, PREDICTION, STATE, check_alike, model_range, rows_of, start_note
from blurdiff.reporting.style import GREY, style
from blurdiff.runtime.files import atomic_path

DPI = 110  # an animation is looked at on a screen, pixel by pixel
WIDTH, SIDE = 800, 160  # pixels: images are enlarged by a whole factor, to SIDE at most, and to WIDTH all together
ROWS = (f"state {STATE}", f"guess {PREDICTION}")
BAR = (0, 114, 178)  # colour of the bar that shows how far the way is
FIRST, LAST, PASSING = 800, 2500, 4000  # milliseconds: for the noise, for the samples, and for all frames between
MAX_BYTES = 1_000_000
QUALITIES = (85, 70, 55, 40, 25, 10)  # of WebP: the first with which MAX_BYTES suffice


class Animation(NamedTuple):
    """Frames, uint8 (K, H, W, 3), and how long each is shown, in milliseconds."""

    frames: np.ndarray
    durations: list[int]


def reverse_processes(runs: Sequence[Mapping], strips: Sequence[Strips], n_images: int = 1) -> tuple[Animation, str]:
    """Figure 1 that moves, with a column for every run and every snapshot of the strips as a frame; and its caption.

    At most `n_images` samples are shown. Raises UserError when the runs differ in range or number of snapshots.
    """
    low, high = model_range(runs)
    check_alike(strips)
    count = min(n_images, *(strip.x.shape[1] for strip in strips))
    blocks = [rows_of(strip, count, low, high) for strip in strips]
    same = all(np.array_equal(strip.timesteps, strips[0].timesteps) for strip in strips)
    heads = [name.replace(", ", "\n") for name in labels.run_labels(runs)]
    data = [labels.data_label(run) for run in runs]
    moving = animate(blocks, strips[0].timesteps if same else None, heads, data)
    caption = (
        f"Reverse processes side by side, from noise to sample, on {labels.data_note(runs)}. Upper row: the state x_i"
        f" at timestep i; lower row: the image x̂_0 that the network guesses from it.{start_note(runs, strips)}"
        f" Shown are {len(strips[0].timesteps)} states of each run, of"
        f" {labels.either(labels.n_steps(run) + 1 for run in runs)} in all, most of them late."
        f" {DISPLAY_NOTE} x̂_0 is clipped to the image range."
        f" {labels.training_note(runs)}; {labels.sampling_note(runs)}." + mosaic.note(runs[0]["resolution"])
    )
    return moving, caption


def animate(
    blocks: Sequence[np.ndarray],
    timesteps: np.ndarray | None = None,
    heads: Sequence[str] = (),
    data: Sequence[str] = (),
) -> Animation:
    """Columns side by side, a frame for every state.

    `blocks`: uint8 (rows, K, R, R, 3) per column, rows of x_i and x̂_0 in turn; `timesteps`: int (K,), shown below;
    `heads`: the lines above each column; `data`: what each column's data set is called.
    """
    rows, K, R = blocks[0].shape[:3]
    factor = max(1, min(SIDE, WIDTH // len(blocks)) // R)
    gap, margin, line, left = 4, 6, round(0.15 * DPI), round(0.3 * DPI)
    cell = R * factor + gap
    n_lines = max((head.count("\n") + 1 for head in heads), default=0)
    top = margin + line * (n_lines + bool(data))
    right, bottom = left + len(blocks) * cell - gap, top + rows * cell - gap
    figure = mosaic.blank(right + margin, bottom + 2 * line, DPI)
    for number, head in enumerate(heads):
        size = mosaic.font_size(max(head.split("\n"), key=len), cell - gap, DPI)
        where = (left + number * cell, margin + line * n_lines)
        mosaic.put_text(figure, head, *where, va="bottom", fontweight="bold", fontsize=size)
    for number, label in enumerate(data):
        if number == 0 or label != data[number - 1]:
            x = left + number * cell
            size = mosaic.font_size(label, right - x, DPI, 7)
            mosaic.put_text(figure, label, x, top - line / 2, fontsize=size, color=GREY)
    for row in range(rows):
        y = top + row * cell + (cell - gap) / 2
        mosaic.put_text(figure, ROWS[row % 2], left - gap, y, ha="right", rotation=90, parse_math=True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)  # what stays, drawn once
    y, bar = bottom + line, right - left - round(0.6 * DPI)
    mosaic.put_text(figure, "", right, y, ha="right")
    frames = []
    for k in range(K):
        if timesteps is not None:
            figure.texts[-1].set_text(f"i = {timesteps[k]}")
            canvas.restore_region(background)
            figure.draw_artist(figure.texts[-1])
        frame = np.array(canvas.buffer_rgba())[..., :3]
        sheet = mosaic.mosaic(np.stack([block[:, k] for block in blocks], axis=1), factor, gap)
        frame[top : top + sheet.shape[0], left : left + sheet.shape[1]] = sheet
        frame[y - 2 : y + 2, left : left + bar] = 225
        frame[y - 2 : y + 2, left : left + round(bar * k / max(1, K - 1))] = BAR
        frames.append(frame)
    between = [max(40, min(250, PASSING // K))] * (K - 2)
    return Animation(np.stack(frames), [FIRST, *between, LAST][-K:])


def save_way(way: Mapping[str, np.ndarray], settings: Mapping, path: str | os.PathLike) -> None:
    """Write an animation of one model, with a column for each image of a Trajectory's arrays."""
    low, high = model_range([settings])
    strip = Strips(way["strip_timesteps"], way["strip_x"], way["strip_x0"])
    rows = rows_of(strip, strip.x.shape[1], low, high)
    with style():
        save(animate([rows[k : k + 2] for k in range(0, len(rows), 2)], strip.timesteps), path)


def save(animation: Animation, path: str | os.PathLike) -> None:
    """Write an animated WebP of at most MAX_BYTES that repeats for ever; equal animations give equal bytes.

    Raises UserError when even the lowest of QUALITIES makes it larger.
    """
    first, *others = (Image.fromarray(frame) for frame in animation.frames)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        first.save(
            buffer, "WEBP", save_all=True, append_images=others, duration=animation.durations, loop=0, quality=quality
        )
        if buffer.tell() <= MAX_BYTES:
            with atomic_path(path) as temporary:
                temporary.write_bytes(buffer.getvalue())
            return
    raise UserError(f"{path}: would be larger than {MAX_BYTES:,} bytes; show fewer runs, images or snapshots")
