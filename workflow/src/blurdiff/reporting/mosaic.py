"""Sheets of small images, laid out in whole pixels, alike in PNG and PDF.

Images are upscaled by a whole factor, so that every pixel is a sharp square, or smoothly where a person would see
squares and no picture (up to 32 pixels; `note` says so in captions). They are composed into one array, and placed on a
figure whose pixels are the array's; positions and sizes below are in those pixels, from the top left corner.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from blurdiff.reporting.style import DPI, INK, wrapped

SMOOTH_UP_TO = 32  # pixels
SMALLEST = 5.5  # points: headings that need smaller ones have more lines
LINE = 1.2  # of the font size


def fit(columns: int, resolution: int, inches: float, least: int = 1) -> tuple[int, int]:
    """The upscaling factor and the dots per inch (≥ DPI) with which `columns` images fill at most `inches`.

    Fewer than `least` columns leave a part of them empty: their images are as large as those of so many.
    """
    source = max(columns, least) * resolution
    factor = max(1, math.ceil(DPI * inches / source))
    return factor, math.ceil(source * factor / inches)


def mosaic(images: np.ndarray, factor: int, gap: int) -> np.ndarray:
    """Compose uint8 (rows, columns, R, R, 3) into one uint8 (H, W, 3), upscaled, with white gaps between images."""
    rows, columns, height, width, channels = images.shape
    if height <= SMOOTH_UP_TO:
        large = np.stack([enlarged(image, factor) for row in images for image in row])
        large = large.reshape(rows, columns, height * factor, width * factor, channels)
    else:
        large = images.repeat(factor, axis=2).repeat(factor, axis=3)
    padded = np.full((rows, columns, height * factor + gap, width * factor + gap, channels), 255, np.uint8)
    padded[:, :, : height * factor, : width * factor] = large
    sheet = padded.transpose(0, 2, 1, 3, 4).reshape(rows * padded.shape[2], columns * padded.shape[3], channels)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """An image, uint8 (H, W, 3), smoothly `factor` times as large."""
    height, width, _ = image.shape
    return np.asarray(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.LANCZOS))


def note(resolution: int) -> str:
    """For captions: how images of R×R pixels are enlarged, where that is not by sharp squares."""
    return f" Enlarged smoothly from {resolution}×{resolution} pixels." if resolution <= SMOOTH_UP_TO else ""


def blank(width: int, height: int, dpi: int) -> Figure:
    """An empty figure of the given size in pixels."""
    return Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")


def put_image(figure: Figure, array: np.ndarray, left: int, top: int) -> None:
    """Place a uint8 (H, W, 3) array with its top left corner at (left, top), one array pixel a figure pixel."""
    width, height = size(figure)
    box = (left / width, 1 - (top + array.shape[0]) / height, array.shape[1] / width, array.shape[0] / height)
    axes = figure.add_axes(box)
    axes.imshow(array, interpolation="none", aspect="auto")
    axes.set_axis_off()


def put_text(figure: Figure, text: str, x: float, y: float, **style: object) -> None:
    """Write `text` at (x, y); left-aligned and vertically centred unless `style` (matplotlib's Text) says otherwise.

    Of several lines that are centred, the first is. Dollar signs are no formulas, unless `style` has `parse_math`:
    labels are the user's.
    """
    width, height = size(figure)
    usual: dict[str, Any] = {"va": "center", "ha": "left", "color": INK, "fontsize": 8, "parse_math": False}
    usual |= style
    if usual["va"] == "center":
        y += extra_lines([text], usual["fontsize"], figure.dpi) / 2
    figure.text(x / width, 1 - y / height, text, **usual)


def extra_lines(texts: Sequence[str], points: float, dpi: float) -> int:
    """How many pixels `texts` are higher than one line."""
    return round(max(text.count("\n") for text in texts) * LINE * points / 72 * dpi)


def headings(names: Sequence[str], widths: Sequence[int], dpi: int, largest: float = 8) -> tuple[float, list[str]]:
    """A font size in points for all `names`, at most `largest`, and the lines in which each stays, bold, within its
    width in pixels."""
    sizes = [font_size(name, width, dpi, largest) for name, width in zip(names, widths, strict=True)]
    points = max(SMALLEST, min(sizes))
    return points, [wrapped(name, width / dpi, points, "bold") for name, width in zip(names, widths, strict=True)]


def font_size(text: str, width: int, dpi: int, largest: float = 8) -> float:
    """The font size in points, at most `largest`, with which bold `text` stays within `width` pixels."""
    # A bold DejaVu Sans character is about 0.68 em wide.
    return min(largest, width / dpi * 72 / (0.68 * len(text)))


def size(figure: Figure) -> tuple[int, int]:
    """Width and height of a figure in pixels."""
    return round(figure.bbox.width), round(figure.bbox.height)


def to_pixels(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map [low, high] to 0…255, clipped and rounded."""
    return np.rint(np.clip((x - low) / (high - low), 0, 1) * 255).astype(np.uint8)
