"""The parts of a synthetic church: walls with openings, nave, aisles, towers and what crowns them.

The church stands at the origin with its front towards -z; the nave runs along z.
"""

import math
import random
from dataclasses import dataclass

import numpy as np

from blurdiff.data.synthetic import textures as tx
from blurdiff.data.synthetic.render import UP, Paint, Scene, Shape, Vector, add, noise


@dataclass
class Style:
    """What a church is made of; `pointed` is the radius of an arch in half widths: 1 is round, 2 Gothic."""

    name: str
    wall: Paint
    trim: np.ndarray
    roof: Paint
    cap: Paint  # of spires and domes
    glass: np.ndarray
    pointed: float
    tower: str  # front, twin, side, crossing, none
    top: str  # spire, broach, battlement, pyramid, onion, dome, saddle


@dataclass
class Opening:
    """A row of arched openings: one every `period` metres, from `sill` to where the arch springs."""

    period: float
    width: float
    sill: float
    spring: float
    kind: str = "glass"  # glass, louvre, door


def wall(rng: random.Random, style: Style, height: float, openings: list[Opening], courses: list[float] = ()) -> Paint:
    """A wall with openings in it and bands of trim at the heights `courses`; darker at its foot and under the eaves."""
    stained, slats = noise(rng, 12, exponent=1.0), rng.uniform(0.25, 0.5)
    door = tx.colour(rng.uniform(0.0, 0.1), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.45))

    def paint(x, y):
        picture = style.wall(x, y)
        picture *= (1 - 0.3 / (1 + 1.5 * y)) * (1 - 0.3 / (1 + 2.5 * np.abs(height - y)))
        for course in courses:
            picture[:, np.abs(y - course) < 0.18] = style.trim
        for opening in openings:
            _, u = tx.cells(x, opening.period)
            u = (u - 0.5) * opening.period
            half, frame = opening.width / 2, 0.12 * opening.width + 0.08
            radius = half * style.pointed
            reach = (np.abs(u) + (radius - half)) ** 2 + np.maximum(y - opening.spring, 0) ** 2
            picture[:, (reach < (radius + frame) ** 2) & (y > opening.sill - frame)] = style.trim
            hole = np.flatnonzero((reach < radius**2) & (y > opening.sill))
            picture[:, hole] = inside(opening, x[hole], y[hole], u[hole])
        return picture

    def inside(opening, x, y, u):
        if opening.kind == "louvre":
            return style.glass * 0.4 + 0.12 * (tx.cells(y, slats)[1] < 0.4)
        if opening.kind == "door":
            return door * ((0.7 + 0.5 * (tx.cells(u, 0.4)[1] > 0.15)) * (1 - 0.8 * (np.abs(u) < 0.06)))
        bar = (np.abs(u) < 0.05 * opening.width) | (tx.cells(y, max(0.8, opening.width))[1] < 0.1)
        return np.where(bar, style.trim * 0.7, style.glass * np.maximum(0.7 + 0.5 * stained(x, y), 0.1))

    return paint


def _rose(paint: Paint, style: Style, x0: float, y0: float, radius: float, spokes: int) -> Paint:
    """A wall with a round window in it, with spokes."""

    def with_rose(x, y):
        picture, u, v = paint(x, y), x - x0, y - y0
        r = np.sqrt(u * u + v * v) / radius
        picture[:, r < 1.2] = style.trim
        hole = np.flatnonzero(r < 1)
        r = r[hole]
        _, a = tx.cells(np.arctan2(v[hole], u[hole]), 2 * math.pi / spokes)
        bars = (np.abs(a - 0.5) > 0.5 - 0.06 / np.maximum(r, 0.1)) | (np.abs(r - 0.45) < 0.07)
        picture[:, hole] = np.where(bars, style.trim * 0.8, style.glass * (0.7 + 0.6 * (a > 0.5)))
        return picture

    return with_rose


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The shape of a gable, and of a pyramid's face: its base at v = 0, its tip at v = 1."""
    return np.abs(2 * u - 1) < 1 - v


def _gable(eaves: float, rise: float, curved: bool = False) -> tuple[float, Shape]:
    """Height and outline of a wall that rises above its eaves: to a point, or in the curves of the south."""
    height = eaves + rise

    def outline(u, v):
        u = np.abs(2 * u - 1)
        top = np.where(u < 0.45, 0.65 + 0.35 * np.sqrt(np.maximum(1 - u * u / 0.2025, 0)), 0.3) if curved else 1 - u
        return v * height < eaves + rise * top

    return height, outline


