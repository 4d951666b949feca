"""Synthetic bedrooms: a room in perspective with a bed, windows, lamps, pictures and patterned textiles.

The room lies in x 0..width, y 0..height, z up to depth; the camera stands near z = 0 (or behind it, as if that wall
had been taken out) and looks at the bed.
"""

import random

import numpy as np

from blurdiff.data.synthetic import textures as tx
from blurdiff.data.synthetic.furniture import WALLS, Room, add_bed, add_furniture, add_night_stands, drawers, fits, hang
from blurdiff.data.synthetic.render import UP, Paint, Scene, Vector, add, develop, dot, lamp, smooth_noise, times


def draw(rng: random.Random, width: int, height: int) -> np.ndarray:
    """A bedroom, uint8 (height, width, 3), drawn from `rng` alone."""
    room, target, view = _plan(rng, width / height)
    scene = Scene(width, height, room.position, target, view, rng.gauss(0, 0.012))
    night = rng.random() < 0.1
    add_bed(scene, rng, room)
    add_night_stands(scene, rng, room, on=night or rng.random() < 0.45)
    _windows(scene, rng, room, night)
    add_furniture(scene, rng, room)
    _wall_decoration(scene, rng, room)
    _shell(scene, rng, room)
    ambient = tx.colour(rng.uniform(0.05, 0.14), rng.uniform(0, 0.25), 1.0) * rng.uniform(0.12, 0.5)

    def light(point, normal):
        total = ambient * (0.8 + 0.2 * normal[1] + 0.1 * normal[0])
        for position, colour, radius in room.lamps:
            lamp(total, point, normal, position, colour, radius)
        return total

    return develop(scene.render(None, light), rng)


def _plan(rng: random.Random, aspect: float) -> tuple[Room, Vector, float]:
    """The room and the camera's target and angle of view: the bed fills a good part of the picture, off its middle."""
    width, depth, height = rng.uniform(3.0, 5.2), rng.uniform(3.4, 5.2), rng.uniform(2.3, 3.1)
    bed = (rng.choice([1.0, 1.4, 1.6, 1.8, 2.0]), rng.uniform(1.9, 2.15), rng.uniform(0.42, 0.68))
    wall = rng.choice(["back", "back", "left", "right"])
    if wall == "back":
        x = rng.uniform(bed[0] / 2 + 0.1, width - bed[0] / 2 - 0.1)
        head, across, along = (x, 0.0, depth - 0.02), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0)
    else:
        z = rng.uniform(max(1.8, depth - 2.2), depth - bed[0] / 2 - 0.1)
        head, along = (
            ((0.02, 0.0, z), (1.0, 0.0, 0.0)) if wall == "left" else ((width - 0.02, 0.0, z), (-1.0, 0.0, 0.0))
        )
        across = (0.0, 0.0, 1.0)
    middle = add(add(head, along, bed[1] / 2), UP, bed[2])
    front = middle[2] - (bed[1] if wall == "back" else bed[0]) / 2
    position = (rng.uniform(0.1, 0.9) * width, rng.uniform(1.05, 1.75), front - rng.uniform(0.6, 1.9))
    target = add(middle, (rng.gauss(0, 0.35), rng.uniform(0.0, 0.6), rng.gauss(0, 0.2)))
    wood = tx.colour(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.75), rng.choice([0.25, 0.4, 0.6, 0.8]))
    if rng.random() < 0.25:
        wood = tx.colour(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.85, 1))
    room = Room(width, height, depth, head, across, along, bed, position, wood)
    return room, target, rng.uniform(55, 80) * (0.75 + 0.25 * min(aspect, 1.6))


