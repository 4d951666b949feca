"""Images as plain PNG files, with nothing but their pixels in them: a sheet, or one file for each."""

import math
import os

import numpy as np
from PIL import Image

from blurdiff.reporting.mosaic import enlarged, mosaic
from blurdiff.runtime.files import atomic_folder, atomic_path

SIDE, WIDTH = 128, 4096  # pixels: images are enlarged to SIDE by a whole factor, less where a sheet would exceed WIDTH
GAP = 4


def save_sheet(images: np.ndarray, path: str | os.PathLike) -> None:
    """A PNG of uint8 (n, R, R, 3) in about as many rows as columns, smoothly enlarged if small."""
    n, R = len(images), images.shape[1]
    columns = math.ceil(math.sqrt(n))
    factor = max(1, min(math.ceil(SIDE / R), WIDTH // (columns * R)))
    rows, side = math.ceil(n / columns), R * factor
    cells = np.full((rows * columns, side, side, 3), 255, np.uint8)  # what is left over in the last row stays white
    for cell, image in zip(cells, images, strict=False):
        cell[:] = enlarged(image, factor)
    sheet = mosaic(cells.reshape(rows, columns, side, side, 3), 1, GAP)
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, "PNG")


def save_pictures(images: np.ndarray, folder: str | os.PathLike) -> None:
    """A folder, which must not be there yet, with a PNG of each of uint8 (n, R, R, 3): 000.png, 001.png …"""
    digits = max(3, len(str(len(images) - 1)))
    with atomic_folder(folder) as temporary:
        for number, image in enumerate(images):
            Image.fromarray(image).save(temporary / f"{number:0{digits}d}.png", "PNG")