def add_nave(scene: Scene, rng: random.Random, style: Style, wide: float, long: float, high: float) -> None:
    """Add the nave, up to `high` at its eaves, and perhaps aisles, buttresses, a transept, an apse."""
    half, rise = wide / 2, wide * (rng.uniform(0.45, 0.8) if style.pointed > 1.3 else rng.uniform(0.25, 0.5))
    bays = max(3, round(long / rng.uniform(3.2, 5.0)))
    bay = long / bays
    slender = rng.uniform(0.28, 0.45) * bay
    window = Opening(bay, slender, high * rng.uniform(0.2, 0.35), high * rng.uniform(0.6, 0.75))
    sides = wall(rng, style, high, [window], [high * 0.97] + ([high * 0.15] if rng.random() < 0.5 else []))
    for x in (-half, half):
        scene.patch((x, 0.0, 0.0), (0.0, 0.0, long), (0.0, high, 0.0), sides)

    openings = [Opening(wide, wide * rng.uniform(0.18, 0.3), 0.0, high * rng.uniform(0.22, 0.35), "door")]
    if rng.random() < 0.6:
        openings.append(Opening(wide / 3, wide * 0.1, high * 0.45, high * 0.72))
    courses = [high * 0.4, high * 0.95] if rng.random() < 0.6 else [high * 0.95]
    front = wall(rng, style, high + rise, openings, courses)
    if rng.random() < 0.6:
        front = _rose(front, style, half, high * 0.98, wide * rng.uniform(0.09, 0.17), rng.randrange(6, 15))
    height, outline = _gable(high, rise, style.name in ("southern", "baroque") and rng.random() < 0.7)
    for z, paint in ((0.0, front), (long, sides)):
        scene.patch((-half, 0.0, z), (wide, 0.0, 0.0), (0.0, height, 0.0), paint, outline)
    over = 1.06  # the roof reaches beyond the walls
    for sign in (-1, 1):
        eave = (sign * half * over, high + rise * (1 - over), 0.05)
        scene.patch(eave, (0.0, 0.0, long - 0.1), (-sign * half * over, rise * over, 0.0), style.roof)

    outer, low = half, high * 0.8
    if style.name in ("gothic", "romanesque", "brick", "parish") and rng.random() < 0.65:
        outer, low = half + wide * rng.uniform(0.25, 0.4), high * rng.uniform(0.45, 0.6)
        _aisles(scene, rng, style, half, outer, long, low, Opening(bay, slender, low * 0.25, low * 0.6))
    if style.name in ("gothic", "brick", "parish") and rng.random() < 0.7:
        buttress, up = wall(rng, style, low, [], [low * 0.6]), (0.0, low * 0.85, 0.0)
        for z in (k * bay - 0.25 for k in range(1, bays)):
            for x in (-outer - 0.9, outer):
                scene.box((x, 0.0, z), (0.9, 0.0, 0.0), (0.0, 0.0, 0.5), up, buttress)
    if rng.random() < 0.3:
        _transept(scene, rng, style, half, high * 0.95, rise * 0.8, long * rng.uniform(0.5, 0.7))
    if rng.random() < 0.4:
        apse = wall(rng, style, high * 0.8, [Opening(wide, 1.2, 2.0, high * 0.5)])
        _prism(scene, (0.0, 0.0, long), half * 0.8, 8, high * 0.8, apse)
        _pyramid(scene, (0.0, high * 0.8, long), half * 0.85, 8, rise * 0.9, style.roof)


def _aisles(scene, rng, style, inner: float, outer: float, long: float, low: float, window: Opening) -> None:
    """Lower spaces along both sides of the nave, under lean-to roofs."""
    paint, ends = wall(rng, style, low, [window], [low * 0.96]), wall(rng, style, low, [])
    for sign in (-1, 1):
        x, inwards = sign * outer, sign * (inner - outer)
        scene.patch((x, 0.0, 1.0), (0.0, 0.0, long - 2), (0.0, low, 0.0), paint)
        scene.patch((x, low, 1.0), (0.0, 0.0, long - 2), (inwards, low * 0.35, 0.0), style.roof)
        for z in (1.0, long - 1):
            scene.patch((x, 0.0, z), (inwards, 0.0, 0.0), (0.0, low, 0.0), ends)


