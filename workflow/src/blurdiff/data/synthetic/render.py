"""A small renderer for the synthetic scenes: flat patches in space, one camera, lights, and what a camera adds.

Lengths are metres (x right, y up, z forward), colours linear light as float32 planes (3, n). A patch carries a `paint`,
a function of the position on it (x along its first edge, y along its second, metres) that gives the colour, and an
optional `shape`, a function of the same position in 0..1 that says where it is solid. Every pixel is painted once, by
the patch nearest to the camera, so the cost does not grow with what is hidden.
"""

import math
import random
from collections.abc import Callable
from functools import cache

import numpy as np

Vector = tuple[float, float, float]
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]

UP: Vector = (0.0, 1.0, 0.0)
SUPERSAMPLING = 2
NEAR = 0.05
NOISE_SIZE = 256


def add(a: Vector, b: Vector, scale: float = 1.0) -> Vector:
    """a + scale b."""
    return a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]


def times(a: Vector, scale: float) -> Vector:
    """scale a."""
    return a[0] * scale, a[1] * scale, a[2] * scale


def dot(a: Vector, b: Vector) -> float:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def unit(a: Vector) -> Vector:
    """The vector of length 1 in the direction of a."""
    return times(a, 1 / math.sqrt(dot(a, a)))


@cache
def noise_tile(exponent: float, lowest: int = 1) -> np.ndarray:
    """A periodic noise field, float32 (256, 256), mean 0, variance 1; always the same.

    Its power spectrum is 1/f^exponent from `lowest` cycles a tile upwards. Photographs have exponents near 2; 3 and
    more look like clouds; 0 is white. With `lowest` well above 1 the forms are many cells wide, and look smooth.
    """
    rng = np.random.default_rng(int(exponent * 1000) + lowest)
    f = np.hypot(np.fft.fftfreq(NOISE_SIZE)[:, None], np.fft.rfftfreq(NOISE_SIZE)[None, :]) * NOISE_SIZE
    f[f < lowest] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((NOISE_SIZE, NOISE_SIZE))) * (f + 1e-9) ** (-exponent / 2))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def noise(
    rng: random.Random, x_scale: float, y_scale: float | None = None, exponent: float = 2.0, lowest: int = 1
) -> Paint:
    """A noise texture at a random place, a function of (x, y) with mean 0 and variance 1: `scale` cells a metre."""
    tile = noise_tile(exponent, lowest).ravel()
    # The offset keeps the numbers positive, so that the conversion to integers rounds down.
    x_offset, y_offset = 16384 + rng.randrange(NOISE_SIZE), 16384 + rng.randrange(NOISE_SIZE)
    x_scale, y_scale = float(x_scale), float(x_scale if y_scale is None else y_scale)

    def sample(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = (x * x_scale + x_offset).astype(np.int32) & (NOISE_SIZE - 1)
        row = (y * y_scale + y_offset).astype(np.int32) & (NOISE_SIZE - 1)
        return tile.take(row * NOISE_SIZE + column)

    return sample


def smooth_noise(rng: random.Random, x_scale: float, y_scale: float | None = None, exponent: float = 3.0) -> Paint:
    """A noise texture of soft forms without detail: about `scale` of them a metre."""
    return noise(rng, x_scale * 16, (x_scale if y_scale is None else y_scale) * 16, exponent, lowest=8)


class Scene:
    """What stands before a camera at `position` that looks at `target`; patches are added, then `render` is called.

    `width` and `height` are the final pixels; `view` is the horizontal angle of view in degrees, `roll` the camera's
    tilt in radians.
    """

    def __init__(self, width: int, height: int, position: Vector, target: Vector, view: float, roll: float = 0.0):
        self.width, self.height = width * SUPERSAMPLING, height * SUPERSAMPLING
        self.position = position
        forward = unit(add(target, position, -1))
        level = unit(cross(UP, forward))
        upright = cross(forward, level)
        right = add(times(level, math.cos(roll)), upright, math.sin(roll))
        up = add(times(upright, math.cos(roll)), level, -math.sin(roll))
        self.axes = right, up, forward
        self.focal = self.width / 2 / math.tan(math.radians(view) / 2)
        self.x = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)
        self.y = (-(np.arange(self.height) + 0.5 - self.height / 2) / self.focal).astype(np.float32)
        self.edges: list[tuple[Vector, Vector, Vector, Vector]] = []  # origin, u, v, a point behind the patch
        self.looks: list[tuple[Paint, Shape | None, bool]] = []

    def patch(
        self, origin: Vector, u: Vector, v: Vector, paint: Paint, shape: Shape | None = None, shines=False
    ) -> None:
        """Add the parallelogram origin + a u + b v, 0 <= a, b <= 1; it shines when its paint is light, not colour."""
        self.edges.append((origin, u, v, origin))
        self.looks.append((paint, shape, shines))

    def box(self, origin: Vector, a: Vector, b: Vector, h: Vector, sides: Paint, top: Paint | None = None, ends=None):
        """Add the visible faces of the box origin + [0, 1] a + [0, 1] b + [0, 1] h.

        `sides` paints the faces along b, `ends` (default: as the sides) those along a: x is level, y goes up; `top` has
        x along a and y along b.
        """
        far = add(add(origin, a), b)
        middle = times(add(add(origin, far), h), 0.5)
        for start, u, v, paint in (
            (origin, a, h, ends or sides),
            (add(origin, b), a, h, ends or sides),
            (origin, b, h, sides),
            (add(origin, a), b, h, sides),
            (add(origin, h), a, b, top or sides),
            (origin, a, b, sides),
        ):
            self.edges.append((start, u, v, middle))
            self.looks.append((paint, None, False))

    def billboard(
        self, foot: Vector, width: float, height: float, paint: Paint, shape: Shape | None = None, shines=False
    ):
        """Add an upright patch that faces the camera, centred over `foot`."""
        toward = unit((self.position[0] - foot[0], 0.0, self.position[2] - foot[2]))
        side = (-toward[2] * width, 0.0, toward[0] * width)
        self.patch(add(foot, side, -0.5), side, (0.0, height, 0.0), paint, shape, shines)

    def render(self, background: Callable[..., np.ndarray] | None, light: Callable[..., np.ndarray]) -> np.ndarray:
        """The picture, linear light, float32 (3, height, width) at the final size.

        `background(x, y, z)` gives the light from a direction; `light(point, normal)`, both three planes, what falls
        on a surface.
        """
        which, bounds, rows, lengths, normals = self._project()
        nearness, identity = self._cover(which, bounds, rows)
        # A pixel whose samples all see the same patch is painted once, at its middle; the others sample by sample.
        height, width = self.height // SUPERSAMPLING, self.width // SUPERSAMPLING
        quads = [identity[row::2, column::2] for row in (0, 1) for column in (0, 1)]
        same = (quads[0] == quads[1]) & (quads[0] == quads[2]) & (quads[0] == quads[3])
        whole, mixed = np.flatnonzero(same), np.flatnonzero(~same)
        row, column = 2 * (mixed // width), 2 * (mixed % width)
        row, column = np.concatenate([row, row, row + 1, row + 1]), np.concatenate([column, column + 1] * 2)
        x = np.concatenate([((self.x[::2] + self.x[1::2]) / 2)[whole % width], self.x[column]])
        y = np.concatenate([((self.y[::2] + self.y[1::2]) / 2)[whole // width], self.y[row]])
        seen = np.concatenate([quads[0].ravel()[whole], identity[row, column]])

        order = np.argsort(seen, kind="stable")
        seen, x, y = seen[order], x[order], y[order]
        ends = np.cumsum(np.bincount(seen, minlength=len(which) + 1)).tolist()
        rgb, first = np.zeros((3, len(order)), np.float32), ends[0]
        if background is not None and first:
            rgb[:, :first] = background(*self._directions(x[:first], y[:first]))
        nearness, shining = np.full(len(order), 1e-3, np.float32), [slice(0, first)]
        for number, last, matrix, (u, v) in zip(which, ends[1:], rows.tolist(), lengths.tolist(), strict=True):
            if first < last:
                part = slice(first, last)
                paint, _, shines = self.looks[number]
                # The middle of a whole pixel lies on the patch to rounding; 1 / depth is positive there.
                a, b, c = (x[part] * row[0] + (y[part] * row[1] + row[2]) for row in matrix)
                nearness[part] = c
                rgb[:, part] = paint(a * u / c, b * v / c)
                if shines:
                    shining.append(part)
                first = last
        direction = self._directions(x, y)
        point = [self.position[k] + direction[k] / nearness for k in range(3)]
        incident = light(point, [normals[:, k].take(seen) for k in range(3)])
        for part in shining:
            incident[:, part] = 1
        rgb *= incident

        samples = np.empty_like(rgb)
        samples[:, order] = rgb
        picture = np.empty((3, height * width), np.float32)
        picture[:, whole] = samples[:, : len(whole)]
        picture[:, mixed] = samples[:, len(whole) :].reshape(3, 4, -1).mean(axis=1)
        return picture.reshape(3, height, width)

    def _project(self) -> tuple[list[int], list, np.ndarray, np.ndarray, np.ndarray]:
        """The patches that face the camera and lie before it, m of them.

        Returns their numbers; their rectangles of pixels (x0, x1, y0, y1); the matrices (m, 3, 3) that take the ray
        (X, Y, 1) of a pixel to (a, b, 1) / depth; the lengths (m, 2) of the edges; the normals towards the camera
        (m + 1, 3), the first one that of the background.
        """
        edges = np.array(self.edges)
        edges[:, [0, 3]] -= self.position
        normal = _cross(edges[:, 1], edges[:, 2])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        away = (normal * edges[:, 0]).sum(axis=1)
        facing = away * (normal * (edges[:, 0] - edges[:, 3])).sum(axis=1) <= 0
        normal *= -np.sign(away)[:, None]

        camera = edges[:, :3] @ np.array(self.axes).T
        o, u, v = camera[:, 0], camera[:, 1], camera[:, 2]
        corners = np.stack([o, o + u, o + u + v, o + v], axis=1)
        following = np.roll(corners, -1, axis=1)
        before, next_before = corners[..., 2] >= NEAR, following[..., 2] >= NEAR
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = (
                corners + (following - corners) * ((NEAR - corners[..., 2]) / (following - corners)[..., 2])[..., None]
            )
            points = np.concatenate([corners, cut], axis=1)
            points = points[..., :2] / points[..., 2:] * (self.focal, -self.focal) + (self.width / 2, self.height / 2)
            rows = np.stack([_cross(v, o), _cross(o, u), _cross(u, v)], axis=1)
            rows /= (u * rows[:, 0]).sum(axis=1)[:, None, None]
        used = np.concatenate([before, before != next_before], axis=1)[..., None]
        size = (self.width, self.height)
        low = np.clip(np.floor(np.where(used, points, np.inf).min(axis=1)), 0, size)
        high = np.clip(np.ceil(np.where(used, points, -np.inf).max(axis=1)), 0, size)
        which = np.flatnonzero(facing & (low < high).all(axis=1) & np.isfinite(rows).all(axis=(1, 2)))
        if len(which) > 255:  # what fits the numbers of `_cover`: the largest
            which = which[np.argsort(-(high - low)[which].prod(axis=1), kind="stable")[:255]]
        bounds = np.stack([low[which, 0], high[which, 0], low[which, 1], high[which, 1]], axis=1).astype(int).tolist()
        lengths = np.linalg.norm(edges[which, 1:3], axis=2)
        normals = np.concatenate([np.zeros((1, 3)), normal[which]]).astype(np.float32)
        return which.tolist(), bounds, rows[which], lengths, normals

    def _cover(self, which: list[int], bounds: list, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each pixel 1 / depth and the number of the patch seen (1 is the first of `which`; 0 is none)."""
        nearness = np.zeros((self.height, self.width), np.float32)
        identity = np.zeros((self.height, self.width), np.uint8)
        rows = rows.astype(np.float32)
        along_x = rows[:, :, :1] * self.x + rows[:, :, 2:]
        along_y = (rows[:, :, 1:2] * self.y)[..., None]
        for k, (number, (x0, x1, y0, y1)) in enumerate(zip(which, bounds, strict=True)):
            a, b, c = along_x[k, :, None, x0:x1] + along_y[k, :, y0:y1]
            front = nearness[y0:y1, x0:x1]
            seen = (c > front) & (np.minimum(a, b) >= 0) & (np.maximum(a, b) <= c)
            shape = self.looks[number][1]
            if shape is not None:
                c_seen = c[seen]
                seen[seen] = shape(a[seen] / c_seen, b[seen] / c_seen)
            np.copyto(front, c, where=seen)
            np.copyto(identity[y0:y1, x0:x1], np.uint8(k + 1), where=seen)
        return nearness, identity

    def _directions(self, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        """The directions of rays through image positions (x, y), as three planes, at depth 1."""
        right, up, forward = self.axes
        return [x * right[k] + (y * up[k] + forward[k]) for k in range(3)]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Vector products of (n, 3) arrays (np.cross takes several times as long)."""
    (a0, a1, a2), (b0, b1, b2) = a.T, b.T
    return np.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=1)


def lamp(light: np.ndarray, point: list, normal: list, position: Vector, colour: Vector, radius: float) -> None:
    """Add to `light` (3, n) what a lamp of some `radius` at `position` sheds on the points."""
    x, y, z = (position[k] - point[k] for k in range(3))
    square = x * x + y * y + z * z + radius * radius
    cosine = np.maximum(x * normal[0] + y * normal[1] + z * normal[2], 0)
    cosine /= square * np.sqrt(square)
    for k in range(3):
        light[k] += cosine * float(colour[k])


def develop(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """From linear light (3, height, width) to a photograph, uint8 (height, width, 3).

    Exposure, saturation, white balance, glare, falloff towards the corners, tone curve, grain.
    """
    _, height, width = picture.shape
    grey = picture.mean(axis=0)
    picture = picture * np.float32(math.exp(rng.gauss(-1.0, 0.35)) / (np.median(grey) + 0.25 * grey.mean() + 1e-3))
    grey = picture.mean(axis=0)
    saturation = rng.uniform(0.8, 1.4) if rng.random() > 0.03 else 0.0
    warmth, tint = rng.gauss(0.03, 0.07), rng.gauss(0, 0.02)
    balance = np.array([1 + warmth, 1 + tint, 1 - warmth], np.float32)[:, None, None]
    picture = np.maximum((grey + (picture - grey) * np.float32(saturation)) * balance, 0)
    # Light from the brightest parts spreads over the picture.
    glare = np.maximum(grey - 1.2, 0)
    picture += np.float32(0.25) * _blur(_blur(glare, height // 6), height // 6)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    picture *= 1 - np.float32(rng.uniform(0, 0.2)) * (x * x + y * y)
    # The tone curve as a table over the square root, fine enough where it is steep.
    curve = (1 - np.exp(-1.15 * np.linspace(0, 3, 2048, dtype=np.float32) ** 2)) ** np.float32(
        1 / rng.uniform(1.9, 2.3)
    )
    curve += np.float32(rng.uniform(0.1, 0.7)) * (curve * curve * (3 - 2 * curve) - curve)
    picture = curve.take((np.sqrt(picture) * np.float32(2047 / 3)).astype(np.int32), mode="clip")
    down, across = rng.randrange(NOISE_SIZE - height), rng.randrange(NOISE_SIZE - width)
    grain = noise_tile(0.5)[down : down + height, across : across + width]
    picture += grain * np.float32(rng.uniform(0.003, 0.014))
    return np.clip(picture * 255 + np.float32(0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _blur(plane: np.ndarray, size: int) -> np.ndarray:
    """The mean over size x size pixels; the border is continued outwards."""
    for _ in range(2):
        total = np.cumsum(np.pad(plane, ((size // 2 + 1, size - size // 2 - 1), (0, 0)), mode="edge"), axis=0)
        plane = ((total[size:] - total[:-size]) / size).T
    return plane
