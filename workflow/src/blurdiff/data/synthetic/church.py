"""Synthetic churches seen from outside, in the traditions of several countries, at all hours and in all weathers.

The church stands at the origin with its front towards -z; the nave runs along z, and the ground is y = 0.
"""

import math
import random
from functools import cache, partial

import numpy as np
from PIL import ImageDraw

from blurdiff.data.synthetic import churchyard as yard
from blurdiff.data.synthetic.canvas import DISC, ROUND, SQUARE, UP, WALL, Canvas, Paint, X, Z
from blurdiff.data.synthetic.textures import Material, colour, darker, ink, sheet

GABLE = ((0.0, 0.0), (1.0, 0.0), (0.5, 1.0))
# How often, walls, roofs, caps of towers, arches (radius in half widths: 1 round, 2 Gothic), towers, their tops.
TRADITIONS = {
    "gothic": (18, "ashlar", "slate", "slate ashlar copper", 2.0, "twin twin front crossing", "spire spire battlement"),
    "parish": (16, "rubble", "slate clay", "slate", 1.8, "front front side", "battlement battlement broach"),
    "clapboard": (13, "boards", "slate", "slate boards", 1.3, "front", "spire spire broach dome"),
    "brick": (14, "brick", "slate", "slate copper", 1.5, "front side twin", "spire broach pyramid battlement"),
    "orthodox": (10, "plaster", "slate copper", "gold painted copper", 1.0, "crossing crossing front", "onion"),
    "southern": (10, "plaster", "clay", "clay", 1.0, "side twin front none", "pyramid pyramid dome"),
    "romanesque": (9, "ashlar", "slate clay", "slate clay", 1.0, "crossing side twin", "pyramid"),
    "baroque": (10, "plaster", "clay", "copper", 1.0, "twin twin front", "dome onion"),
}
# Pattern, metres a tile, contrast, and the ranges of hue, saturation and value.
MATERIALS = {
    "ashlar": ("bricks", 16.0, 0.12, (0.06, 0.13), (0.05, 0.4), (0.45, 0.9)),
    "rubble": ("bricks", 9.0, 0.2, (0.06, 0.13), (0.05, 0.4), (0.45, 0.85)),
    "brick": ("bricks", 8.0, 0.13, (0.0, 0.05), (0.45, 0.7), (0.4, 0.7)),
    "plaster": ("plain", 40.0, 0.06, (0.03, 0.16), (0.02, 0.5), (0.75, 1.0)),
    "boards": ("courses", 12.0, 0.09, (0.08, 0.15), (0.0, 0.15), (0.85, 1.0)),
    "slate": ("courses", 14.0, 0.16, (0.55, 0.7), (0.05, 0.25), (0.25, 0.5)),
    "clay": ("courses", 14.0, 0.16, (0.01, 0.06), (0.4, 0.7), (0.4, 0.75)),
    "copper": ("courses", 28.0, 0.1, (0.4, 0.48), (0.2, 0.5), (0.45, 0.75)),
    "gold": ("plain", 9.0, 0.1, (0.11, 0.13), (0.65, 0.8), (0.85, 1.0)),
    "painted": ("plain", 9.0, 0.1, (0.33, 0.66), (0.6, 0.7), (0.35, 0.7)),
}
# How high a tower's crown is in towers; the half widths of domes at even steps upwards.
CROWNS = {"spire": 0.85, "broach": 0.5, "onion": 0.45, "dome": 0.2, "pyramid": 0.2, "battlement": 0.05}
DOMES = {
    "dome": [math.cos(math.asin(t / 8)) for t in range(9)],
    "onion": [0.7, 0.88, 0.99, 1.0, 0.88, 0.62, 0.35, 0.17, 0.09, 0.04, 0.0],
}


