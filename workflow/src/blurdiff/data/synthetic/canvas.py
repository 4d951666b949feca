"""A canvas for scenes in space: flat faces, seen by one camera and lit, that Pillow draws from back to front.

Places are arrays (3,) in metres (x right, y up, z forward). A colour is three numbers 0..1 as on a screen; light is
linear, with 1 for a white surface in full light. The canvas has SUPERSAMPLING² pixels for one of the result, coded so
that FULL is 255.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from blurdiff.data.synthetic.textures import TILE, Colour, ink, noise_tile

# A function makes a sheet of (width, height) metres with so many pixels a metre.
Paint = Colour | Image.Image | Callable[[float, float, float], Image.Image]
Outline = Sequence[tuple[float, float]] | np.ndarray  # corners (n, 2)

X, UP, Z = np.eye(3)
SUPERSAMPLING, FULL, NEAR = 3, 4.0, 0.05
SHEET = 72  # a side of the largest sheet, were it a square, in pixels
SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
_TURN = np.linspace(0, 2 * math.pi, 20, endpoint=False)
DISC = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1) / 2 + 0.5
_LINEAR = (FULL * (np.arange(256) / 255) ** 2.2).astype(np.float32)
_CURVE = np.linspace(0, 3, 2048, dtype=np.float32)

# What the shape of a thing does to the light on it, on a grid (n, n) whose first row is the upper edge.
_EDGE, _DOWN = np.abs(np.linspace(-1, 1, 7)), np.linspace(0, 1, 7)[:, None]
FLAT, FINE = np.ones((6, 6)), np.ones((10, 10))
CUSHION = (1.05 - 0.35 * _EDGE**4 - 0.3 * (_EDGE**4)[:, None]) * (1 - 0.15 * _DOWN)
ROUND = (0.35 + 0.75 * np.sqrt(1 - 0.95 * _EDGE**2)) * np.linspace(0.8, 1.2, 7) + 0 * _DOWN
HANGING = 0.45 + 0.55 * np.sqrt(1 - _DOWN) + 0 * _EDGE
PLEATS = 0.8 + 0.35 * np.cos(np.arange(12) * 2.4) + np.zeros((12, 1))
WALL = np.interp(_DOWN, [0, 0.15, 0.8, 1], [0.75, 1, 1, 0.7]) + 0 * _EDGE  # darker under the eaves and at its foot


class Canvas:
    """What stands before a camera at `position` that looks at `target`: faces are added back to front, then finished.

    `width` and `height` are the pixels of the result; `view` is the horizontal angle of view in degrees, `roll` the
    camera's tilt in radians.
    """

    def __init__(self, width: int, height: int, position, target, view: float, roll: float = 0.0):
        self.size, self.position = (width * SUPERSAMPLING, height * SUPERSAMPLING), np.array(position)
        forward = (target - self.position) / np.linalg.norm(target - self.position)
        level = np.cross(UP, forward) / np.linalg.norm(np.cross(UP, forward))
        right = math.cos(roll) * level + math.sin(roll) * np.cross(forward, level)
        self.axes = np.stack([right, np.cross(forward, right), forward])
        self.focal = self.size[0] / 2 / math.tan(math.radians(view) / 2)
        self.faces: list[tuple] = []

    def face(self, origin, u, v, paint: Paint, outline: Outline = SQUARE, relief=FLAT, shines=False, inside=None):
        """Add the face origin + a u + b v, for (a, b) in `outline`; an image stands upright when v points upwards.

        A face that shines is not lit: its paint is light as the canvas codes it. A `relief` (n, n) multiplies the light
        on an image, which is computed at n x n points of it. If a place `inside` the body is given, the face is not
        seen from there.
        """
        relief = np.ones((1, 1)) if isinstance(paint, tuple) else relief
        self.faces.append(((origin, u, v, origin if inside is None else inside), paint, outline, relief, shines))

    def box(self, origin, a, b, h, sides: Paint, top: Paint | None = None, ends: Paint | None = None, relief=FLAT):
        """Add the box origin + [0, 1] a + [0, 1] b + [0, 1] h.

        `sides` paints the faces along b, `ends` those along a, both with x level; `top` has x along a, and y along b.
        """
        inside = origin + (a + b + h) / 2
        for k, (start, edge) in enumerate(((origin, a), (origin + b, a), (origin, b), (origin + a, b))):
            self.face(start, edge, h, ends or sides if k < 2 else sides, relief=relief, inside=inside)
        self.face(origin + h, a, b, top or sides, relief=CUSHION if relief is HANGING else FLAT, inside=inside)

    def billboard(self, foot, width: float, height: float, paint: Paint, outline: Outline = SQUARE, **look) -> None:
        """Add an upright face turned to the camera, its lower edge centred on `foot`."""
        x, _, z = self.position - foot
        side = np.array([-z, 0.0, x]) * (width / math.hypot(x, z))
        self.face(foot - side / 2, side, height * UP, paint, outline, **look)

    def rays(self) -> np.ndarray:
        """The directions, not of length 1, that the pixels of the result see: float32 (3, height, width)."""
        x, y = ((np.arange(0.5 * SUPERSAMPLING, n, SUPERSAMPLING) - n / 2) / self.focal for n in self.size)
        right, up, forward = self.axes[:, :, None, None]
        return (right * x - up * y[:, None] + forward).astype(np.float32)

    def finish(self, light: Callable, rng: random.Random, background: np.ndarray | None = None) -> np.ndarray:
        """The photograph, uint8 (height, width, 3); `background` is linear light (3, height, width).

        `light` takes points and normals, float32 (n, 3), to the linear light (n, 3) there.
        """
        picture = Image.new("RGB", self.size)
        if background is not None:
            picture = Image.fromarray(_code(background.transpose(1, 2, 0))).resize(self.size, Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(picture)
        edges = np.array([face[0] for face in self.faces])
        outlines, rectangles, matrices, normals = self._project(edges)
        seen = [k for k, (x0, y0, x1, y1) in enumerate(rectangles) if x0 < x1 and y0 < y1]
        lights = self._lights(seen, edges, normals, light)
        for k, lit, size in zip(seen, lights, np.linalg.norm(edges[seen, 1:3], axis=2).tolist(), strict=True):
            (_, paint, _, relief, shines), (x0, y0, x1, y1) = self.faces[k], rectangles[k]
            if isinstance(paint, tuple):
                tone = paint if shines else (paint * lit[0] / 255).tolist()
                pen.polygon(outlines[k].ravel().tolist(), fill=ink(tone))
                continue
            sheet = paint
            if callable(paint):  # as fine as the canvas shows it, more or less: alike faces may share a sheet
                fine = min(max((x1 - x0) / size[0], (y1 - y0) / size[1]) / 2, SHEET / math.sqrt(size[0] * size[1]))
                sheet = paint(*size, 2.0 ** round(math.log2(fine)))
            if not shines:
                glow = Image.frombytes("RGB", relief.shape, lit.tobytes())
                sheet = ImageChops.multiply(sheet, glow.resize(sheet.size, Image.Resampling.BILINEAR))
            # From pixels of the canvas to (a, b, 1), but for a factor; to pixels of the sheet; from those of the part.
            a, b, c = matrices[k]
            a, b = [sheet.width * p for p in a], [sheet.height * (r - q) for q, r in zip(b, c, strict=True)]
            rows = [(p, q, p * x0 + q * y0 + r) for p, q, r in (a, b, c)]
            numbers = [number / rows[2][2] for row in rows for number in row][:8]
            sheet = sheet.transform((x1 - x0, y1 - y0), Image.Transform.PERSPECTIVE, numbers)
            mask = Image.new("1", sheet.size)
            ImageDraw.Draw(mask).polygon((outlines[k] - (x0, y0)).ravel().tolist(), fill=1)
            picture.paste(sheet, (x0, y0), mask)
        return develop(_LINEAR.take([np.asarray(plane) for plane in picture.reduce(SUPERSAMPLING).split()]), rng)

    def _project(self, edges: np.ndarray) -> tuple[list, list, list, np.ndarray]:
        """What the camera makes of faces (origin, u, v, inside), (n, 4, 3).

        Outlines on the canvas (m, 2); the rectangles x0, y0, x1, y1 that they need; matrices, 3 rows of 3, that take
        pixels (x, y, 1) to places (a, b, 1) on the faces, but for a factor; normals towards the camera.
        """
        frames = (edges - [self.position, 0 * UP, 0 * UP, self.position]) @ self.axes.T
        inverse = np.linalg.inv(frames[:, [1, 2, 0]].transpose(0, 2, 1))  # of a, b, 1 to a place; its last row: 1 on it
        hidden = (inverse[:, 2] * frames[:, 3]).sum(axis=1) < 1 - 1e-6
        normals = -inverse[:, 2] @ self.axes / np.linalg.norm(inverse[:, 2], axis=1, keepdims=True)
        counts, half = [len(face[2]) for face in self.faces], np.array(self.size) / 2
        places, starts = np.concatenate([face[2] for face in self.faces]), np.cumsum([0, *counts[:-1]])
        o, u, v, _ = np.repeat(frames, counts, axis=0).transpose(1, 0, 2)
        points = o + places[:, :1] * u + places[:, 1:] * v
        flat = self._flat(points)
        outlines, depth = np.split(flat, starts[1:]), np.minimum.reduceat(points[:, 2], starts)
        low, high = np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)
        for k in np.flatnonzero((depth < NEAR) & ~hidden):
            outlines[k] = self._flat(_before(points[starts[k] : starts[k] + counts[k]]))
            low[k], high[k] = outlines[k].min(axis=0, initial=1e9), outlines[k].max(axis=0, initial=-1e9)
        high[hidden] = -1
        rectangles = np.concatenate([low.clip(0, self.size), (high + 1).clip(0, self.size)], axis=1).astype(int)
        pixels = [[1 / self.focal, 0, -half[0] / self.focal], [0, -1 / self.focal, half[1] / self.focal], [0, 0, 1]]
        return outlines, rectangles.tolist(), (inverse @ pixels).tolist(), normals

    def _flat(self, points: np.ndarray) -> np.ndarray:
        """Where the canvas shows points before the camera, in the camera's axes: (n, 3) to (n, 2)."""
        depth = np.where(points[:, 2:] < NEAR, NEAR, points[:, 2:])
        return points[:, :2] / depth * (self.focal, -self.focal) + (self.size[0] / 2, self.size[1] / 2)

    def _lights(self, seen: list[int], edges: np.ndarray, normals: np.ndarray, light: Callable) -> list[np.ndarray]:
        """The coded light on the faces `seen`, in one call of `light`: uint8 (n², 3), from the upper edge down."""
        reliefs = [self.faces[k][3] for k in seen]
        counts, places = [r.size for r in reliefs], np.concatenate([_places(len(r)) for r in reliefs])
        o, u, v, _ = np.repeat(edges[seen].astype(np.float32), counts, axis=0).transpose(1, 0, 2)
        normals = np.repeat(normals[seen].astype(np.float32), counts, axis=0)
        linear = light(o + places[:, :1] * u + places[:, 1:] * v, normals)
        linear *= np.concatenate([r.ravel() for r in reliefs], dtype=np.float32)[:, None]
        return np.split(_code(linear), np.cumsum(counts)[:-1])


