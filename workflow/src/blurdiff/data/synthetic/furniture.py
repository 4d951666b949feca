"""What stands in a synthetic bedroom: the bed, night stands with lamps, and things along the walls.

The room lies in x 0..width, y 0..height, z up to depth. The bed has its own axes: `across` from its middle line,
`along` from its head.
"""

import random
from dataclasses import dataclass, field

import numpy as np

from blurdiff.data.synthetic import textures as tx
from blurdiff.data.synthetic.render import UP, Paint, Scene, Vector, add, smooth_noise, times

WALLS = ("back", "left", "right")


@dataclass
class Room:
    """Sizes in metres, the bed's place, and what has been put where."""

    width: float
    height: float
    depth: float
    head: Vector  # middle of the bed's head end, on the floor
    across: Vector
    along: Vector
    bed: Vector  # width, length, height
    position: Vector  # of the camera
    wood: np.ndarray
    lamps: list = field(default_factory=list)  # (position, colour, radius)
    standing: list = field(default_factory=list)  # rectangles x0, x1, z0, z1 on the floor
    hanging: list = field(default_factory=list)  # (wall, s0, s1, y0, y1) on the walls

    def at(self, across: float, along: float, y: float = 0.0) -> Vector:
        """A point in the bed's axes."""
        return add(add(add(self.head, self.across, across), self.along, along), UP, y)

    def wall(self, name: str) -> tuple[Vector, Vector, Vector, float]:
        """Origin, direction, inward normal and length of a wall; places on it are `s` along the direction, and y."""
        return {
            "back": ((0.0, 0.0, self.depth), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0), self.width),
            "left": ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), self.depth),
            "right": ((self.width, 0.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), self.depth),
        }[name]


def fits(room: Room, wall: str, s0: float, s1: float, y0: float, y1: float) -> bool:
    """Whether nothing hangs there yet; notes that something does now."""
    for other, a0, a1, b0, b1 in room.hanging:
        if other == wall and s0 < a1 and a0 < s1 and y0 < b1 and b0 < y1:
            return False
    room.hanging.append((wall, s0, s1, y0, y1))
    return True


def hang(scene, room, wall, s, y, wide, high, paint, out=0.02, shape=None, shines=False) -> None:
    """A patch on a wall, `out` metres before it, its lower corner at (s, y)."""
    origin, direction, inward, _ = room.wall(wall)
    corner = add(add(add(origin, direction, s), UP, y), inward, out)
    scene.patch(corner, times(direction, wide), (0.0, high, 0.0), paint, shape, shines)


def _box(scene, room, across, along, y, size, sides, top=None, ends=None) -> None:
    """A box with its corner at (across, along, y) in the bed's axes and `size` across, along and up."""
    a, b = (times(axis, length) for length, axis in zip(size, (room.across, room.along), strict=False))
    corner = room.at(across, along, y)
    scene.box(corner, a, b, (0.0, size[2], 0.0), sides, top, ends)
    if y < 0.1:
        _stand(room, corner, add(add(corner, a), b))


def _stand(room: Room, one: Vector, other: Vector) -> None:
    (x0, x1), (z0, z1) = sorted((one[0], other[0])), sorted((one[2], other[2]))
    room.standing.append((x0, x1, z0, z1))


def _folds(rng: random.Random, paint: Paint, depth: float) -> Paint:
    """Cloth that does not lie flat: light and dark along soft ridges."""
    soft, depth = smooth_noise(rng, rng.uniform(2, 5), rng.uniform(0.7, 2)), np.float32(depth)
    return lambda x, y: paint(x, y) * np.maximum(1.04 - depth * np.abs(soft(x, y)), 0.3)