class Church:
    """A church that is being built: its tradition and materials, drawn from `rng`, and its sizes in metres."""

    def __init__(self, rng: random.Random):
        self.rng, self.wide, self.long, self.high = rng, rng.uniform(8, 14), rng.uniform(14, 32), rng.uniform(6, 12)
        self.name = rng.choices(list(TRADITIONS), [tradition[0] for tradition in TRADITIONS.values()])[0]
        _, wall, roofs, caps, arch, towers, tops = TRADITIONS[self.name]
        self.wall, self.roof = self.material(wall), self.material(rng.choice(roofs.split()))
        self.cap = self.roof if roofs == caps else self.material(rng.choice(caps.split()))
        pale = colour(rng, 0.12, (0, 0.2), (0.75, 0.97))
        self.trim = darker(self.wall.colours[0], 1.15) if wall == "ashlar" or rng.random() < 0.2 else pale
        self.glass = colour(rng, (0.55, 0.7), (0.1, 0.5), (0.1, 0.3))
        self.door = colour(rng, (0, 0.1), (0.3, 0.7), (0.15, 0.45))
        self.arch, self.tower, self.top = arch, rng.choice(towers.split()), rng.choice(tops.split())
        self.tall = {"none": 1.0, "crossing": 1.6}.get(self.tower, rng.uniform(1.4, 2.4)) * self.high
        self.total = max(self.tall * (1 + CROWNS[self.top] * (self.tower != "none")), self.high * 1.7)

    def material(self, name: str) -> Material:
        """A wall, a roof or a metal, in a colour of its range."""
        pattern, tile, contrast, *ranges = MATERIALS[name]
        tone, joint = colour(self.rng, *ranges), self.rng.uniform(0.6, 0.85)
        if name == "boards" and self.rng.random() < 0.15:
            tone = colour(self.rng, (0, 0.15), (0.2, 0.6), (0.5, 0.8))
        return Material(pattern, [tone, darker(tone, joint)], tile * self.rng.uniform(0.8, 1.25), contrast)

    def cloth(self, material: Material) -> Paint:
        """A material as a paint."""
        return cache(partial(sheet, self.rng, material))

    def masonry(self, openings: list[tuple], courses: list[float]) -> Paint:
        """A wall as a paint: with rows of openings (see _wall) in it, and bands of trim at the heights `courses`."""
        return cache(partial(self._wall, openings, courses))

    def _wall(self, openings: list[tuple], courses: list[float], wide: float, high: float, density: float):
        """Openings are (kind, n, width, sill, height where the arch springs); a rose is round about that height."""
        image = sheet(self.rng, self.wall, wide, high, density)
        pen, scale = ImageDraw.Draw(image), np.array([image.width / wide, -image.height / high])

        def polygon(points: np.ndarray, tone):
            pen.polygon(((points - (0, high)) * scale).ravel().tolist(), ink(tone))

        for y in courses:
            polygon(np.array([(0, y - 0.15), (wide, y - 0.15), (wide, y + 0.15), (0, y + 0.15)]), self.trim)
        for kind, n, width, sill, spring in openings:
            inside = self.door if kind == "door" else darker(self.glass, 0.4 if kind == "louvre" else 1)
            for half, tone in ((0.56 * width + 0.1, self.trim), (width / 2, inside)):
                outline = half * (2 * DISC - 1) if kind == "rose" else _arch(half, sill - spring, self.arch)
                for k in range(n):
                    polygon(outline + (wide * (k + 0.5) / n, spring), tone)
        return image


def _arch(half: float, sill: float, pointed: float) -> np.ndarray:
    """The outline (n, 2) of an opening around its middle, y from where the arch springs, with radius half x pointed."""
    turn = np.linspace(0, math.acos(1 - 1 / pointed), 5)
    right = half * pointed * np.stack([np.cos(turn) - 1 + 1 / pointed, np.sin(turn)], axis=1)
    return np.concatenate([[(half, sill)], right, right[::-1] * (-1, 1), [(-half, sill)]])


def draw(rng: random.Random, width: int, height: int) -> np.ndarray:
    """A church, uint8 (height, width, 3), drawn from `rng` alone."""
    church = Church(rng)
    azimuth = rng.choice([-1, 1]) * rng.uniform(0.0, 1.15) if rng.random() < 0.9 else rng.uniform(-1.5, 1.5)
    size = max(church.total, church.wide * 1.3 + 0.6 * church.long * abs(math.sin(azimuth)))
    view = rng.uniform(42, 66)
    vertical = 2 * math.atan(math.tan(math.radians(view) / 2) * height / width)
    distance = size / 2 / math.tan(min(vertical, math.radians(view)) / 2) * rng.uniform(0.75, 1.25)
    eye = 1.7 if rng.random() < 0.75 else rng.uniform(3, 0.7 * church.total)
    position = -math.sin(azimuth) * distance, eye, church.long * 0.05 - math.cos(azimuth) * distance
    target = rng.gauss(0, 0.08) * size, church.total * rng.uniform(0.38, 0.52), church.long * 0.35
    canvas = Canvas(width, height, position, np.array(target), view, rng.gauss(0, 0.012))

    # Back to front: what lies beyond the nave, the nave, what lies on the camera's side of it, and what is before it.
    solids = _towers(canvas, rng, church) + _nave(canvas, rng, church)
    solids.sort(key=lambda solid: (solid[0][2] < 0, (solid[0][0] + solid[1][0]) * position[0]))
    weather = yard.Weather(rng, azimuth, size)
    yard.add_trees(canvas, rng, weather, rng.choice([0, 1, 2, 3, 4]), behind=True)
    for _, _, add in solids:
        add()
    yard.add_trees(canvas, rng, weather, rng.choice([0, 0, 1, 2]), behind=False)
    background = yard.landscape(rng, weather, canvas, [solid[:2] for solid in solids])
    return canvas.finish(weather.light, rng, background)


