"""What surrounds a synthetic church: weather and light, sky, ground, trees.

The church stands at the origin with its front towards -z; the ground is y = 0.
"""

import math
import random
from functools import partial

import numpy as np

from blurdiff.data.synthetic.canvas import CUSHION, DISC, UP, Canvas, lamp
from blurdiff.data.synthetic.textures import Colour, Material, colour, linear, noise, sheet

SEASONS = {"summer": 70, "autumn": 17, "winter": 13}
# How often; hue, saturation and value of the zenith, the horizon, the sun and the sky's light; the sun's strength; how
# much of the sky is clear of clouds, in standard deviations.
WEATHERS: dict[str, tuple] = {
    "clear": (25, ((0.55, 0.62), (0.45, 0.9), (0.45, 0.9)), (0.58, 0.15, 1), (0.1, 0.12, 1), (0.6, 0.2, 0.75),
              (0.8, 1.5), (1.0, 2.2)),
    "clouds": (38, ((0.55, 0.62), (0.45, 0.9), (0.45, 0.9)), (0.58, 0.15, 1), (0.1, 0.12, 1), (0.6, 0.2, 0.75),
               (0.8, 1.5), (-0.4, 0.7)),
    "overcast": (20, (0.58, 0.06, (0.65, 0.97)), (0.58, 0.03, (0.75, 1)), (0.1, 0.12, 1), (0.6, 0.05, 0.9),
                 (0.1, 0.2), (-0.9, -0.7)),
    "sunset": (10, ((0.58, 0.75), (0.3, 0.7), (0.35, 0.7)), ((0.02, 0.12), (0.35, 0.8), 1), (0.07, 0.5, 1),
               (0.7, 0.2, 0.5), (1.2, 1.4), (-0.3, 1.2)),
    "night": (7, (0.64, 0.6, (0.03, 0.3)), (0.63, 0.4, (0.1, 0.4)), (0.1, 0.12, 1), (0.62, 0.4, 0.25),
              (0, 0), (0.8, 1.2)),
}  # fmt: skip


