"""Surfaces of the synthetic scenes: paints (see `render`), each made once a picture from a random generator.

A paint maps positions (x, y) in metres to colours (3, n). Colours are given as `colour(hue, saturation, value)`, the
way one picks them on a screen, and become linear light. All surfaces carry noise with the spectrum of photographs.
"""

import colorsys
import math
import random
from collections.abc import Sequence

import numpy as np

from blurdiff.data.synthetic.render import Paint, noise, noise_tile, smooth_noise

Colour = np.ndarray  # float32 (3, 1), linear light

_hash = noise_tile(0).ravel()


def colour(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue in turns, saturation and value in 0..1 (clamped)."""
    rgb = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return np.array([[plane**2.2] for plane in rgb], np.float32)


def blend(a: Colour, b: Colour, t: np.ndarray) -> np.ndarray:
    """a where t is 0, b where it is 1."""
    return a + (b - a) * t


def cells(x: np.ndarray, size: float, shift: float | np.ndarray = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The number of the cell of `size` that x lies in, and the position in it, 0..1."""
    x = x * np.float32(1 / size) + (shift + np.float32(1024))
    index = x.astype(np.int32)
    return index, x - index


def scatter(i: np.ndarray, j: np.ndarray, salt: int) -> np.ndarray:
    """A random number for each cell (i, j): normal, mean 0, variance 1."""
    return _hash.take((i * 73 + j * 8713 + salt * 1321) & 0xFFFF)


def with_noise(paint: Paint, rng: random.Random, amount: float, scale: float) -> Paint:
    """A paint whose brightness varies by `amount` with 1/f² noise of `scale` cells a metre."""
    field, amount = noise(rng, scale), np.float32(amount)
    return lambda x, y: paint(x, y) * np.maximum(1 + amount * field(x, y), 0.1)


def plain(rng: random.Random, base: Colour, amount: float = 0.06, scale: float = 60) -> Paint:
    """One colour with noise."""
    field, amount = noise(rng, scale), np.float32(amount)
    return lambda x, y: base * np.maximum(1 + amount * field(x, y), 0.1)


def palette(rng: random.Random, n: int) -> list[Colour]:
    """n colours that go together: neighbouring hues or one opposite, from pale to deep."""
    hue = rng.random() if rng.random() < 0.5 else rng.gauss(0.06, 0.06)  # half of them reds, browns and yellows
    spread, saturation = 0.5 * rng.random() ** 2, 0.1 + 0.7 * rng.random()
    light, depth = rng.uniform(0.75, 1), rng.uniform(0.2, 0.7)
    colours = []
    for k in range(n):
        h = hue + spread * rng.uniform(-0.5, 0.5) + 0.5 * (rng.random() < 0.15)
        value = light - depth * (k / (n - 1) if n > 1 else rng.random())
        colours.append(colour(h, saturation * rng.uniform(0.2, 1.1), value))
    rng.shuffle(colours)
    return colours


def bands(table: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The colour at t in 0..1 of a (3, m) table."""
    index = (t * table.shape[1]).astype(np.int32)
    return np.stack([plane.take(index, mode="clip") for plane in table])


def stripe_table(rng: random.Random, colours: Sequence[Colour]) -> np.ndarray:
    """A (3, 64) table of bands of random width, from which stripes and tartans are woven."""
    cuts = sorted(rng.sample(range(4, 61), 2 * len(colours) - 1))
    widths = [end - start for start, end in zip([0, *cuts], [*cuts, 64], strict=True)]
    which = [k % 2 if k < 2 else rng.randrange(len(colours)) for k in range(len(widths))]
    return np.concatenate(colours, axis=1)[:, np.repeat(which, widths)]


def stripes(rng: random.Random, colours: Sequence[Colour], period: float, across: bool) -> Paint:
    """Stripes of several widths along x (or across it), repeated every `period` metres."""
    table = stripe_table(rng, colours)
    return lambda x, y: bands(table, cells(y if across else x, period)[1])


def check(rng: random.Random, colours: Sequence[Colour], period: float) -> Paint:
    """Gingham or tartan: the same stripes along x and y, woven."""
    table = stripe_table(rng, colours)
    return lambda x, y: 0.5 * (bands(table, cells(x, period)[1]) + bands(table, cells(y, period)[1]))


def chevron(rng: random.Random, colours: Sequence[Colour], period: float) -> Paint:
    """Zigzag stripes."""
    table = stripe_table(rng, colours[:2])
    return lambda x, y: bands(table, cells(y + 2 * period * np.abs(cells(x, 2 * period)[1] - 0.5), period)[1])


def dots(rng: random.Random, colours: Sequence[Colour], period: float) -> Paint:
    """Polka dots in staggered rows."""
    radius = rng.uniform(0.2, 0.4) ** 2

    def paint(x, y):
        row, v = cells(y, period)
        _, u = cells(x, period, 0.5 * (row & 1))
        return blend(colours[0], colours[1], ((u - 0.5) ** 2 + (v - 0.5) ** 2 < radius).astype(np.float32))

    return paint


def floral(rng: random.Random, colours: Sequence[Colour], period: float) -> Paint:
    """Scattered flowers of five petals, of two colours, with leaves between them."""
    petals, salt = rng.randrange(4, 8), rng.randrange(99)
    leaf = colour(rng.uniform(0.22, 0.42), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.6))
    size, leafy = rng.uniform(0.3, 0.45), rng.uniform(0.3, 1.0)
    foliage = smooth_noise(rng, 3 / period)

    def paint(x, y):
        i, u = cells(x, period)
        j, v = cells(y, period, 0.5 * (i & 1))
        one = scatter(i, j, salt)
        u, v = u - 0.5 - 0.07 * one, v - 0.5 - 0.07 * scatter(i, j, salt + 1)
        radius = np.sqrt(u * u + v * v)
        outline = size * (0.75 + 0.25 * np.cos(petals * np.arctan2(v, u) + 3 * one))
        picture = blend(colours[0], leaf, (foliage(x, y) > leafy).astype(np.float32))
        flower = np.where(one > 0.3, colours[1], colours[2 % len(colours)])
        picture = np.where(radius < outline, flower * (0.6 + 0.8 * radius / size), picture)
        return np.where(radius < 0.3 * size, colours[-1], picture)

    return paint


def damask(rng: random.Random, colours: Sequence[Colour], period: float) -> Paint:
    """A mirrored ornament of two tones, as on wallpaper and brocade."""
    field, level = smooth_noise(rng, 2.5 / period), rng.gauss(0, 0.3)

    def paint(x, y):
        row, v = cells(y, period * 1.4)
        _, u = cells(x, period, 0.5 * (row & 1))
        ornament = field(np.abs(u - 0.5) * period, v * period) > level
        return blend(colours[0], colours[1], ornament.astype(np.float32))

    return paint


def patchwork(rng: random.Random, colours: Sequence[Colour], period: float) -> Paint:
    """A quilt: squares of all the colours, some halved along the diagonal."""
    salt, table = rng.randrange(99), np.concatenate(colours, axis=1)

    def paint(x, y):
        (i, u), (j, v) = cells(x, period), cells(y, period)
        half = (scatter(i, j, salt) > 0) & (u + v > 1)
        t = scatter(i, j, salt + 1) * 0.17 + 0.5 + 0.37 * half
        return bands(table, t - np.floor(t))

    return paint


def textile(rng: random.Random, calm: float = 0.35) -> Paint:
    """A woven or printed cloth; `calm` is the probability of one plain colour."""
    colours = palette(rng, 4)
    if rng.random() < 0.7:  # a pale ground
        colours[0] = colour(
            rng.uniform(0.02, 0.17) if rng.random() < 0.6 else rng.random(), rng.uniform(0, 0.2), rng.uniform(0.8, 1)
        )
    if rng.random() < calm:
        return plain(rng, colours[0], rng.uniform(0.04, 0.12), 40)
    period = math.exp(rng.uniform(math.log(0.1), math.log(0.5)))
    kind = rng.randrange(8)
    if kind == 0:
        paint = stripes(rng, colours[:3], period, False)
    elif kind == 1:
        paint = stripes(rng, colours[:3], period, True)
    elif kind == 2:
        paint = check(rng, colours[:3], period)
    elif kind == 3:
        paint = chevron(rng, colours, period)
    elif kind == 4:
        paint = dots(rng, colours, max(period, 0.15))
    elif kind == 5:
        paint = floral(rng, colours, max(period, 0.2))
    elif kind == 6:
        paint = damask(rng, colours, max(period, 0.2))
    else:
        paint = patchwork(rng, colours, max(period, 0.2))
    return with_noise(paint, rng, rng.uniform(0.04, 0.1), 40)


def planks(rng: random.Random, base: Colour, width: float, along_y: bool = False, amount: float = 0.15) -> Paint:
    """Boards with grain and dark joints, `width` metres wide, running along x (or y)."""
    grain, salt = noise(rng, 6, 90), rng.randrange(99)

    def paint(x, y):
        x, y = (y, x) if along_y else (x, y)
        row, v = cells(y, width)
        column, u = cells(x, width * 12, 0.37 * row)
        shade = 1 + amount * scatter(row, column, salt) + 0.12 * grain(x, y)
        joint = (v < 0.08) | (u < 0.006)
        return base * (np.maximum(shade, 0.2) * (1 - 0.5 * joint))

    return paint


def masonry(rng: random.Random, base: Colour, width: float, height: float, joint: Colour, variation=0.2) -> Paint:
    """Bricks or ashlar of `width` x `height` metres in staggered courses, each of its own shade, with weathering."""
    salt, thin = rng.randrange(99), min(0.12, 0.015 / height + 0.02)
    weather, grain = smooth_noise(rng, 0.5, 0.15), noise(rng, 14)

    def paint(x, y):
        row, v = cells(y, height)
        column, u = cells(x, width * 1.0, 0.5 * (row & 1) + 0.13 * scatter(row, row, salt))
        shade = 1 + variation * scatter(row, column, salt) + 0.10 * grain(x, y) + 0.12 * weather(x, y)
        seam = (v < thin) | (u < thin * height / width)
        return np.where(seam, joint, base * np.maximum(shade, 0.2))

    return paint


def tiles(rng: random.Random, base: Colour, size: float, joint: Colour, second: Colour | None = None) -> Paint:
    """Square tiles, all of one colour or as a chess board."""
    salt, field = rng.randrange(99), noise(rng, 20)

    def paint(x, y):
        (i, u), (j, v) = cells(x, size), cells(y, size)
        shade = 1 + 0.06 * scatter(i, j, salt) + 0.06 * field(x, y)
        tile = base if second is None else blend(base, second, ((i + j) & 1).astype(np.float32))
        return np.where((u < 0.05) | (v < 0.05), joint, tile * shade)

    return paint


def rows(rng: random.Random, base: Colour, height: float, shadow: float = 0.35, variation: float = 0.1) -> Paint:
    """Overlapping rows, each darker at its lower edge: clapboards, roof tiles, slates, shutters."""
    salt, field = rng.randrange(99), noise(rng, 12)

    def paint(x, y):
        row, v = cells(y, height)
        column, _ = cells(x, height * 0.8, 0.5 * (row & 1))
        shade = 1 + variation * scatter(row, column, salt) + 0.1 * field(x, y) - shadow * (1 - v) ** 3
        return base * np.maximum(shade, 0.1)

    return paint


def landscape(rng: random.Random) -> Paint:
    """A picture to hang on a wall or a view from a window: sky, hills, something near; by position in 0..1 metres."""
    sky, far, near = colour(rng.uniform(0.5, 0.65), rng.uniform(0.1, 0.6), rng.uniform(0.7, 1)), *palette(rng, 2)
    if rng.random() < 0.6:
        far = colour(rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.6))
    line, field, detail = rng.uniform(0.25, 0.7), smooth_noise(rng, 5), noise(rng, 60)

    def paint(x, y):
        ridge = line + 0.06 * field(x, np.zeros_like(x))
        picture = np.where(y > ridge, sky * (0.8 + 0.4 * y), far * (1 + 0.3 * detail(x, y)))
        picture = np.where(field(x, y) + 3 * (0.35 - y) > 1, near * (1 + 0.4 * detail(x, y)), picture)
        return np.maximum(picture, 0.01)

    return paint


def abstract(rng: random.Random) -> Paint:
    """A print: large soft forms in the colours of a palette."""
    table, field = np.concatenate(palette(rng, 5), axis=1), smooth_noise(rng, rng.uniform(2, 8))
    return lambda x, y: bands(table, np.clip(0.5 + 0.28 * field(x, y), 0, 0.999))