def add_bed(scene: Scene, rng: random.Random, room: Room) -> None:
    width, length, height = room.bed
    linen = tx.plain(rng, tx.colour(rng.uniform(0.05, 0.15), rng.uniform(0, 0.12), rng.uniform(0.85, 1)), 0.05, 40)
    cover = _folds(rng, tx.textile(rng, 0.3), rng.uniform(0.03, 0.13))
    fold = tx.textile(rng, 0.5) if rng.random() < 0.5 else linen
    throw = tx.textile(rng, 0.4)
    turned, edge = rng.uniform(0.4, 0.7), rng.uniform(0.75, 0.95)
    has_throw = rng.random() < 0.4
    throw_from, throw_to = length - rng.uniform(0.6, 0.9), length - rng.uniform(0.05, 0.35)

    def by_length(x, y, along):
        picture = np.where(along > turned, cover(x, y), linen(x, y))
        picture = np.where(np.abs(along - turned - 0.08) < 0.12, fold(x, y), picture)
        return np.where((along > throw_from) & (along < throw_to), throw(x, y), picture) if has_throw else picture

    def top(x, y):
        rim = np.minimum(np.minimum(x, width - x), length - y)
        return by_length(x, y, y) * np.minimum(edge + rim * 3, 1)

    def sides(x, y):
        return by_length(x, y, x) * np.minimum(0.55 + y * 1.2, 1)

    def ends(x, y):
        return cover(x, y) * np.minimum(0.55 + y * 1.2, 1)

    base = rng.choice([0.12, 0.28])
    frame = tx.planks(rng, room.wood, 0.15) if rng.random() < 0.6 else tx.textile(rng, 0.7)
    _box(scene, room, -width / 2, 0.0, 0.0, (width, length, base + 0.02), frame)
    sag = 0.04 if base > 0.2 else 0.02
    size = (width + 2 * sag, length + sag, height - base)
    _box(scene, room, -width / 2 - sag, 0.0, base, size, sides, top, ends)

    _headboard(scene, rng, room)
    if rng.random() < 0.2:
        _box(scene, room, -width / 2 - 0.05, length + 0.04, 0.0, (width + 0.1, 0.06, rng.uniform(0.5, 0.85)), frame)
    if rng.random() < 0.06:
        tall = rng.uniform(1.9, room.height - 0.1)
        for a in (-width / 2 - 0.05, width / 2):
            for b in (0.0, length):
                _box(scene, room, a, b, 0.0, (0.06, 0.06, tall), frame)
            _box(scene, room, a, 0.0, tall, (0.06, length, 0.06), frame)
        for b in (0.0, length):
            _box(scene, room, -width / 2, b, tall, (width, 0.06, 0.06), frame)

    n = 1 if width < 1.2 else 2
    for row, (size, paints) in enumerate([(0.9, [linen, fold]), (0.75, [tx.textile(rng, 0.3)]), (0.5, [throw])]):
        if row and rng.random() < 0.4:
            continue
        n_row = 1 if row == 2 else n
        paint = rng.choice(paints)
        for k in range(n_row):
            wide = size * min(width / n, 0.85)
            centre = (k - (n_row - 1) / 2) * width / n + rng.gauss(0, 0.03)
            _pillow(scene, rng, room, centre, 0.2 + 0.16 * row + rng.gauss(0, 0.02), wide, paint)


def _pillow(scene: Scene, rng: random.Random, room: Room, across, along, wide, paint: Paint) -> None:
    """A cushion that leans against what is behind it, lighter towards its upper edge."""
    tall, lean = wide * rng.uniform(0.55, 0.75), rng.uniform(0.3, 0.9)
    up = add((0.0, tall * np.cos(lean), 0.0), room.along, -tall * np.sin(lean))
    side = times(room.across, wide)
    origin = room.at(across - wide / 2, along + tall * np.sin(lean) * 0.6, room.bed[2] - 0.02)

    def swollen(x, y):
        x, y = 2 * x / wide - 1, 2 * y / tall - 1
        return paint(x, y) * np.maximum(1.0 - 0.3 * x * x * x * x - 0.22 * y * y + 0.12 * y, 0.3)

    def outline(u, v):
        u, v = 2 * u - 1, 2 * v - 1
        return u * u * (0.5 + 0.5 * u * u) + v * v * (0.45 + 0.5 * v * v) < 1 + 0.25 * u * u * v * v

    scene.patch(origin, side, up, swollen, outline)


def _headboard(scene: Scene, rng: random.Random, room: Room) -> None:
    width, _, height = room.bed
    tall, kind = height + rng.uniform(0.3, 0.9), rng.randrange(5)
    wide = width + rng.uniform(0.0, 0.25)
    if kind == 0:  # padded
        cloth = tx.textile(rng, 0.8)

        def paint(x, y):
            (_, u), (_, v) = tx.cells(x + y, 0.22), tx.cells(x - y, 0.22)
            return cloth(x, y) * (0.65 + 1.6 * np.sqrt(np.abs(u * (1 - u) * v * (1 - v))))
    else:
        paint = tx.planks(rng, room.wood, rng.uniform(0.08, 0.3), along_y=rng.random() < 0.5)
    if kind == 1:  # bars
        period = rng.uniform(0.1, 0.2)

        def shape(u, v):
            return (tx.cells(u * wide, period)[1] < 0.3) | (v > 0.92) | (np.abs(u - 0.5) > 0.48)
    elif kind == 2:  # rounded
        rise = rng.uniform(0.3, 1.2)

        def shape(u, v):
            return v < 1 - rise * (u - 0.5) ** 2
    else:
        _box(scene, room, -wide / 2, 0.0, 0.0, (wide, 0.08, tall), paint)
        return
    side = times(room.across, wide)
    scene.patch(room.at(-wide / 2, 0.06), side, (0.0, tall, 0.0), paint, shape)