def _windows(scene: Scene, rng: random.Random, room: Room, night: bool) -> None:
    walls = rng.sample(WALLS, rng.randrange(1, 3))
    cloth = tx.textile(rng, 0.5)
    for wall in walls:
        length = room.wall(wall)[3]
        wide, high = rng.uniform(0.8, 2.2), rng.uniform(1.1, 1.6)
        sill = rng.uniform(0.75, 1.0) if rng.random() < 0.75 else 0.08
        high = min(high if sill > 0.5 else 2.1, room.height - sill - 0.15)
        s = rng.uniform(0.15, max(0.2, length - wide - 0.15)) if wall == "back" else rng.uniform(1.0, length - wide)
        if not fits(room, wall, s - 0.3, s + wide + 0.3, sill - 0.1, sill + high + 0.2):
            continue
        hang(scene, room, wall, s, sill, wide, high, _glass(rng, wide, high, night), 0.02, shines=True)
        origin, direction, inward, _ = room.wall(wall)
        middle = add(add(add(origin, direction, s + wide / 2), UP, sill + high / 2), inward, 0.35)
        if not night:
            day = (
                tx.colour(rng.uniform(0.5, 0.65), rng.uniform(0, 0.2), 1.0)[:, 0] * rng.uniform(1.0, 3.0) * wide * high
            )
            room.lamps.append((middle, tuple(day), 0.6))
        _curtains(scene, rng, room, wall, (s, sill, wide, high), cloth, night)


def _glass(rng: random.Random, wide: float, high: float, night: bool) -> Paint:
    """A window with its bars: the view outside, as light."""
    view, frame = tx.landscape(rng), np.float32(0.05 if night else rng.choice([0.3, 0.8]))
    columns, lines = rng.randrange(1, 5), rng.randrange(1, 4)
    bright = np.float32(rng.uniform(0.01, 0.08) if night else rng.uniform(2.0, 9.0))
    blinds = rng.random() < 0.15
    haze = np.float32(0 if night else rng.uniform(0, 0.8))

    def paint(x, y):
        picture = bright * (haze + (1 - haze) * view(x / wide, y / high))
        (_, u), (_, v) = tx.cells(x, wide / columns), tx.cells(y, high / lines)
        bar = np.minimum(np.minimum(u, 1 - u) * wide / columns, np.minimum(v, 1 - v) * high / lines) < 0.025
        if blinds:
            picture = picture * (0.35 + 0.65 * (tx.cells(y, 0.07)[1] > 0.4))
        return np.where(bar, frame, picture)

    return paint


def _curtains(scene, rng, room, wall, opening, cloth: Paint, night: bool) -> None:
    s, sill, wide, high = opening
    kind = rng.randrange(5)
    if kind == 0:
        return
    bottom = 0.03 if rng.random() < 0.7 else sill - 0.1
    top = min(sill + high + 0.15, room.height - 0.05)
    pleat, shift = rng.uniform(0.1, 0.22), smooth_noise(rng, 0.6, 0.15)

    def pleated(x, y):
        _, u = tx.cells(x + 0.06 * shift(x, y), pleat)
        return cloth(x, y) * (0.5 + 2.0 * u * (1 - u))

    if kind == 1:  # a roman blind
        hang(scene, room, wall, s - 0.05, sill + high * 0.55, wide + 0.1, high * 0.5, cloth, 0.06)
        return
    part = rng.uniform(0.2, 0.42)
    for start in (s - 0.25, s + wide + 0.25 - part):
        hang(scene, room, wall, start, bottom, part, top - bottom, pleated, 0.09)
    if rng.random() < 0.3:  # a valance
        hang(scene, room, wall, s - 0.28, top - 0.25, wide + 0.56, 0.3, pleated, 0.12)