def _code(light: np.ndarray) -> np.ndarray:
    """Linear light as the canvas holds it, uint8."""
    return (np.clip(light / FULL, 0, 1) ** np.float32(1 / 2.2) * 255).astype(np.uint8)


@cache
def _places(n: int) -> np.ndarray:
    """The middles of n x n squares of a face as (a, b), float32 (n², 2), from its upper edge down."""
    middles = (np.arange(n, dtype=np.float32) + 0.5) / n
    return np.stack([np.tile(middles, n), np.repeat(middles[::-1], n)], axis=1)


def _before(points: np.ndarray) -> np.ndarray:
    """What of a polygon (n, 3) in the camera's axes lies before the camera."""
    following, kept = np.roll(points, -1, axis=0), []
    for one, other in zip(points, following, strict=True):
        if one[2] >= NEAR:
            kept.append(one)
        if (one[2] >= NEAR) != (other[2] >= NEAR):
            kept.append(one + (other - one) * ((NEAR - one[2]) / (other[2] - one[2])))
    return np.array(kept).reshape(-1, 3)


def lamp(light: np.ndarray, points: np.ndarray, normals: np.ndarray, position, tone, radius: float) -> None:
    """Add to `light` (n, 3) what a lamp of some `radius` (metres) at `position` sheds on the points."""
    way = np.array(position, np.float32) - points
    square = (way * way).sum(axis=1) + radius * radius
    light += (np.maximum((way * normals).sum(axis=1), 0) / (square * np.sqrt(square)))[:, None] * np.float32(tone)


