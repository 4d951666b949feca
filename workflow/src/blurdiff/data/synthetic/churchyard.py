"""What surrounds a synthetic church: sky, weather and light, the ground, trees, and small things that stand about.

The church stands at the origin with its front towards -z; the ground is y = 0.
"""

import math
import random
from dataclasses import dataclass

import numpy as np

from blurdiff.data.synthetic import textures as tx
from blurdiff.data.synthetic.render import UP, Paint, Scene, Vector, add, noise, smooth_noise, times, unit


@dataclass
class Weather:
    """Light and season: the sun's direction (from the ground), its colour, the sky's, and how the sky looks."""

    kind: str  # clear, clouds, overcast, sunset, night
    season: str  # summer, autumn, winter
    sun: Vector
    sunlight: np.ndarray
    skylight: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray


def make_weather(rng: random.Random, towards_camera: float) -> Weather:
    """A weather; the sun stands more often on the side of the camera, the angle `towards_camera`, than opposite."""
    kind = rng.choices(["clear", "clouds", "overcast", "sunset", "night"], [25, 38, 20, 10, 7])[0]
    season = rng.choices(["summer", "autumn", "winter"], [70, 17, 13])[0]
    azimuth = towards_camera + rng.gauss(0, 1.1)
    height = rng.uniform(0.1, 0.35) if kind == "sunset" else rng.uniform(0.35, 1.2)
    sun = (math.sin(azimuth) * math.cos(height), math.sin(height), -math.cos(azimuth) * math.cos(height))
    blue = rng.uniform(0.55, 0.62)
    zenith, horizon = tx.colour(blue, rng.uniform(0.45, 0.9), rng.uniform(0.45, 0.9)), tx.colour(blue, 0.15, 1.0)
    sunlight, skylight = tx.colour(0.1, 0.12, 1.0) * rng.uniform(0.8, 1.5), tx.colour(0.6, 0.2, 0.75)
    if kind == "overcast":
        grey = rng.uniform(0.65, 0.97)
        zenith, horizon = tx.colour(blue, 0.06, grey), tx.colour(blue, 0.03, min(1, grey + 0.08))
        sunlight, skylight = sunlight * 0.15, tx.colour(0.6, 0.05, 0.9)
    elif kind == "sunset":
        zenith = tx.colour(rng.uniform(0.58, 0.75), rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.7))
        horizon = tx.colour(rng.uniform(0.02, 0.12), rng.uniform(0.35, 0.8), 1.0)
        sunlight, skylight = tx.colour(0.07, 0.5, 1.0) * 1.3, tx.colour(0.7, 0.2, 0.5)
    elif kind == "night":
        zenith, horizon = tx.colour(0.64, 0.6, rng.uniform(0.03, 0.3)), tx.colour(0.63, 0.4, rng.uniform(0.1, 0.4))
        sunlight, skylight = sunlight * 0.0, tx.colour(0.62, 0.4, 0.25)
    return Weather(kind, season, sun, sunlight, skylight, zenith, horizon)


def sky(rng: random.Random, weather: Weather):
    """The light from every direction: a gradient, clouds on a plane above, hills and trees along the horizon."""
    large, small = smooth_noise(rng, rng.uniform(0.8, 2.2), exponent=2.6), noise(rng, rng.uniform(30, 60), exponent=2.6)
    cover = {"clear": rng.uniform(1.0, 2.2), "overcast": -0.8, "sunset": rng.uniform(-0.3, 1.2), "night": 1.0}.get(
        weather.kind, rng.uniform(-0.4, 0.7)
    )
    sharpness = rng.uniform(0.5, 1.6)
    bright = weather.horizon * 1.15 if weather.kind in ("sunset", "night") else tx.colour(0.6, 0.02, 1.0) * 1.3
    ridge, hill = noise(rng, 40, exponent=2.2), rng.uniform(0.0, 0.12)
    wood = tx.colour(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.5))
    if weather.kind == "night":
        wood = wood * 0.05

    def light(x, y, z):
        length = np.sqrt(x * x + y * y + z * z)
        height = np.maximum(y / length, 0)
        picture = tx.blend(weather.horizon, weather.zenith, np.minimum(1.6 * height, 1) ** 0.6)
        plane = 1 / (height + 0.12)
        across, ahead = x / length * plane, z / length * plane
        density = large(across, ahead) + 0.45 * small(across, ahead) - cover
        white = np.clip(sharpness * density, 0, 1)
        shade = np.clip(1.05 - 0.2 * density - 0.12 * small(across + 0.1, ahead), 0.3, 1.1)
        picture = tx.blend(picture, bright * shade, white)
        skyline = hill + 0.02 * ridge(np.arctan2(x, z), np.zeros_like(x))
        land = wood * np.maximum(1 + 0.25 * small(across * 5, ahead), 0.3)
        return np.where(y / length < skyline, land, picture)

    return light


