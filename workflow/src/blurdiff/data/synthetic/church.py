"""Synthetic churches seen from outside, in the traditions of several countries, at all hours and in all weathers.

The church stands at the origin with its front towards -z; the nave runs along z. `building` makes its parts, and
`churchyard` what surrounds it.
"""

import math
import random

import numpy as np

from blurdiff.data.synthetic import textures as tx
from blurdiff.data.synthetic.building import Style, add_nave, add_towers
from blurdiff.data.synthetic.churchyard import Weather, add_ground, add_surroundings, make_weather, sky
from blurdiff.data.synthetic.render import Paint, Scene, develop, lamp

# How often, walls, trims, roofs, caps of towers, arches (radius in half widths: 1 round, 2 Gothic), towers, their tops.
TRADITIONS = {
    "gothic": (18, ["ashlar"], ["stone"], ["slate"], ["slate", "ashlar", "copper"], (1.6, 2.4),
               ["twin", "twin", "front", "crossing"], ["spire", "spire", "battlement"]),
    "parish": (16, ["rubble"], ["pale"], ["slate", "clay"], ["slate"], (1.8, 1.8),
               ["front", "front", "side"], ["battlement", "battlement", "broach", "saddle"]),
    "clapboard": (13, ["boards"], ["pale"], ["slate"], ["slate", "boards"], (1.0, 1.6),
                  ["front"], ["spire", "spire", "broach", "dome"]),
    "brick": (14, ["brick"], ["pale", "stone"], ["slate"], ["slate", "copper"], (1.0, 1.9),
              ["front", "side", "twin"], ["spire", "broach", "pyramid", "battlement"]),
    "orthodox": (10, ["plaster"], ["pale"], ["slate", "copper"], ["gold", "painted", "copper"], (1.0, 1.0),
                 ["crossing", "crossing", "front"], ["onion"]),
    "southern": (10, ["plaster"], ["pale"], ["clay"], ["clay"], (1.0, 1.0),
                 ["side", "twin", "front", "none"], ["pyramid", "pyramid", "dome", "saddle"]),
    "romanesque": (9, ["ashlar"], ["stone"], ["slate", "clay"], ["slate", "clay"], (1.0, 1.0),
                   ["crossing", "side", "twin"], ["pyramid", "pyramid", "saddle"]),
    "baroque": (10, ["plaster"], ["pale"], ["clay"], ["copper"], (1.0, 1.0),
                ["twin", "twin", "front"], ["dome", "onion"]),
}  # fmt: skip


def draw(rng: random.Random, width: int, height: int) -> np.ndarray:
    """A church, uint8 (height, width, 3), drawn from `rng` alone."""
    wide, long, high = rng.uniform(8, 14), rng.uniform(14, 32), rng.uniform(6, 12)
    style = make_style(rng)
    tall = {"none": high, "crossing": high * 1.6}.get(style.tower, high * rng.uniform(1.4, 2.4))
    azimuth = rng.choice([-1, 1]) * rng.uniform(0.0, 1.15) if rng.random() < 0.85 else rng.uniform(-3.1, 3.1)
    weather = make_weather(rng, azimuth)

    crown = {"spire": 0.7, "broach": 0.5, "onion": 0.3, "dome": 0.25, "pyramid": 0.2}.get(style.top, 0.07)
    total = max(tall * (1 + crown), high * 1.7)
    size = max(total, wide * 1.3 + 0.6 * long * abs(math.sin(azimuth)))
    view = rng.uniform(42, 66)
    aspect = width / height
    vertical = 2 * math.atan(math.tan(math.radians(view) / 2) / aspect)
    distance = size / 2 / math.tan(min(vertical, math.radians(view)) / 2) * rng.uniform(0.75, 1.25)
    eye = 1.7 if rng.random() < 0.75 else rng.uniform(3, 0.7 * total)
    middle = (0.0, 0.0, long * 0.35)
    ahead = math.cos(azimuth)
    beyond = long * (0.3 if ahead > 0 else 0.6)  # from the middle to the nearer end
    position = (-math.sin(azimuth) * distance, eye, middle[2] - ahead * (distance + beyond))
    target = (rng.gauss(0, 0.08) * size, total * rng.uniform(0.38, 0.52), middle[2])
    scene = Scene(width, height, position, target, view, rng.gauss(0, 0.012))

    add_nave(scene, rng, style, wide, long, high)
    footprints = [(-wide / 2, 0.0, wide, long, high)]
    footprints += add_towers(scene, rng, style, wide, long, high, tall)
    add_surroundings(scene, rng, weather, size)
    add_ground(scene, rng, weather, _shadows(weather, footprints))
    return develop(scene.render(sky(rng, weather), _light(rng, weather, size)), rng)