def _nave(canvas: Canvas, rng: random.Random, church: Church) -> list:
    """The nave and perhaps aisles: low corners, high corners, functions that add them."""
    wide, long, high, half = church.wide, church.long, church.high, church.wide / 2
    rise, bays = wide * rng.uniform(0.45, 0.8) * (1 if church.arch > 1.3 else 0.65), round(long / rng.uniform(3.2, 5.0))
    slender, broad, low = rng.uniform(0.28, 0.45) * long / bays, wide * rng.uniform(0.25, 0.4), high * 0.52
    side = church.masonry([("glass", bays, slender, high * 0.28, high * rng.uniform(0.6, 0.75))], [high * 0.97])
    openings = [("door", 1, wide * rng.uniform(0.18, 0.3), 0.0, high * rng.uniform(0.22, 0.35))]
    openings += [("glass", 3, wide * 0.1, high * 0.45, high * 0.72)] * (rng.random() < 0.6)
    openings += [("rose", 1, wide * rng.uniform(0.18, 0.34), 0.0, high * 0.98)] * (rng.random() < 0.6)
    front, eaves = church.masonry(openings, [high * 0.95, high * 0.4][: rng.randrange(1, 3)]), high / (high + rise)
    gable = [(0, 0), (1, 0), (1, eaves), (0.5, 1), (0, eaves)]
    if church.name in ("southern", "baroque") and rng.random() < 0.7:  # in the curves of the south
        curve = [(0.5 + 0.24 * math.cos(t), 0.65 + 0.35 * math.sin(t)) for t in np.linspace(0, math.pi, 9)]
        curve = [(1.0, 0.3), (0.74, 0.4), *curve, (0.26, 0.4), (0.0, 0.3)]
        gable[2:] = [(x, eaves + (1 - eaves) * y) for x, y in curve]
    roof, nearer = church.cloth(church.roof), math.copysign(1, canvas.position[0])

    def nave():
        for sign in (-nearer, nearer):  # the roof reaches beyond the walls
            eave = sign * half * 1.06 * X + (high - 0.06 * rise) * UP
            canvas.face(eave, long * Z, 1.06 * (rise * UP - sign * half * X), roof)
        canvas.face(nearer * half * X, long * Z, high * UP, side, relief=WALL, inside=long / 2 * Z)
        canvas.face(-half * X, wide * X, (high + rise) * UP, front, gable, WALL)

    def aisle(sign: int):
        outer, end = sign * (half + broad) * X + Z, ((0, 0), (1, 0), (1, 1), (0, 0.74))
        canvas.face(outer, -sign * broad * X, 1.35 * low * UP, church.cloth(church.wall), end, WALL)
        walls = church.masonry([("glass", bays, slender, low * 0.25, low * 0.6)], [low * 0.96])
        canvas.face(outer, (long - 2) * Z, low * UP, walls, relief=WALL, inside=0 * X)
        canvas.face(outer + low * UP, (long - 2) * Z, 0.35 * low * UP - sign * broad * X, roof)

    solids = [(-half * X, half * X + (high + 0.6 * rise) * UP + long * Z, nave)]
    for sign in (-1, 1) if church.arch > 1.4 and rng.random() < 0.65 else ():
        one, other = sorted((sign * half, sign * (half + broad)))
        solids.append((one * X + Z, other * X + 1.2 * low * UP + (long - 1) * Z, partial(aisle, sign)))
    return solids