def drawers(rng: random.Random, base: np.ndarray, wide: float, high: float) -> Paint:
    """The front of a piece of furniture: boards, gaps between drawers or doors, knobs."""
    wood = tx.planks(rng, base, rng.uniform(0.1, 0.4), amount=0.06)
    knob = tx.colour(0.12, 0.3, rng.choice([0.1, 0.9]))

    def paint(x, y):
        (_, u), (_, v) = tx.cells(x, wide), tx.cells(y, high)
        gap = np.minimum(np.minimum(u, 1 - u) * wide, np.minimum(v, 1 - v) * high)
        picture = wood(x, y) * (1 - 0.6 * (gap < 0.015) - 0.12 * (gap > 0.06))
        round_knob = ((u - 0.5) * wide) ** 2 + ((v - 0.6) * high) ** 2 < 0.0006
        return np.where(round_knob, knob, picture)

    return paint


def add_night_stands(scene: Scene, rng: random.Random, room: Room, on: bool) -> None:
    cloth, base = tx.palette(rng, 2)
    glow = tx.colour(rng.uniform(0.08, 0.12), rng.uniform(0.3, 0.6), 1.0)
    tall, wide = rng.uniform(0.2, 0.35), rng.uniform(0.22, 0.36)
    narrow, high, size = rng.uniform(0.4, 0.95), rng.uniform(0.16, 0.28), rng.uniform(0.4, 0.6)
    for side in (-1, 1):
        if rng.random() < 0.25:
            continue
        low = side * (room.bed[0] / 2 + 0.1 + size / 2) - size / 2
        height = room.bed[2] + rng.uniform(-0.1, 0.1)
        _box(scene, room, low, 0.02, 0.0, (size, 0.42, height), drawers(rng, room.wood, size, height / 2.01))
        if rng.random() < 0.2:
            continue
        foot = room.at(low + size / 2, 0.22, height)
        scene.billboard(
            foot, 0.06, tall, tx.plain(rng, base, 0.2), lambda u, v: np.abs(u - 0.5) < 0.25 + 0.25 * (v < 0.5)
        )
        shade = add(foot, UP, tall)
        lit = tx.plain(rng, glow * 3.0, 0.05) if on else tx.plain(rng, cloth, 0.05)
        scene.billboard(shade, wide, high, lit, lambda u, v: np.abs(u - 0.5) < 0.5 - 0.5 * (1 - narrow) * v, shines=on)
        if on:
            strength = rng.uniform(0.25, 0.7)
            room.lamps.append((add(add(shade, UP, 0.1), room.along, 0.12), tuple(glow[:, 0] * strength), 0.35))