class Weather:
    """Light and season around a church of some `size` (metres): sun, sky, and at night floodlights before it.

    The sun stands more often on the side of the camera, the angle `towards_camera`, than opposite.
    """

    def __init__(self, rng: random.Random, towards_camera: float, size: float):
        self.kind = rng.choices(list(WEATHERS), [weather[0] for weather in WEATHERS.values()])[0]
        self.season = rng.choices(list(SEASONS), list(SEASONS.values()))[0]
        _, *colours, strength, clear = WEATHERS[self.kind]
        self.zenith, self.horizon, sun, self.sky = (linear(colour(rng, *ranges)) for ranges in colours)
        self.sun, self.clear, self.size = sun * rng.uniform(*strength), rng.uniform(*clear), size
        azimuth = towards_camera + rng.gauss(0, 1.1)
        height = rng.uniform(0.1, 0.35) if self.kind == "sunset" else rng.uniform(0.35, 1.2)
        level = math.cos(height)
        self.way = np.array([-math.sin(azimuth) * level, math.sin(height), -math.cos(azimuth) * level], np.float32)
        warm = linear(colour(rng, (0.06, 0.14), (0.1, 0.4), 1)) * size * size * 0.12
        self.flood = [((rng.uniform(-1, 1) * size, 0.5, -rng.uniform(0.3, 0.8) * size), warm) for _ in range(2)]

    def light(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """What falls on points with normals, (n, 3): linear, (n, 3)."""
        total = self.sky * (0.75 + 0.25 * normals[:, 1:2]) + self.sun * np.maximum(normals @ self.way, 0)[:, None]
        for place, tone in self.flood if self.kind == "night" else ():
            lamp(total, points, normals, place, tone, self.size * 0.3)
        return total

    def leaf(self, rng: random.Random) -> Colour:
        """A colour of leaves, or in winter of twigs."""
        if self.season == "winter":
            return colour(rng, 0.08, (0.1, 0.4), (0.2, 0.4))
        if self.season == "autumn" and rng.random() < 0.8:
            return colour(rng, (0.02, 0.15), (0.6, 0.9), (0.4, 0.8))
        return colour(rng, (0.18, 0.36), (0.35, 0.75), (0.2, 0.5))


def landscape(rng: random.Random, weather: Weather, canvas: Canvas, boxes: list) -> np.ndarray:
    """Sky, skyline, and ground with the shadows of `boxes` (low, high corner); linear light (3, height, width)."""
    rays = canvas.rays()
    shape, rays = rays.shape, rays.reshape(3, -1)
    up = rays[1] / np.sqrt((rays * rays).sum(axis=0))
    skyline = rng.uniform(0.0, 0.12) + 0.02 * noise(rng, 2.2)(np.arctan2(rays[0], rays[2]) / 4, 0 * up)
    above, below = up > np.maximum(skyline, 0), up < -0.004
    wood = linear(colour(rng, (0.2, 0.6), (0.1, 0.5), (0.15, 0.5))) * (0.05 if weather.kind == "night" else 1)
    picture = wood[:, None] * (1 + 0.3 * noise(rng, 1.5)(rays[0] / 2, rays[1] / 2)).clip(0.3)
    picture[:, above] = _sky(rng, weather, rays[:, above], up[above])
    picture[:, below] = _ground(rng, weather, canvas.position, rays[:, below], boxes)
    return picture.reshape(shape)


def _sky(rng: random.Random, weather: Weather, rays: np.ndarray, up: np.ndarray) -> np.ndarray:
    """A gradient, with clouds on a plane above; linear light (3, n)."""
    zenith, horizon = weather.zenith[:, None], weather.horizon[:, None]
    picture = horizon + (zenith - horizon) * np.minimum(1.6 * up, 1) ** np.float32(0.6)
    x, _, z = rays * (up / rays[1].clip(1e-3) / (up + np.float32(0.12)) / np.float32(rng.uniform(7, 20)))
    fine = noise(rng, 2.4)(3 * x, 3 * z)
    density = noise(rng, 3.0, 2)(x, z) + np.float32(0.45) * fine - np.float32(weather.clear)
    bright = horizon * 1.15 if weather.kind in ("sunset", "night") else np.float32(1.3)
    shade = (1.05 - 0.2 * density - 0.12 * fine).clip(0.3, 1.1)
    return picture + (bright * shade - picture) * (np.float32(rng.uniform(0.5, 1.6)) * density).clip(0, 1)


def _ground(rng: random.Random, weather: Weather, position: np.ndarray, rays: np.ndarray, boxes: list) -> np.ndarray:
    """Grass or snow with a path to the door, or paving; less light falls in the shadow of boxes; (3, n)."""
    points = (position.astype(np.float32)[:, None] - rays * (np.float32(position[1]) / rays[1])).T
    x, _, z = points.T
    stone = linear(colour(rng, (0.05, 0.13), (0.02, 0.25), (0.4, 0.8)))[:, None]
    grass: tuple = {
        "summer": ((0.2, 0.3), (0.3, 0.6), (0.25, 0.55)),
        "autumn": ((0.1, 0.18), 0.5, 0.5),
        "winter": (0.6, 0.04, 0.95) if rng.random() < 0.6 else (0.14, 0.35, 0.5),
    }[weather.season]
    tone, size = linear(colour(rng, *grass))[:, None], rng.uniform(0.8, 2.5)
    if rng.random() < 0.65:
        tone = np.where((np.abs(x - rng.uniform(-0.3, 0.3) * z) < size) & (z < 0), stone, tone)
    if rng.random() < 0.35:  # slabs
        chess = (np.floor(x / size) + np.floor(z / size)).astype(int) & 1
        tone = stone * (1 - np.float32(rng.uniform(0.0, 0.4)) * chess)
    rough = (1 + 0.22 * noise(rng)(x / 50, z / 50) + 0.15 * noise(rng, 3.0)(x / 60, z / 60)).clip(0.2)
    total, dark = weather.light(points, np.tile(np.float32(UP), (len(x), 1))).T, np.zeros(len(x), bool)
    for low, high in boxes if weather.kind != "night" else ():
        # Where the way to the sun enters the box on all axes before it leaves it on one.
        enter, leave = np.float32(0), np.float32(1e3)
        for place, way, edges in zip(points.T, weather.way + 1e-6, zip(low, high, strict=True), strict=True):
            one, other = ((np.float32(edge) - place) / way for edge in edges)
            enter, leave = np.maximum(enter, np.minimum(one, other)), np.minimum(leave, np.maximum(one, other))
        dark |= enter < leave
        gap = np.maximum(low[0] - x, x - high[0]).clip(0) + np.maximum(low[2] - z, z - high[2]).clip(0)
        rough *= 1 - 0.3 / (1 + gap)
    total = np.where(dark, weather.sky[:, None], total)
    return tone * rough * total


def add_trees(canvas: Canvas, rng: random.Random, weather: Weather, n: int, behind: bool) -> None:
    """Add n broad trees, firs and cypresses, behind the church or before it, the farthest first."""
    distance = math.hypot(canvas.position[0], canvas.position[2])
    away = -canvas.position * (1, 0, 1) / distance
    ways = [rng.uniform(0.8, 1.6) * weather.size if behind else -rng.uniform(0.1, 0.5) * distance for _ in range(n)]
    for way in sorted(ways, reverse=True):
        across = rng.choice([-1, 1]) * weather.size * (rng.uniform(0, 1.3) if behind else rng.uniform(0.5, 0.9))
        foot, high = way * away + across * np.array([away[2], 0.0, -away[0]]), rng.uniform(5, 16)
        leaves = partial(sheet, rng, Material("rough", [weather.leaf(rng)], 6.0, 0.35))
        if rng.random() < 0.7:
            wide, trunk = high * rng.uniform(0.6, 0.95), rng.uniform(0.1, 0.25) * high
            canvas.billboard(foot, 0.05 * high, 0.5 * high, colour(rng, 0.08, (0.2, 0.5), (0.12, 0.3)))
            radii = [rng.uniform(0.75, 1) for _ in DISC]
            crown = 0.5 + (DISC - 0.5) * np.array(radii)[:, None]
            canvas.billboard(foot + trunk * UP, wide, high - trunk, leaves, crown, relief=CUSHION)
        else:
            right = [(0.5 + (1 - k / 8) * rng.uniform(0.3, 0.5), k / 8) for k in range(8)]
            outline = [*right, (0.5, 1.0), *((1 - x, y) for x, y in reversed(right))]
            canvas.billboard(foot, rng.choice([0.45, 0.2]) * high, high, leaves, outline, relief=CUSHION)