def _towers(canvas: Canvas, rng: random.Random, church: Church) -> list:
    """The towers: low corners, high corners, functions that add them."""
    wide, long, tall = church.wide, church.long, church.tall
    broad = wide * rng.uniform(0.32, 0.5) * (0.8 if church.tower == "twin" else 1)
    foot = church.high * 1.05 if church.tower == "crossing" else 0.0
    places = {
        "front": [(0.0, -broad * rng.uniform(0.25, 0.5))],
        "twin": [(-wide / 2, -broad * 0.5), (wide / 2, -broad * 0.5)],
        "side": [(rng.choice([-1, 1]) * (wide + broad) / 2, rng.uniform(broad / 2, long * 0.7))],
        "crossing": [(0.0, long * rng.uniform(0.5, 0.7))],
        "none": [],
    }[church.tower]
    body = tall - foot
    rows = [("louvre", rng.randrange(1, 3), broad * rng.uniform(0.18, 0.3), body * 0.72, body * 0.84)]
    if church.tower != "crossing":
        rows += [("glass", 1, broad * 0.16, tall * 0.42, tall * 0.5)]
        rows += [("rose", 1, broad * 0.35, 0.0, tall * 0.6)] * (rng.random() < 0.35)
    if church.tower in ("front", "twin"):
        rows += [("door", 1, broad * rng.uniform(0.3, 0.5), 0.0, church.high * 0.3)]
    walls, stages = church.masonry(rows, [body * 0.36, body * 0.67, body * 0.97]), rng.randrange(1, 3)
    stages, sides = stages * (church.name in ("clapboard", "baroque")), rng.choice([4, 8])
    crown = CROWNS[church.top] * tall * rng.uniform(0.75, 1.25)

    def tower(x: float, z: float):
        half, place = broad / 2, x * X + foot * UP + z * Z
        canvas.box(place - half * (X + Z), broad * X, broad * Z, body * UP, walls, relief=WALL)
        place = place + body * UP
        for k in range(stages):
            half, step = half * 0.72, broad * 0.6
            lantern = church.masonry([("louvre", 1, half * 0.6, step * 0.2, step * 0.6)], [step * 0.95])
            _prism(canvas, place, half, 8 if k else 4, step, lantern)
            place = place + step * UP
        _crown(canvas, church, place, half, crown, sides)

    half = broad / 2 * (X + Z)
    centres = [(x * X + z * Z, partial(tower, x, z)) for x, z in places]
    return [(centre - half + foot * UP, centre + half + tall * UP, add) for centre, add in centres]


def _prism(canvas: Canvas, foot: np.ndarray, radius: float, n: int, high: float, paint, lean=0.0, outline=SQUARE):
    """The upright faces of a prism over a regular polygon around a circle, or with a `lean` of 1, of a pyramid."""
    turns = 2 * math.pi * (np.arange(n + 1) + 0.5) / n
    corners = foot + radius / math.cos(math.pi / n) * np.stack([np.sin(turns), 0 * turns, np.cos(turns)], axis=1)
    for one, other in zip(corners, corners[1:], strict=False):
        inwards = foot - (one + other) / 2
        canvas.face(one, other - one, high * UP + lean * inwards, paint, outline, inside=foot)


def _crown(canvas: Canvas, church: Church, foot: np.ndarray, half: float, high: float, sides: int) -> None:
    """What crowns a tower whose walls end at `foot`: battlements, a dome, a pyramid of some sides; then a cross."""
    cap, top = church.cloth(church.cap), church.top
    if top == "battlement":
        teeth = [((k + dx) / 4, y) for k in range(4) for dx, y in ((0, 0.5), (0, 1), (0.55, 1), (0.55, 0.5))]
        outline = [(1, 0), (0, 0), *teeth, (1, 0.5)]
        return _prism(canvas, foot, half * 1.02, 4, half * 0.35, church.cloth(church.wall), 0.0, outline)
    if top in DOMES:
        drum, high = (half * 0.8, half * 2.4) if top == "onion" else (half * 0.2, half * 1.1)
        _prism(canvas, foot, half * 0.7, 8, drum, church.wall.colours[0])
        foot, profile = foot + drum * UP, DOMES[top]
        outline = [(0.5 + 0.5 * w, k / (len(profile) - 1)) for k, w in enumerate(profile)]
        outline += [(1 - x, y) for x, y in reversed(outline)]
        canvas.billboard(foot, 2 * half, high, cap, outline, relief=ROUND)
    else:
        _prism(canvas, foot, half * 1.04, 4 if top == "pyramid" else sides, high, cap, 1.0, GABLE)
    canvas.billboard(foot + high * UP, half * 0.12, half * 0.8, (0.5, 0.45, 0.3))
    return canvas.billboard(foot + (high + half * 0.45) * UP, half * 0.5, half * 0.12, (0.5, 0.45, 0.3))
