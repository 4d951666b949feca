"""Synthetic bedrooms: a room in perspective with a bed, night stands, windows, lamps, pictures, patterned textiles.

The room lies in x 0..width, y 0..height, z up to depth; the camera stands near z = 0 (or behind it, as if that wall
had been taken out) and looks at the bed, which has its own axes: `across` from its middle line, `along` from its head.
"""

import math
import random
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from blurdiff.data.synthetic import textures as tx
from blurdiff.data.synthetic.canvas import CUSHION, DISC, FINE, HANGING, PLEATS, SQUARE, UP, Canvas, Paint, X, Z, lamp
from blurdiff.data.synthetic.textures import Colour, Material, colour, darker, ink, sheet, textile

WALLS = {"back": -Z, "left": X, "right": -X}  # and the way from them into the room
PILLOW = np.sign(DISC - 0.5) * np.sqrt(np.abs(DISC - 0.5) / 2) + 0.5
HEADBOARDS = (SQUARE, SQUARE, ((0, 0), (1, 0), *((1 - t, 1 - 1.2 * (t - 0.5) ** 2) for t in np.linspace(0, 1, 9))))
# How often walls are covered with what.
PAPERS = {"plain": 66, "stripes": 12, "flowers": 8, "planks": 8, "bricks": 6}