def add_ground(scene: Scene, rng: random.Random, weather: Weather, shadows: list) -> None:
    """Grass, paving or snow with a path to the door; `shadows` are (origin, u, v) on the ground, and drawn darker."""
    grass = tx.colour(rng.uniform(0.2, 0.3), rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.55))
    stone = tx.colour(rng.uniform(0.05, 0.13), rng.uniform(0.02, 0.25), rng.uniform(0.4, 0.8))
    kind = rng.choices(["grass", "paving", "asphalt"], [60, 28, 12])[0]
    if weather.season == "winter":
        grass = tx.colour(0.6, 0.04, 0.95) if rng.random() < 0.6 else tx.colour(0.14, 0.35, 0.5)
    elif weather.season == "autumn":
        grass = tx.colour(rng.uniform(0.1, 0.18), 0.5, 0.5)
    tufts, patches = noise(rng, 5), smooth_noise(rng, 0.15)
    if kind == "paving":
        ground = tx.tiles(rng, stone, rng.uniform(0.8, 2.5), stone * 0.55, stone * rng.uniform(0.6, 1.0))
    elif kind == "asphalt":
        ground = tx.plain(rng, tx.colour(0.6, 0.05, rng.uniform(0.3, 0.55)), 0.1, 6)
    else:
        path, half, bend = tx.plain(rng, stone, 0.15, 8), rng.uniform(0.8, 2.5), rng.uniform(-0.3, 0.3)
        has_path = rng.random() < 0.65

        def ground(x, z):
            lawn = grass * np.maximum(1 + 0.25 * tufts(x, z) + 0.15 * patches(x, z), 0.2)
            if not has_path:
                return lawn
            on_path = (np.abs(x - 250 - bend * (z - 250)) < half) & (z < 250)
            return np.where(on_path, path(x, z), lawn)

    scene.patch((-250.0, 0.0, -250.0), (500.0, 0.0, 0.0), (0.0, 0.0, 500.0), ground)
    for origin, u, v in shadows:
        # A patch has its own coordinates; what is left of the texture in the shade does not show the difference.
        shade = tx.plain(rng, (stone if kind == "paving" else grass) * 0.35, 0.2, 5)
        scene.patch(add(origin, UP, 0.02), u, v, shade)


def foliage(rng: random.Random, weather: Weather) -> np.ndarray:
    """A colour of leaves."""
    if weather.season == "autumn" and rng.random() < 0.8:
        return tx.colour(rng.uniform(0.02, 0.15), rng.uniform(0.6, 0.9), rng.uniform(0.4, 0.8))
    return tx.colour(rng.uniform(0.18, 0.36), rng.uniform(0.35, 0.75), rng.uniform(0.18, 0.5))


def add_tree(scene: Scene, rng: random.Random, weather: Weather, foot: Vector, height: float) -> None:
    """A broad tree, a conifer, a cypress, or in winter a bare one."""
    kind = rng.choices(["broad", "conifer", "cypress"], [70, 20, 10])[0]
    if weather.season == "winter" and kind == "broad":
        kind = "bare"
    leaf, clumps = foliage(rng, weather), noise(rng, 90, exponent=2.4, lowest=3)
    bark = tx.colour(0.08, rng.uniform(0.2, 0.5), rng.uniform(0.12, 0.3))
    speckle, masses = noise(rng, 7, exponent=1.2), smooth_noise(rng, 2.2 / height)

    def leaves(x, y):
        return leaf * np.maximum(0.75 + 0.45 * speckle(x, y) + 0.3 * masses(x, y) + 0.5 * (y / height - 0.5), 0.08)

    if kind == "broad":
        width, trunk = height * rng.uniform(0.6, 0.95), rng.uniform(0.15, 0.3)

        def shape(u, v):
            crown = clumps(u, v) * 0.28 + 1 - 4.2 * ((u - 0.5) ** 2 + (v - 0.5) ** 2)
            return crown > 0

        scene.billboard(foot, 0.05 * height, height * 0.45, tx.plain(rng, bark, 0.3, 6))
        scene.billboard(add(foot, UP, trunk * height), width, height * (1 - trunk), leaves, shape)
    elif kind == "bare":
        field = noise(rng, 130, 70, exponent=2.2, lowest=4)

        def branches(u, v):
            reach = 0.5 * np.sqrt(np.maximum(v - 0.15, 0)) * (1.15 - v) + 0.02
            thin = np.abs(field(u, v)) < 0.16 * (1.2 - v)
            return ((np.abs(u - 0.5) < reach) & thin) | (np.abs(u - 0.5) < 0.022 * (1.2 - v) * (v < 0.6))

        scene.billboard(foot, height * 0.9, height, tx.plain(rng, bark, 0.2, 6), branches)
    else:
        width, teeth = height * (0.4 if kind == "conifer" else 0.16), rng.randrange(5, 10)

        def pointed(u, v):
            taper = (1 - v) * (1 - 0.3 * ((v * teeth) % 1)) if kind == "conifer" else 1.9 * np.sqrt(v * (1 - v))
            return np.abs(2 * u - 1) < np.minimum(taper, 1) + 0.07 * clumps(u, v)

        scene.billboard(foot, width, height, leaves, pointed)


