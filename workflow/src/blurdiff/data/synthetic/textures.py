"""Surfaces of the synthetic scenes: patterns that repeat, coloured anew for each picture.

A pattern is a tile of TILE x TILE numbers, made once a process: which of four colours, times SHADES, plus a shade. A
sheet (an image of a surface) is a part of a tile with a palette of 4 x SHADES colours. Colours are three numbers 0..1
as on a screen.
"""

import colorsys
import math
import random
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

Colour = tuple[float, float, float]

TILE, SHADES = 256, 64
_DEVIATIONS = ((np.arange(SHADES) - SHADES / 2) / 12)[:, None]  # the shades in standard deviations


class Material(NamedTuple):
    """A pattern, up to four colours, the length of a tile in metres, and how much its brightness varies."""

    pattern: str
    colours: list[Colour]
    tile: float = 4.0
    contrast: float = 0.08


def colour(rng: random.Random, *ranges: tuple[float, float] | float) -> Colour:
    """A colour whose hue (in turns), saturation and value (0..1) are numbers or drawn from ranges."""
    hue, saturation, value = (rng.uniform(*part) if isinstance(part, tuple) else part for part in ranges)
    return colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def darker(tone: Colour, factor: float) -> Colour:
    """A colour times a factor."""
    return tone[0] * factor, tone[1] * factor, tone[2] * factor


def ink(tone: Colour) -> tuple[int, int, int]:
    """A colour as Pillow takes it, 0..255."""
    red, green, blue = (min(int(part * 255), 255) for part in tone)
    return red, green, blue


def linear(tone: Colour) -> np.ndarray:
    """A colour as linear light, float32 (3,)."""
    return np.array(tone, np.float32) ** np.float32(2.2)


def palette(rng: random.Random, n: int) -> list[Colour]:
    """n colours that go together: neighbouring hues or one opposite, from pale to deep."""
    hue = rng.random() if rng.random() < 0.5 else rng.gauss(0.06, 0.06)  # half of them reds, browns and yellows
    spread, saturation = 0.5 * rng.random() ** 2, 0.1 + 0.7 * rng.random()
    light, depth = rng.uniform(0.75, 1), rng.uniform(0.2, 0.7)
    hues = [hue + spread * rng.uniform(-0.5, 0.5) + 0.5 * (rng.random() < 0.15) for _ in range(n)]
    values = [light - depth * (k / (n - 1) if n > 1 else rng.random()) for k in range(n)]
    colours = [colour(rng, h, (0.2 * saturation, 1.1 * saturation), v) for h, v in zip(hues, values, strict=True)]
    return rng.sample(colours, n)


def textile(rng: random.Random, calm: float = 0.35) -> Material:
    """A woven or printed cloth, most often with a pale ground; `calm` is the probability of one plain colour."""
    calm, pale, contrast = rng.random() < calm, rng.random() < 0.7, rng.uniform(0.05, 0.13)
    ground = colour(rng, (0.02, 0.17) if rng.random() < 0.6 else (0, 1), (0, 0.2), (0.8, 1))
    if calm:
        return Material("plain", [ground] if pale else palette(rng, 1), rng.uniform(2, 6), 0.6 * contrast)
    kind, colours = rng.choice(["stripes", "check", "zigzag", "flowers", "patches"]), palette(rng, 4)
    return Material(kind, [ground, *colours[1:]] if pale else colours, rng.uniform(1, 4), contrast)