class Room:
    """An empty room, its camera and the bed's place, drawn from `rng`; then what is put into it. Sizes in metres."""

    def __init__(self, rng: random.Random, width: int, height: int):
        size = self.width, self.height, self.depth = rng.uniform(3.0, 5.2), rng.uniform(2.3, 3.1), rng.uniform(3.4, 5.2)
        self.rng, self.size = rng, np.array(size, np.float32)
        self.bed = wide, long, high = rng.choice([1, 1.4, 1.6, 1.8, 2]), rng.uniform(1.9, 2.15), rng.uniform(0.42, 0.68)
        wall = rng.choice(["back", "back", "left", "right"])
        x = {"left": 0.02, "right": size[0] - 0.02}.get(wall, rng.uniform(wide / 2 + 0.1, size[0] - wide / 2 - 0.1))
        z = rng.uniform(max(1.8, size[2] - 2.2), size[2] - wide / 2 - 0.1) if wall != "back" else size[2] - 0.02
        self.head, self.along, self.across = np.array([x, 0.0, z]), WALLS[wall], X if wall == "back" else Z
        # The bed fills a good part of the picture, off its middle.
        middle = self.at(0, long / 2, high)
        position = rng.uniform(0.1, 0.9) * size[0], rng.uniform(1.05, 1.75), middle[2] - rng.uniform(1.5, 2.8)
        target = middle + (rng.gauss(0, 0.35), rng.uniform(0.0, 0.6), rng.gauss(0, 0.2))
        view = rng.uniform(55, 80) * (0.75 + 0.25 * min(width / height, 1.6))
        self.canvas = Canvas(width, height, position, target, view, rng.gauss(0, 0.012))
        wood = colour(rng, (0.04, 0.1), (0.2, 0.75), (0.25, 0.8))
        self.wood = colour(rng, (0, 1), (0, 0.15), (0.85, 1)) if rng.random() < 0.25 else wood
        self.lamps: list[tuple] = []  # position, linear colour, radius
        self.hanging: list[tuple] = []  # wall, s0, s1, y0, y1
        self.solids: list[tuple] = []  # low corner, high corner, function that draws it

    def at(self, across: float, along: float, y: float = 0.0) -> np.ndarray:
        """A place in the bed's axes."""
        return self.head + across * self.across + along * self.along + y * UP

    def on(self, wall: str, s: float, y: float, out: float) -> np.ndarray:
        """A place `out` metres before a wall, `s` metres from its near or left end."""
        corner = {"back": self.depth * Z, "left": 0 * X, "right": self.width * X}[wall]
        return corner + s * (X if wall == "back" else Z) + y * UP + out * WALLS[wall]

    def hang(self, wall: str, s: float, y: float, wide: float, high: float, paint, out: float = 0.03, **look) -> None:
        """Add a face on a wall, its lower corner there."""
        u = wide * (X if wall == "back" else Z)
        self.canvas.face(self.on(wall, s, y, out), u, high * UP, paint, **look)

    def fits(self, wall: str, s0: float, s1: float, y0: float, y1: float) -> bool:
        """Whether that is on the wall, and nothing hangs there yet; notes that something does now."""
        free = not any(w == wall and s0 < b and a < s1 and y0 < d and c < y1 for w, a, b, c, d in self.hanging)
        self.hanging += [(wall, s0, s1, y0, y1)] * free
        return free and s0 > 0 and s1 < (self.width if wall == "back" else self.depth) and y1 < self.height

    def stand(self, across: float, along: float, wide: float, long: float, draw) -> None:
        """Have `draw` called for what stands there in the bed's axes, `across` being its middle."""
        corners = self.at(across - wide / 2, along), self.at(across + wide / 2, along + long)
        self.solids.append((np.minimum(*corners), np.maximum(*corners), draw))

    def cloth(self, material: Material) -> Paint:
        """A material as a paint."""
        return partial(sheet, self.rng, material)

    def light(self, ambient: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Ambient light and the lamps, less in corners and where things stand on the floor; linear, (n, 3)."""
        gaps = np.concatenate([points, self.size - points], axis=1)
        shade = 1 - 0.35 / (1 + 7 * np.where(gaps < 0.02, 9, gaps).min(axis=1))  # a wall does not shade itself
        total = ambient * (0.8 + 0.2 * normals[:, 1:2] + 0.1 * normals[:, :1])
        for position, tone, radius in self.lamps:
            lamp(total, points, normals, position, tone, radius)
        floor = np.flatnonzero(points[:, 1] < 0.02)
        for low, top, _ in self.solids:
            gap = np.maximum(np.maximum(low - points[floor], points[floor] - top), 0)[:, [0, 2]]
            shade[floor] *= 1 - 0.5 / (1 + 30 * (gap * gap).sum(axis=1))
        return total * shade[:, None]


def draw(rng: random.Random, width: int, height: int) -> np.ndarray:
    """A bedroom, uint8 (height, width, 3), drawn from `rng` alone."""
    room, night = Room(rng, width, height), rng.random() < 0.1
    _shell(room, rng)
    _bed(room, rng)
    _night_stands(room, rng, lit=night or rng.random() < 0.45)
    _windows(room, rng, night)
    _pictures(room, rng)
    for _, _, add in sorted(room.solids, key=lambda solid: -solid[0][2]):  # the farthest first
        add()
    ambient = tx.linear(colour(rng, (0.05, 0.14), (0, 0.25), 1)) * rng.uniform(0.12, 0.5)
    return room.canvas.finish(partial(room.light, ambient), rng)


def _shell(room: Room, rng: random.Random) -> None:
    """Walls, floor, rug and ceiling."""
    white = colour(rng, (0.06, 0.17), (0, 0.25), (0.75, 1))  # or cream, or grey
    paper = _paper(rng, white if rng.random() < 0.55 else colour(rng, (0, 1), (0, 0.5), (0.55, 1)))
    accent = _paper(rng, tx.palette(rng, 1)[0]) if rng.random() < 0.25 else paper
    near, skirting = min(room.canvas.position[2], 0) - 0.5, rng.uniform(0.06, 0.14)
    for wall, inward in WALLS.items():
        cover = room.cloth(accent if inward is room.along else paper)
        start, length = (0.0, room.width) if wall == "back" else (near, room.depth - near)
        room.hang(wall, start, 0.0, length, room.height, cover, 0.0, relief=FINE)
        room.hang(wall, start, 0.0, length, skirting, (0.6, 0.59, 0.57), 0.0)
    tone = colour(rng, (0.04, 0.1), (0.2, 0.7), (0.25, 0.85))
    second = tx.palette(rng, 1)[0] if rng.random() < 0.3 else tone
    planks = Material("planks", [tone, darker(tone, 0.6)], rng.uniform(1.2, 2.8), 0.13)
    carpet = Material("rough", [colour(rng, (0, 1), (0, 0.3), (0.4, 0.9))], 4.0, 0.1)
    floor = rng.choice([planks, planks, carpet, Material("squares", [tone, second, darker(tone, 0.6)], 3.2)])
    for y, material in ((0.0, floor), (room.height, Material("plain", [colour(rng, 0.1, (0, 0.1), 0.95)], 4.0, 0.03))):
        corner, paint = np.array([0.0, y, near]), room.cloth(material)
        room.canvas.face(corner, room.width * X, (room.depth - near) * Z, paint, relief=FINE)
    if rng.random() < 0.55:
        u, v = rng.uniform(1.2, 2.6) * X, rng.uniform(1.0, 2.2) * Z
        corner = room.at(rng.gauss(0, 0.4), room.bed[1] * rng.uniform(0.6, 1.3), 0.008) - (u + v) / 2
        room.canvas.face(corner, u, v, room.cloth(textile(rng, 0.25)), DISC if rng.random() < 0.2 else SQUARE)


def _paper(rng: random.Random, base: Colour) -> Material:
    """What covers a wall: most often plain paint."""
    kind, white, size = rng.choices(list(PAPERS), list(PAPERS.values()))[0], rng.uniform(0.15, 0.5), rng.uniform(1.6, 4)
    if kind in ("planks", "bricks"):
        base = colour(rng, (0.03, 0.09), (0.1, 0.6), (0.4, 1))
        return Material(kind, [base, darker(base, 0.7)], size, 0.12)
    red, green, blue = (part + (1 - part) * white for part in base)
    colours = [base, (red, green, blue)]
    return Material(kind, colours if kind == "plain" else [*colours, *tx.palette(rng, 2)], size, 0.035)


def _bed(room: Room, rng: random.Random) -> None:
    """The bed: frame, headboard, mattress with its bedding, rows of pillows."""
    width, length, height = room.bed
    linen = Material("plain", [colour(rng, (0.05, 0.15), (0, 0.12), (0.85, 1))], 2.0, 0.05)
    cover, throw, pattern = textile(rng, 0.5), textile(rng, 0.4), textile(rng, 0.5)
    fold, turned = pattern if rng.random() < 0.5 else linen, rng.uniform(0.4, 0.7)
    base, tall, outline = rng.choice([0.12, 0.28]), height + rng.uniform(0.3, 0.9), rng.choice(HEADBOARDS)
    strips = [(cover, 0.0, length), (linen, 0.0, turned), (fold, turned - 0.04, turned + 0.2)]
    if rng.random() < 0.4:
        strips.append((throw, length - rng.uniform(0.6, 0.9), length - rng.uniform(0.05, 0.35)))
    boards = Material("planks", [room.wood, darker(room.wood, 0.6)], rng.uniform(1, 4))
    headboard = room.cloth(pattern if rng.random() < 0.25 else boards)

    def add_bed():
        # The bedding along the bed, the head on the left: that of the top serves for the sides as well.
        top, fine = Image.new("RGB", (round(length * 24), round(width * 24))), 24
        for material, start, stop in strips:
            strip = sheet(rng, material, stop - start, width, fine)
            top.paste(strip.resize((round((stop - start) * fine), top.height), 0), (round(start * fine), 0))
        side = top.crop((0, 0, top.width, round((height - base) * fine)))
        across, corner = room.across, room.at(-width / 2, 0)
        room.canvas.box(corner, width * across, length * room.along, base * UP, room.wood)
        board = room.at(-width / 2 - 0.08, 0.06)
        room.canvas.face(board, (width + 0.16) * across, tall * UP, headboard, outline)
        room.canvas.box(corner + base * UP, width * across, length * room.along, (height - base) * UP, side,
                        top.transpose(Image.Transpose.ROTATE_90), room.cloth(cover), HANGING)  # fmt: skip
        count = 1 if width < 1.2 else 2
        for row, (size, n, material) in enumerate([(0.9, count, linen), (0.75, count, fold), (0.5, 1, throw)]):
            wide, lean = size * min(width / count, 0.85), rng.uniform(0.3, 0.9)
            high = wide * rng.uniform(0.55, 0.75)
            for k in range(n if row == 0 or rng.random() < 0.6 else 0):  # cushions that lean against what is behind
                middle = (k - (n - 1) / 2) * width / n + rng.gauss(0, 0.03)
                origin = room.at(middle - wide / 2, 0.2 + 0.16 * row + high * math.sin(lean) * 0.6, height - 0.02)
                up = high * (math.cos(lean) * UP - math.sin(lean) * room.along)
                room.canvas.face(origin, wide * across, up, room.cloth(material), PILLOW, CUSHION)

    room.stand(0.0, 0.0, width, length, add_bed)


def _night_stands(room: Room, rng: random.Random, lit: bool) -> None:
    """A stand on each side of the bed, most often with a lamp."""
    (cloth, base), glow = tx.palette(rng, 2), colour(rng, (0.08, 0.12), (0.3, 0.6), 1)
    size, narrow, strength = rng.uniform(0.4, 0.6), rng.uniform(0.0, 0.3), rng.uniform(0.25, 0.7)
    tall, wide, high = rng.uniform(0.2, 0.35), rng.uniform(0.22, 0.36), rng.uniform(0.16, 0.28)

    def add_stand(middle: float, height: float, with_lamp: bool):
        corner, foot = room.at(middle - size / 2, 0.02), room.at(middle, 0.22, height)
        front = partial(_drawers, rng, room.wood, 1, 2)
        room.canvas.box(corner, size * room.across, 0.42 * room.along, height * UP, room.wood, None, front)
        if with_lamp:
            shade = ((0, 0), (1, 0), (1 - narrow, 1), (narrow, 1))
            room.canvas.billboard(foot, 0.06, tall, base)
            room.canvas.billboard(foot + tall * UP, wide, high, glow if lit else cloth, shade, shines=lit)

    for side in (-1, 1) if rng.random() < 0.6 else (rng.choice([-1, 1]),):
        middle, height = side * (room.bed[0] / 2 + 0.1 + size / 2), room.bed[2] + rng.uniform(-0.1, 0.1)
        with_lamp = rng.random() < 0.8
        room.stand(middle, 0.02, size, 0.42, partial(add_stand, middle, height, with_lamp))
        if lit and with_lamp:
            room.lamps.append((room.at(middle, 0.34, height + tall + 0.1), tx.linear(glow) * strength, 0.35))


def _drawers(rng: random.Random, tone: Colour, columns: int, rows: int, wide, high, density: float) -> Image.Image:
    """The front of a piece of furniture: drawers or doors with knobs."""
    image = sheet(rng, Material("planks", [tone, darker(tone, 0.8)], 3.0), wide, high, density)
    pen, width, height = ImageDraw.Draw(image), image.width / columns, image.height / rows
    for k in range(columns * rows):
        x, y = width * (k % columns), height * (k // columns)
        pen.rectangle([x, y, x + width, y + height], None, ink(darker(tone, 0.45)))
        pen.rectangle([x + width / 2, y + height * 0.4, x + width / 2 + 1, y + height * 0.4], (200, 190, 150))
    return image


def _windows(room: Room, rng: random.Random, night: bool) -> None:
    """Windows, with the light they let in, and their curtains or blinds; doors and built-in wardrobes."""
    curtain = room.cloth(textile(rng, 0.5))
    for wall in rng.sample(list(WALLS), rng.randrange(1, 3)):
        wide, sill = rng.uniform(0.8, 2.2), rng.uniform(0.75, 1.0) if rng.random() < 0.75 else 0.08
        high = min(rng.uniform(1.1, 1.6) if sill > 0.5 else 2.1, room.height - sill - 0.25)
        s = rng.uniform(0.3, room.width - wide - 0.3) if wall == "back" else rng.uniform(1.0, room.depth - wide - 0.2)
        if not room.fits(wall, s - 0.25, s + wide + 0.15, sill - 0.1, sill + high + 0.2):
            continue
        room.hang(wall, s, sill, wide, high, partial(_glass, rng, night), 0.02, shines=True)
        if not night:
            day = tx.linear(colour(rng, (0.5, 0.65), (0, 0.2), 1)) * rng.uniform(1, 3) * wide * high
            room.lamps.append((room.on(wall, s + wide / 2, sill + high / 2, 0.35), day, 0.6))
        kind, bottom, part = rng.randrange(5), 0.03 if rng.random() < 0.7 else sill - 0.1, rng.uniform(0.2, 0.42)
        if kind == 0:
            room.hang(wall, s - 0.05, sill + high * 0.55, wide + 0.1, high * 0.5, curtain, 0.06)
        for start in (s - 0.25, s + wide + 0.25 - part) if kind > 1 else ():
            room.hang(wall, start, bottom, part, sill + high + 0.15 - bottom, curtain, 0.09, relief=PLEATS)
    for wall in WALLS:
        s, tone = rng.uniform(0.1, 3.5), room.wood if rng.random() < 0.6 else colour(rng, 0.1, 0.05, 0.95)
        wide, columns, rows = rng.choice([(0.9, 1, 1), (0.9, 2, 2), (1.6, 3, 1)])
        if rng.random() < 0.4 and room.fits(wall, s, s + wide, 0.0, 2.1):
            room.hang(wall, s, 0.0, wide, 2.05, partial(_drawers, rng, tone, columns, rows))


def _glass(rng: random.Random, night: bool, wide: float, high: float, density: float) -> Image.Image:
    """A window with its bars: the view outside, as light; by day haze outshines the view."""
    bright, haze = (rng.uniform(20, 45), 0.0) if night else (rng.uniform(205, 300), rng.uniform(0.1, 0.8))
    view = bright * (haze + (1 - haze) / 255 * np.asarray(tx.landscape(rng), np.float32))
    width, height = (round(side * density) + 2 for side in (wide, high))
    image = Image.fromarray(view.clip(0, 255).astype(np.uint8)).resize((width, height))
    pen, frame = ImageDraw.Draw(image), (30 if night else rng.choice([80, 125]),) * 3
    columns, rows, thick = rng.randrange(1, 5), rng.randrange(1, 4), max(1, round(0.07 * density))
    for k in range(columns + 1):
        pen.line([k / columns * width, 0, k / columns * width, height], frame, thick)
    for k in range(rows + 1):
        pen.line([0, k / rows * height, width, k / rows * height], frame, thick)
    return image


def _pictures(room: Room, rng: random.Random) -> None:
    """Rows of pictures on the walls, and a lamp under the ceiling."""
    for wall in WALLS:
        wide, y, s = rng.uniform(0.3, 0.9), rng.uniform(1.3, 1.6), rng.uniform(0.2, room.width)
        high, frame = wide * rng.uniform(0.7, 1.4), ink(colour(rng, (0, 1), (0, 0.4), (0.1, 0.95)))
        for k in range(rng.randrange(0, 5)):
            start = s + k * (wide + 0.15)
            if room.fits(wall, start, start + wide, y, y + high):
                room.hang(wall, start, y, wide, high, partial(_picture, rng, frame))
    if rng.random() < 0.4:
        size, lit = rng.uniform(0.3, 0.7), rng.random() < 0.5
        foot = room.size * (0.5, 1, rng.uniform(0.45, 0.7)) - rng.uniform(0.4, 0.7) * UP
        room.canvas.billboard(foot + size / 2 * UP, 0.03, 0.5, (0.2, 0.2, 0.2))
        room.canvas.billboard(foot, size, size * 0.6, (0.95, 0.9, 0.8), DISC, shines=lit)
        room.lamps += [(foot, (0.9, 0.75, 0.55), 0.4)] * lit


def _picture(rng: random.Random, frame: tuple[int, int, int], wide: float, high: float, density: float) -> Image.Image:
    """A landscape or a pattern in its frame."""
    if rng.random() < 0.5:
        image = tx.landscape(rng).resize([round(side * density) + 2 for side in (wide, high)])
    else:
        image = sheet(rng, Material("patches", tx.palette(rng, 4), 3.5), wide, high, density)
    for tone, thick in (((230, 228, 222), rng.uniform(0.05, 0.1)), (frame, 0.04)):
        box = [0, 0, image.width - 1, image.height - 1]
        ImageDraw.Draw(image).rectangle(box, None, tone, max(1, round(thick * density)))
    return image