def _transept(scene, rng, style, half: float, high: float, rise: float, z: float) -> None:
    """Two arms across the nave, from z on."""
    arm, deep = half * rng.uniform(0.6, 1.2), half * 1.6
    front = wall(rng, style, high, [Opening(deep, deep * 0.3, high * 0.25, high * 0.6)], [high * 0.98])
    plain = wall(rng, style, high, [], [high * 0.98])
    height, outline = _gable(high, rise)
    for sign in (-1, 1):
        x = sign * (half + arm)
        scene.patch((x, 0.0, z), (0.0, 0.0, deep), (0.0, height, 0.0), front, outline)
        for edge, lean in ((z, deep / 2), (z + deep, -deep / 2)):
            scene.patch((sign * half, 0.0, edge), (sign * arm, 0.0, 0.0), (0.0, high, 0.0), plain)
            scene.patch((0.0, high, edge), (x, 0.0, 0.0), (0.0, rise, lean), style.roof)


def _prism(scene: Scene, foot: Vector, radius: float, n: int, height: float, paint: Paint) -> None:
    """The upright faces of a prism over a regular polygon whose edges touch a circle of `radius`."""
    for start, edge in _polygon(foot, radius, n):
        scene.patch(start, edge, (0.0, height, 0.0), paint)


def _pyramid(scene: Scene, foot: Vector, radius: float, n: int, height: float, paint: Paint) -> None:
    """The sloping faces of a pyramid over the same polygon."""
    apex = add(foot, UP, height)
    for start, edge in _polygon(foot, radius, n):
        rise = add(apex, add(start, edge, 0.5), -1)
        scene.patch(start, edge, rise, paint, triangle)


def _polygon(centre: Vector, radius: float, n: int) -> list[tuple[Vector, Vector]]:
    outer = radius / math.cos(math.pi / n)
    angles = [2 * math.pi * (k + 0.5) / n for k in range(n)]
    corners = [add(centre, (outer * math.sin(a), 0.0, outer * math.cos(a))) for a in angles]
    return [(one, add(other, one, -1)) for one, other in zip(corners, corners[1:] + corners[:1], strict=True)]


def _dome(scene: Scene, foot: Vector, radius: float, height: float, paint: Paint, onion: bool) -> None:
    """A dome, or an onion, as its outline with the shading of a round body."""

    def profile(v):
        if onion:
            point = np.maximum(1 - (np.maximum(v - 0.35, 0) / 0.65) ** 0.8, 0) ** 1.3 + 0.02
            return np.where(v < 0.35, 0.72 + 0.8 * v, point)
        return np.sqrt(np.maximum(1 - v * v, 0)) * 0.98 + 0.02

    def shaded(x, y):
        v = y / height
        s = np.clip((x / radius - 1) / np.maximum(profile(v), 0.05), -1, 1)
        ribs = 1 - 0.25 * (tx.cells(np.arcsin(s), math.pi / 8)[1] < 0.15)
        return paint(x, y) * ((0.45 + 0.75 * np.sqrt(1 - s * s) + 0.35 * s) * ribs)

    scene.billboard(foot, 2 * radius, height, shaded, lambda u, v: np.abs(2 * u - 1) < profile(v))


def _cross(scene: Scene, rng: random.Random, foot: Vector, size: float) -> None:
    metal = tx.plain(rng, tx.colour(0.12, 0.5, rng.choice([0.1, 0.8])))
    scene.billboard(foot, size * 0.6, size, metal, lambda u, v: (np.abs(u - 0.5) < 0.12) | (np.abs(v - 0.65) < 0.07))