def _wall_decoration(scene: Scene, rng: random.Random, room: Room) -> None:
    """Pictures, a door, a ceiling lamp."""
    for wall in WALLS:
        length = room.wall(wall)[3]
        n, wide = rng.randrange(0, 5), rng.uniform(0.3, 0.9)
        high, y = wide * rng.uniform(0.7, 1.4), rng.uniform(1.3, 1.6)
        if y + high > room.height - 0.15:
            continue
        start, frame = (
            rng.uniform(0.2, length),
            tx.colour(rng.random(), rng.uniform(0, 0.4), rng.choice([0.1, 0.4, 0.95])),
        )
        for k in range(n):
            s = start + k * (wide + 0.15)
            if s + wide < length - 0.1 and fits(room, wall, s, s + wide, y, y + high):
                hang(scene, room, wall, s, y, wide, high, _framed(rng, wide, high, frame), 0.03)
    wall = rng.choice(WALLS)
    length = room.wall(wall)[3]
    s = rng.uniform(0.1, length - 1.0)
    if rng.random() < 0.5 and fits(room, wall, s, s + 0.9, 0, 2.1):
        panels = drawers(rng, room.wood if rng.random() < 0.5 else tx.colour(0.1, 0.05, 0.95), 0.45, 1.05)
        hang(scene, room, wall, s, 0.0, 0.9, 2.05, panels, 0.03)
    if rng.random() < 0.4:
        size, drop = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.7)
        foot = (room.width / 2, room.height - drop, room.depth * rng.uniform(0.45, 0.7))
        on = rng.random() < 0.5
        glow = tx.plain(rng, tx.colour(0.1, 0.2, 1.0) * (2.5 if on else 0.7), 0.15, 20)
        scene.billboard(foot, size, size * 0.6, glow, lambda u, v: (2 * u - 1) ** 2 + (2 * v - 1) ** 2 < 1, shines=on)
        rod = tx.plain(rng, tx.colour(0, 0, 0.2))
        scene.billboard(add(foot, UP, size * 0.6), 0.03, max(drop - size * 0.6, 0.01), rod)
        if on:
            room.lamps.append((foot, (0.9, 0.75, 0.55), 0.4))


def _framed(rng: random.Random, wide: float, high: float, frame: np.ndarray) -> Paint:
    content = tx.landscape(rng) if rng.random() < 0.5 else tx.abstract(rng)
    rim, mat = rng.uniform(0.02, 0.05), rng.choice([0.0, 0.06, 0.1])

    def paint(x, y):
        edge = np.minimum(np.minimum(x, wide - x), np.minimum(y, high - y))
        picture = np.where(edge < rim + mat, np.float32(0.9), content(x / wide, y / high))
        return np.where(edge < rim, frame, picture)

    return paint


def _shell(scene: Scene, rng: random.Random, room: Room) -> None:
    """Walls, floor, rug and ceiling, darker towards the edges and where things stand."""
    base = tx.colour(rng.random(), abs(rng.gauss(0, 0.3)), rng.uniform(0.55, 1))
    if rng.random() < 0.55:  # whites, creams, greys
        base = tx.colour(rng.uniform(0.06, 0.17), rng.uniform(0.0, 0.25), rng.uniform(0.75, 1))
    paint = _wallpaper(rng, base)
    accent = _wallpaper(rng, tx.palette(rng, 1)[0]) if rng.random() < 0.25 else paint
    skirting, panelled = rng.uniform(0.06, 0.14), rng.random() < 0.12
    near = min(room.position[2], 0.0) - 0.5
    for wall in WALLS:
        origin, direction, inward, length = room.wall(wall)
        start = 0.0 if wall == "back" else near
        length -= start
        cover = accent if dot(inward, room.along) > 0.9 else paint

        def surface(x, y, cover=cover, length=length, two_corners=wall == "back"):
            gap = np.minimum(np.minimum(y, room.height - y), np.minimum(x, length - x) if two_corners else length - x)
            picture = np.where((y < skirting) | (panelled & (y < 1.0)), np.float32(0.8), cover(x, y))
            return picture * (1 - 0.35 / (1 + 7 * gap))

        scene.patch(add(origin, direction, start), times(direction, length), (0.0, room.height, 0.0), surface)
    _floor(scene, rng, room, near)
    ceiling = tx.plain(rng, tx.colour(0.1, rng.uniform(0, 0.1), rng.uniform(0.85, 1)), 0.03, 20)
    if rng.random() < 0.1:
        ceiling = tx.planks(rng, room.wood, 0.15, along_y=rng.random() < 0.5)
    scene.patch((0.0, room.height, near), (room.width, 0.0, 0.0), (0.0, 0.0, room.depth - near), ceiling)