def make_style(rng: random.Random) -> Style:
    """A building tradition with its materials, in one of its variants."""
    names = list(TRADITIONS)
    name = rng.choices(names, [TRADITIONS[name][0] for name in names])[0]
    _, walls, trims, roofs, caps, arches, towers, tops = TRADITIONS[name]
    stone = tx.colour(rng.uniform(0.06, 0.13), rng.uniform(0.05, 0.4), rng.uniform(0.45, 0.9))
    roof = material(rng, rng.choice(roofs), stone)
    return Style(
        name=name,
        wall=material(rng, rng.choice(walls), stone),
        trim=stone * 1.15
        if rng.choice(trims) == "stone"
        else tx.colour(0.12, rng.uniform(0, 0.2), rng.uniform(0.75, 0.97)),
        roof=roof,
        cap=roof if roofs == caps else material(rng, rng.choice(caps), stone),
        glass=tx.colour(rng.uniform(0.55, 0.7), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.3)),
        pointed=rng.uniform(*arches),
        tower=rng.choice(towers),
        top=rng.choice(tops),
    )


def material(rng: random.Random, name: str, stone: np.ndarray) -> Paint:
    """A wall, a roof or a metal; `stone` is the colour of the stone of the place."""
    uniform = rng.uniform
    if name == "ashlar":
        joint = stone * uniform(0.45, 0.8)
        return tx.masonry(rng, stone, uniform(0.8, 1.4), uniform(0.4, 0.7), joint, uniform(0.08, 0.22))
    if name == "rubble":
        return tx.masonry(rng, stone, uniform(0.35, 0.6), uniform(0.2, 0.35), stone * uniform(0.45, 0.8), 0.28)
    if name == "brick":
        red = tx.colour(uniform(0.0, 0.05), uniform(0.45, 0.7), uniform(0.4, 0.7))
        return tx.masonry(rng, red, 0.5, 0.18, red * 0.7 + 0.08, 0.15)
    if name == "plaster":
        tone = tx.colour(uniform(0.03, 0.16), uniform(0.02, 0.5), uniform(0.75, 1))
        return tx.with_noise(tx.plain(rng, tone, 0.08, 1.5), rng, 0.05, 14)
    if name == "boards":
        tone = tx.colour(uniform(0.08, 0.15), uniform(0, 0.15), uniform(0.85, 1))
        if rng.random() < 0.15:
            tone = tx.colour(uniform(0.0, 0.15), uniform(0.2, 0.6), uniform(0.5, 0.8))
        return tx.rows(rng, tone, uniform(0.22, 0.4), 0.3, 0.03)
    if name == "slate":
        return tx.rows(rng, tx.colour(uniform(0.55, 0.7), uniform(0.05, 0.25), uniform(0.25, 0.5)), 0.5)
    if name == "clay":
        return tx.rows(rng, tx.colour(uniform(0.01, 0.06), uniform(0.4, 0.7), uniform(0.4, 0.75)), 0.5)
    if name == "copper":
        return tx.rows(rng, tx.colour(uniform(0.4, 0.48), uniform(0.2, 0.5), uniform(0.45, 0.75)), 0.9, 0.15)
    if name == "gold":
        return tx.plain(rng, tx.colour(0.12, 0.75, 0.95), 0.1, 3)
    return tx.plain(rng, tx.colour(uniform(0.33, 0.66), 0.65, uniform(0.35, 0.7)), 0.1, 3)  # painted


def _shadows(weather: Weather, footprints: list) -> list:
    """Parallelograms on the ground: what the sun's light does not reach behind the footprints."""
    if weather.kind in ("overcast", "night"):
        return []
    shadows = []
    for x, z, wide, deep, tall in footprints:
        reach = min(tall / weather.sun[1], 40.0)
        v = (-weather.sun[0] * reach, 0.0, -weather.sun[2] * reach)
        shadows.append(((x, 0.0, z), (wide, 0.0, 0.0), v))
        shadows.append(((x, 0.0, z), (0.0, 0.0, deep), v))
        shadows.append(((x + wide, 0.0, z), (0.0, 0.0, deep), v))
    return shadows


def _light(rng: random.Random, weather: Weather, size: float):
    """Sun and sky, or at night floodlights before the church."""
    flood = [(rng.uniform(-1, 1) * size, 0.5, -rng.uniform(0.3, 0.8) * size) for _ in range(2)]
    warm = tx.colour(rng.uniform(0.06, 0.14), rng.uniform(0.1, 0.4), 1.0)[:, 0] * size * size * 0.12

    def light(point, normal):
        cosine = normal[0] * weather.sun[0] + normal[1] * weather.sun[1] + normal[2] * weather.sun[2]
        total = weather.skylight * (0.75 + 0.25 * normal[1]) + weather.sunlight * np.maximum(cosine, 0)
        if weather.kind == "night":
            for position in flood:
                lamp(total, point, normal, position, tuple(warm), size * 0.3)
        return total

    return light