@cache
def noise_tile(exponent: float, lowest: int = 1) -> np.ndarray:
    """A periodic noise field, float32 (TILE, TILE), mean 0, variance 1; always the same.

    Its power spectrum is 1/f^exponent from `lowest` cycles a tile upwards. Photographs have exponents near 2; 3 and
    more look like clouds; 0 is white.
    """
    rng = np.random.default_rng(int(exponent * 1000) + lowest)
    f = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]) * TILE
    f[f < lowest] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE, TILE))) * (f + 1e-9) ** (-exponent / 2))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def noise(rng: random.Random, exponent: float = 2.0, lowest: int = 1) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A noise tile at a random place, as a function of (x, y) in tiles, within ±64; mean 0 and variance 1."""
    tile, dx, dy = noise_tile(exponent, lowest).ravel(), rng.random() + 64, rng.random() + 64

    def sample(x, y):
        row, column = (((place + shift) * TILE).astype(np.int32) & (TILE - 1) for place, shift in ((y, dy), (x, dx)))
        return tile.take(row * TILE + column)

    return sample


def _cells(x: np.ndarray, n: int, shift=0.0) -> tuple[np.ndarray, np.ndarray]:
    """The number of the cell, of n in a tile, that x in 0..1 lies in, and the position in it, 0..1."""
    index = np.floor(x * n + shift).astype(int)
    return index % n, x * n + shift - index


def _scatter(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """A random number for each cell (i, j): normal, mean 0, variance 1."""
    return noise_tile(0).ravel().take((i * 73 + j * 8713) & 0xFFFF)


@cache
def patterns() -> dict[str, np.ndarray]:
    """The tiles, colour * SHADES + shade, uint8 (TILE, TILE); the middle shade is the colour itself."""
    y, x = np.mgrid[:TILE, :TILE] / TILE
    none, smooth = 0 * x, noise_tile(2)
    (i, u), (j, v) = _cells(x, 8), _cells(y, 8)
    flower, (course, down) = _scatter(i, j), _cells(y, 32)
    radius, angle = np.hypot(u - 0.5, v - 0.5), np.arctan2(v - 0.5, u - 0.5)
    petals = radius < 0.4 * (0.75 + 0.25 * np.cos(5 * angle + 3 * flower))
    block, along = _cells(x, 16, 0.5 * (course & 1) + 0.13 * _scatter(course, course))
    (plank, across), grain = _cells(x, 16), smooth[np.arange(TILE)[:, None] // 8, np.arange(TILE)]
    board, lengthwise = _cells(y, 2, 0.37 * plank)
    stripes = np.array([0, 0, 0, 1, 0, 0, 1, 1, 1, 2, 1, 1, 0, 0, 3, 0])
    # Which of four colours it is there, and how bright, in standard deviations.
    table = {
        "plain": (none, smooth),
        "rough": (none, 0.8 * noise_tile(1) + 0.6 * noise_tile(3, 2)),
        "planks": ((across < 0.1) | (lengthwise < 0.01), 1.1 * _scatter(plank, board) + 0.7 * grain),
        "bricks": ((down < 0.16) | (along < 0.08), 1.2 * _scatter(course, block) + 0.6 * smooth + 0.5 * noise_tile(3)),
        "courses": (none, 0.5 * _scatter(course, _cells(x, 40)[0]) + 0.6 * smooth - 2.2 * down**3 + 0.3),
        "squares": (np.where((u < 0.06) | (v < 0.06), 2, (i + j) & 1), 0.5 * flower + 0.5 * smooth),
        "stripes": (stripes[(u * 16).astype(int)], 0.5 * smooth),
        "check": (np.where(stripes[(v * 16).astype(int)] > 0, 2, stripes[(u * 16).astype(int)]), 0.5 * smooth),
        "zigzag": (_cells(y + np.abs(u - 0.5) / 8, 16)[0] & 1, 0.5 * smooth),
        "flowers": (np.where(petals, np.where(flower > 0, 1, 2), 3 * (noise_tile(3, 12) > 0.9)), 0.5 * smooth),
        "patches": ((np.abs(_scatter(j, i) * 5) + ((flower > 0) & (u + v > 1))).astype(int) % 4, 0.5 * smooth),
    }
    shades = {name: np.clip(SHADES / 2 + 12 * shade, 0, SHADES - 1) for name, (_, shade) in table.items()}
    return {name: (which * SHADES + shades[name]).astype(np.uint8) for name, (which, _) in table.items()}


def sheet(rng: random.Random, material: Material, wide: float, high: float, density: float) -> Image.Image:
    """A piece of a material of wide x high metres, RGB, with about `density` pixels a metre."""
    density *= 0.5 if material.contrast < 0.05 else 1.0  # almost one colour
    step, size = TILE / material.tile / density, [max(2, math.ceil(s * density)) for s in (high, wide)]
    row, column = ((rng.randrange(TILE) + np.arange(n) * step).astype(int) & (TILE - 1) for n in size)
    table = np.empty((4, SHADES, 4), np.uint8)
    colours = np.array((list(material.colours) * 4)[:4])[:, None]
    table[..., :3] = (colours * (255 + 255 * material.contrast * _DEVIATIONS)).clip(0, 255)
    pixels = table.view(np.uint32).ravel().take(patterns()[material.pattern][row].take(column, axis=1))
    return Image.frombytes("RGB", (size[1], size[0]), pixels.tobytes(), "raw", "RGBX")


def landscape(rng: random.Random) -> Image.Image:
    """A view from a window or a picture of one: sky, hills, something near; RGB, 32 x 24."""
    sky, (far, near) = colour(rng, (0.5, 0.65), (0.1, 0.6), (0.8, 1)), palette(rng, 2)
    y, x = np.arange(24, dtype=np.float32)[:, None, None] / 24, np.arange(32, dtype=np.float32)[:, None] / 24
    masses, detail = noise(rng, 3.0, 2)(x / 2, y / 2), 1 + 0.25 * noise(rng)(x, y)
    picture = np.where(y < rng.uniform(0.3, 0.75) + 0.06 * masses, np.array(sky) * (1.05 - 0.3 * y), detail * far)
    picture = np.where(masses + 3 * (y - 0.65) > 1, detail * near, picture)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