def add_towers(
    scene: Scene, rng: random.Random, style: Style, wide: float, long: float, high: float, tall: float
) -> list:
    """Add the towers; returns their footprints (x, z, width, depth, height)."""
    broad = wide * rng.uniform(0.32, 0.5)
    places = {
        "front": [(0.0, -broad * rng.uniform(-0.2, 0.45))],
        "twin": [(-wide / 2, broad * 0.3), (wide / 2, broad * 0.3)],
        "side": [(rng.choice([-1, 1]) * (wide / 2 + broad * 0.5), rng.uniform(0, long * 0.7))],
        "crossing": [(0.0, long * rng.uniform(0.5, 0.7))],
        "none": [],
    }[style.tower]
    if style.tower == "twin":
        broad *= 0.8
    steep = rng.uniform(0.6, 1.1) * tall if style.top == "spire" else rng.uniform(0.3, 0.5) * tall
    belfry = Opening(broad / rng.randrange(1, 3), broad * rng.uniform(0.18, 0.3), tall * 0.72, tall * 0.84, "louvre")
    rows = [belfry, Opening(broad, broad * 0.16, tall * 0.42, tall * 0.5)]
    if style.tower in ("front", "twin"):
        rows.append(Opening(broad, broad * rng.uniform(0.3, 0.5), 0.0, high * 0.3, "door"))
    paint = wall(rng, style, tall, rows, [tall * 0.36, tall * 0.67, tall * 0.97])
    if rng.random() < 0.35:
        paint = _rose(paint, style, broad / 2, tall * 0.59, broad * 0.2, 12)
    octagonal, pinnacles = rng.random() < 0.5, style.name in ("gothic", "brick", "parish") and rng.random() < 0.6
    stages = rng.randrange(1, 3) if style.name in ("clapboard", "baroque") else 0
    for x, z in places:
        corner = (x - broad / 2, 0.0, z - broad / 2)
        scene.box(corner, (broad, 0.0, 0.0), (0.0, 0.0, broad), (0.0, tall, 0.0), paint)
        centre, half = (x, tall, z), broad / 2
        for k in range(stages):
            half *= 0.72
            step = broad * 0.6
            opening = Opening(2 * half, half * 0.8, step * 0.2, step * 0.6, "louvre")
            lantern = wall(rng, style, step, [opening], [step * 0.95])
            _prism(scene, centre, half, 8 if k else 4, step, lantern)
            centre = add(centre, UP, step)
        if pinnacles:
            for dx in (-1, 1):
                for dz in (-1, 1):
                    foot = (x + dx * broad * 0.44, tall, z + dz * broad * 0.44)
                    _pyramid(scene, foot, broad * 0.07, 4, broad * 0.6, style.wall)
        _top(scene, rng, style, centre, half, steep, octagonal)
    if style.name == "orthodox" and rng.random() < 0.6:
        for dx in (-1, 1):
            for z in (long * 0.25, long * 0.85):
                foot = (dx * wide * 0.33, high, z)
                _prism(scene, foot, wide * 0.07, 8, high * 0.6, paint)
                _dome(scene, add(foot, UP, high * 0.6), wide * 0.1, wide * 0.24, style.cap, True)
    if not places:
        _cross(scene, rng, (0.0, high * 1.3, 0.0), 2.0)
    return [(x - broad / 2, z - broad / 2, broad, broad, tall) for x, z in places]


def _top(scene: Scene, rng: random.Random, style: Style, foot: Vector, half: float, steep: float, octagonal) -> None:
    """What crowns a tower whose walls end at `foot`."""
    if style.top == "battlement":
        merlon, high = half / 3, half * 0.3
        for start, edge in _polygon(foot, half * 1.02, 4):
            scene.patch(start, edge, (0.0, high, 0.0), style.wall,
                        lambda u, v: (v < 0.5) | (tx.cells(u * 2 * half, merlon)[1] < 0.55))  # fmt: skip
        return
    if style.top == "pyramid":
        high = half * rng.uniform(0.9, 1.6)
        _pyramid(scene, foot, half * 1.08, 4, high, style.cap)
    elif style.top in ("spire", "broach"):
        high = steep if style.top == "spire" else steep * 1.3
        _pyramid(scene, foot, half * 0.97, 8 if octagonal else 4, high, style.cap)
    elif style.top == "saddle":
        high = half * 1.5
        x, y, z = foot
        for side in (-half, half):
            scene.patch((x + side, y, z - half), (0.0, 0.0, 2 * half), (-side, high, 0.0), style.roof)
            scene.patch((x - half, y, z + side), (2 * half, 0.0, 0.0), (0.0, high, 0.0), style.wall, triangle)
    elif style.top == "onion":
        _prism(scene, foot, half * 0.7, 8, half * 0.8, style.wall)
        foot, high = add(foot, UP, half * 0.8), half * 2.4
        _dome(scene, foot, half * 1.05, high, style.cap, True)
    else:
        high = half * 1.1
        _dome(scene, foot, half * 0.98, high, style.cap, False)
    _cross(scene, rng, add(foot, UP, high * 0.98), half * 0.8)