def _wallpaper(rng: random.Random, base: np.ndarray) -> Paint:
    kind, pale = rng.random(), tx.blend(base, np.float32(1), np.float32(rng.uniform(0.15, 0.5)))
    if kind < 0.62:
        return tx.plain(rng, base, 0.04, 25)
    if kind < 0.72:
        return tx.with_noise(tx.stripes(rng, [base, pale, base], rng.uniform(0.15, 0.5), False), rng, 0.03, 25)
    if kind < 0.8:
        return tx.with_noise(tx.damask(rng, [base, pale], rng.uniform(0.3, 0.7)), rng, 0.03, 25)
    if kind < 0.86:
        return tx.with_noise(tx.floral(rng, [pale, base, *tx.palette(rng, 2)], rng.uniform(0.3, 0.6)), rng, 0.03, 25)
    if kind < 0.94:
        board = tx.colour(0.08, rng.uniform(0.1, 0.6), rng.uniform(0.4, 1))
        return tx.planks(rng, board, rng.uniform(0.1, 0.2), rng.random() < 0.5)
    return tx.masonry(rng, tx.colour(0.04, 0.5, rng.uniform(0.5, 0.95)), 0.24, 0.08, tx.colour(0.1, 0.1, 0.7))


def _floor(scene: Scene, rng: random.Random, room: Room, near: float) -> None:
    kind = rng.randrange(4)
    tone = tx.colour(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.7), rng.uniform(0.25, 0.85))
    if kind < 2:
        ground = tx.planks(rng, tone, rng.uniform(0.07, 0.18), along_y=rng.random() < 0.6)
    elif kind == 2:
        ground = tx.plain(rng, tx.colour(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.4, 0.9)), 0.1, 50)
    else:
        second = tx.palette(rng, 1)[0] if rng.random() < 0.3 else None
        ground = tx.tiles(rng, tone, rng.uniform(0.3, 0.5), tone * 0.6, second)

    def shaded(paint, x_start, z_start):
        def surface(x, z):
            picture, x, z = paint(x, z), x + np.float32(x_start), z + np.float32(z_start)
            shade = 1 - 0.3 / (1 + 7 * np.minimum(np.minimum(x, room.width - x), room.depth - z))
            for x0, x1, z0, z1 in room.standing[:5]:
                dx, dz = np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(z0 - z, z - z1), 0)
                shade = shade * (1 - 0.5 / (1 + 40 * (dx * dx + dz * dz)))
            return picture * shade

        return surface

    scene.patch((0.0, 0.0, near), (room.width, 0.0, 0.0), (0.0, 0.0, room.depth - near), shaded(ground, 0.0, near))
    if rng.random() < 0.55:
        cloth, rim = tx.textile(rng, 0.25), tx.palette(rng, 1)[0]
        wide, deep, border = rng.uniform(1.2, 2.6), rng.uniform(1.0, 2.2), rng.choice([0.0, 0.06, 0.12])
        middle = room.at(rng.gauss(0, 0.4), room.bed[1] * rng.uniform(0.6, 1.3))
        x0, z0 = middle[0] - wide / 2, middle[2] - deep / 2

        def rug(x, z):
            edge = np.minimum(np.minimum(x, wide - x), np.minimum(z, deep - z))
            return np.where(edge < border, rim, cloth(x, z))

        scene.patch((x0, 0.008, z0), (wide, 0.0, 0.0), (0.0, 0.0, deep), shaded(rug, x0, z0))