def add_surroundings(scene: Scene, rng: random.Random, weather: Weather, size: float) -> None:
    """Trees beside and behind the church (of about `size` metres), hedges, graves, a wall, neighbours, passers-by."""
    away = unit((-scene.position[0], 0.0, -scene.position[2]))
    side = (away[2], 0.0, -away[0])

    def place(across: float, beyond: float) -> Vector:
        """A point on the ground, `across` the line of sight and `beyond` the church."""
        return add(times(side, across), away, beyond)

    distance = math.hypot(scene.position[0], scene.position[2])
    for _ in range(rng.choice([0, 1, 2, 3, 5, 7, 10])):
        left_or_right = rng.choice([-1, 1])
        if rng.random() < 0.6:
            foot = place(rng.uniform(-1.3, 1.3) * size, rng.uniform(0.8, 1.6) * size)
        else:
            foot = place(left_or_right * rng.uniform(0.6, 1.1) * size * 0.8, -rng.uniform(0.1, 0.5) * distance)
        add_tree(scene, rng, weather, foot, rng.uniform(5, 16))
    if rng.random() < 0.12:  # a branch close to the camera
        foot = add(place(rng.choice([-1, 1]) * 1.6, 3.0 - distance), UP, scene.position[1] + 0.6)
        add_tree(scene, rng, weather, foot, 3.0)
    if rng.random() < 0.2:
        tone, beyond = tx.colour(0.1, 0.15, rng.uniform(0.4, 0.8)), -rng.uniform(0.4, 0.7) * distance
        start, u = place(-size * 1.5, beyond), times(side, size * 3)
        if rng.random() < 0.5:
            low = tx.masonry(rng, tone, 0.6, 0.3, tone * 0.6)
            scene.box(start, u, times(away, 0.4), (0.0, rng.uniform(0.6, 1.2), 0.0), low)
        else:
            leaf = tx.plain(rng, foliage(rng, weather), 0.5, 9)
            scene.box(start, u, times(away, 1.0), (0.0, rng.uniform(0.7, 1.3), 0.0), leaf)
    if rng.random() < 0.18:
        tone = tx.colour(rng.uniform(0.05, 0.2), 0.08, rng.uniform(0.35, 0.75))
        for _ in range(rng.randrange(4, 12)):
            foot = place(rng.uniform(-0.7, 0.7) * size, -rng.uniform(0.35, 0.8) * distance)
            wide, high = rng.uniform(0.5, 0.8), rng.uniform(0.7, 1.3)
            paint = tx.plain(rng, tone * rng.uniform(0.5, 1.1), 0.2, 10)
            scene.billboard(foot, wide, high, paint, lambda u, v: (v < 0.7) | ((u - 0.5) ** 2 + (v - 0.7) ** 2 < 0.16))
    if rng.random() < 0.2:
        for sign in rng.sample([-1, 1], rng.randrange(1, 3)):
            add_house(scene, rng, place(sign * rng.uniform(1.0, 1.5) * size, rng.uniform(-0.3, 0.8) * size))
    if rng.random() < 0.25:
        for _ in range(rng.randrange(2, 9)):
            foot = place(rng.uniform(-0.6, 0.6) * size, -rng.uniform(0.3, 0.7) * distance)
            cloth, skin = tx.palette(rng, 2)
            trousers = rng.uniform(0.4, 0.55)
            dress = _passer_by(cloth, skin, trousers)
            scene.billboard(
                foot, 0.5, 1.7, dress, lambda u, v: np.abs(u - 0.5) < np.where(v > 0.85, 0.15, 0.5 - 0.2 * v)
            )


def _passer_by(cloth: np.ndarray, legs: np.ndarray, waist: float) -> Paint:
    head = tx.colour(0.07, 0.5, 0.5)
    return lambda x, y: np.where(y > 1.45, head, np.where(y > 1.7 * waist, cloth, legs * 0.5))


def add_house(scene: Scene, rng: random.Random, corner: Vector) -> None:
    """A plain house with rows of windows and a pitched roof."""
    wide, deep, high = rng.uniform(7, 12), rng.uniform(8, 14), rng.uniform(5, 9)
    base = tx.colour(rng.uniform(0.02, 0.14), rng.uniform(0.05, 0.5), rng.uniform(0.5, 0.95))
    plaster, roof = tx.plain(rng, base, 0.05, 8), tx.rows(rng, tx.colour(0.03, rng.uniform(0.1, 0.6), 0.45), 0.35)

    def walls(x, y):
        (_, u), (_, v) = tx.cells(x, 2.4), tx.cells(y, 2.8)
        window = (np.abs(u - 0.5) < 0.2) & (np.abs(v - 0.55) < 0.25)
        return np.where(window, np.float32(0.04), plaster(x, y))

    a, b = (wide, 0.0, 0.0), (0.0, 0.0, deep)
    scene.box(corner, a, b, (0.0, high, 0.0), walls)
    ridge = rng.uniform(2.5, 4.5)
    eave = add(corner, UP, high)
    for start, rise in ((eave, wide / 2), (add(eave, a), -wide / 2)):
        scene.patch(start, b, (rise, ridge, 0.0), roof)
    for start in (eave, add(eave, b)):
        scene.patch(start, a, (0.0, ridge, 0.0), plaster, lambda u, v: np.abs(2 * u - 1) < 1 - v)