def develop(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """From linear light (3, height, width) to a photograph, uint8 (height, width, 3).

    Exposure, saturation, white balance, glare, falloff towards the corners, tone curve, grain.
    """
    _, height, width = picture.shape
    grey = (picture[0] + picture[1] + picture[2]) * np.float32(1 / 3)
    median = np.partition(grey, grey.size // 2, axis=None)[grey.size // 2]
    exposure = np.float32(math.exp(rng.gauss(-1.0, 0.35)) / (median + 0.25 * grey.mean() + 1e-3))
    grey *= exposure
    saturation, warmth, tint = rng.uniform(0.8, 1.4) * (rng.random() > 0.03), rng.gauss(0.03, 0.07), rng.gauss(0, 0.02)
    picture = picture * (exposure * np.float32(saturation)) + grey * np.float32(1 - saturation)
    picture = np.maximum(picture * np.array([1 + warmth, 1 + tint, 1 - warmth], np.float32)[:, None, None], 0)
    # Light from the brightest parts spreads over the picture.
    glare = Image.fromarray((np.clip(grey - 1.2, 0, 2.55) * 100).astype(np.uint8))
    picture += np.float32(0.0025) * np.asarray(glare.filter(ImageFilter.GaussianBlur(height / 14)))
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    picture *= 1 - np.float32(rng.uniform(0, 0.2)) * (x * x + y * y)
    # The tone curve as a table over the square root, fine enough where it is steep.
    curve = (1 - np.exp(-1.15 * _CURVE**2)) ** np.float32(1 / rng.uniform(1.9, 2.3))
    curve += np.float32(rng.uniform(0.1, 0.7)) * (curve * curve * (3 - 2 * curve) - curve)
    picture = curve.take((np.sqrt(picture) * np.float32(2047 / 3)).astype(np.int32), mode="clip")
    row, column = (np.arange(n) + rng.randrange(TILE) for n in (height, width))
    picture += noise_tile(0.5)[row[:, None] % TILE, column % TILE] * np.float32(rng.uniform(0.003, 0.014))
    return np.clip(picture * 255 + np.float32(0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