def add_furniture(scene: Scene, rng: random.Random, room: Room) -> None:
    """Things that stand about: along the walls, at the foot of the bed, on the floor."""
    bed = room.at(-room.bed[0] / 2, 0.0), room.at(room.bed[0] / 2, room.bed[1])
    for _ in range(rng.randrange(1, 5)):
        wall, kind = rng.choice(WALLS), rng.randrange(6)
        wide, deep, high = [
            (rng.uniform(0.9, 1.8), 0.6, rng.uniform(1.9, 2.2)),  # wardrobe
            (rng.uniform(0.8, 1.5), 0.45, rng.uniform(0.7, 1.1)),  # chest of drawers
            (rng.uniform(0.6, 1.4), 0.3, rng.uniform(1.2, 2.1)),  # shelf of books
            (0.7, 0.7, 0.42),  # armchair
            (rng.uniform(0.9, 1.3), 0.55, 0.75),  # desk
            (0.35, 0.35, 0.35),  # plant
        ][kind]
        origin, direction, inward, length = room.wall(wall)
        if length - wide < 1.4:
            continue
        s = rng.uniform(0.05 if wall == "back" else 1.2, length - wide - 0.05)
        corner = add(origin, direction, s)
        a, b = times(direction, wide), times(inward, deep)
        other = add(add(corner, a), b)
        (x0, x1), (z0, z1) = sorted((corner[0], other[0])), sorted((corner[2], other[2]))
        (u0, u1), (w0, w1) = sorted((bed[0][0], bed[1][0])), sorted((bed[0][2], bed[1][2]))
        taken = [(u0, u1, w0, w1), *room.standing]
        if any(x0 < v1 and v0 < x1 and z0 < t1 and t0 < z1 for v0, v1, t0, t1 in taken) or z0 < room.position[2] + 0.8:
            continue
        if high > 1 and not fits(room, wall, s, s + wide, 0, high):
            continue
        base = room.wood if rng.random() < 0.7 else tx.palette(rng, 1)[0]
        if kind in (0, 1):
            front = drawers(
                rng, base, wide / rng.randrange(1, 4), high / (1 if kind == 0 else rng.randrange(2, 5)) * 1.001
            )
            scene.box(corner, a, b, (0.0, high, 0.0), front)
            if kind == 1:
                _on_top(scene, rng, room, wall, s, wide, high)
        elif kind == 2:
            scene.box(corner, a, b, (0.0, high, 0.0), _books(rng, base), tx.plain(rng, base))
        elif kind == 3:
            cloth = _folds(rng, tx.textile(rng, 0.5), 0.1)
            scene.box(corner, a, b, (0.0, high, 0.0), cloth)
            scene.box(corner, a, times(b, 0.25), (0.0, 2.1 * high, 0.0), cloth)
            for side in (0.0, wide - 0.14):
                arm = times(direction, 0.14)
                scene.box(add(corner, direction, side), arm, b, (0.0, 1.4 * high, 0.0), cloth)
        elif kind == 4:
            scene.box(add(corner, UP, high - 0.05), a, b, (0.0, 0.05, 0.0), tx.planks(rng, base, 0.2))
            for side in (0.0, wide - 0.05):
                leg = times(direction, 0.05)
                scene.box(add(corner, direction, side), leg, b, (0.0, high - 0.05, 0.0), tx.plain(rng, base))
        else:
            scene.box(corner, a, b, (0.0, high, 0.0), tx.plain(rng, tx.palette(rng, 1)[0]))
            _plant(scene, rng, add(add(add(corner, a, 0.5), b, 0.5), UP, high), rng.uniform(0.5, 1.1))
        _stand(room, corner, other)
    if rng.random() < 0.2:
        wide = room.bed[0] * rng.uniform(0.6, 0.95)
        _box(
            scene, room, -wide / 2, room.bed[1] + 0.15, 0.0, (wide, 0.42, 0.45), _folds(rng, tx.textile(rng, 0.5), 0.1)
        )


def _on_top(scene: Scene, rng: random.Random, room: Room, wall: str, s: float, wide: float, high: float) -> None:
    """A mirror, a screen or a vase on a chest of drawers."""
    kind = rng.randrange(4)
    if kind == 0 and fits(room, wall, s, s + wide, high, high + 1.0):
        reflected, gold = tx.abstract(rng), tx.colour(0.1, 0.6, 0.6)

        def mirror(x, y):
            rim = (x < 0.06) | (x > wide * 0.8 - 0.06) | (y < 0.06) | (y > 0.8)
            return np.where(rim, gold, 0.3 + 0.4 * reflected(x * 0.3, y * 0.3))

        hang(scene, room, wall, s + wide * 0.1, high + 0.05, wide * 0.8, 0.86, mirror, 0.04)
    elif kind == 1 and fits(room, wall, s, s + wide, high, high + 0.7):
        hang(
            scene,
            room,
            wall,
            s + wide * 0.1,
            high + 0.06,
            wide * 0.8,
            wide * 0.45,
            tx.plain(rng, tx.colour(0.6, 0.2, 0.12)),
            0.2,
        )
    elif kind == 2:
        origin, direction, inward, _ = room.wall(wall)
        foot = add(add(add(origin, direction, s + wide * rng.uniform(0.2, 0.8)), inward, 0.22), UP, high)
        _plant(scene, rng, foot, rng.uniform(0.25, 0.5))


def _plant(scene: Scene, rng: random.Random, foot: Vector, size: float) -> None:
    leaf = tx.colour(rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.6))
    clumps = smooth_noise(rng, 4, exponent=2.0)
    paint = tx.with_noise(tx.plain(rng, leaf, 0.4, 30), rng, 0.4, 12)

    def shape(u, v):
        return clumps(u, v) > 9 * ((u - 0.5) ** 2 + 0.7 * (v - 0.55) ** 2) - 1.2 + (v < 0.1)

    scene.billboard(foot, size, size * 1.2, paint, shape)


def _books(rng: random.Random, base: np.ndarray) -> Paint:
    table, salt = np.concatenate(tx.palette(rng, 4) + tx.palette(rng, 4), axis=1), rng.randrange(99)

    def paint(x, y):
        (row, v), (book, u) = tx.cells(y, 0.32), tx.cells(x, 0.05)
        t = tx.scatter(row, book, salt)
        tall = 0.72 + 0.12 * t
        spine = tx.bands(table, t * 1.7 - np.floor(t * 1.7)) * (0.5 + 2 * u * (1 - u))
        picture = np.where((v > 0.1) & (v < tall), spine, base * 0.25)
        return np.where((v < 0.1) | (v > 0.97), base, picture)

    return paint
