import random

import numpy as np
import pytest
from PIL import Image

from blurdiff.data.synthetic import canvas as drawing
from blurdiff.data.synthetic.canvas import FLAT, FULL, UP, Canvas, X, Z
from blurdiff.data.synthetic.textures import TILE, Material, noise_tile, patterns, sheet


@pytest.fixture
def seen(monkeypatch):
    """Linear light (height, width) that a camera at `position`, looking along z with 90°, sees; not developed."""
    monkeypatch.setattr(drawing, "develop", lambda picture, _: picture)

    def look(add, position=(0.0, 0.0, 0.0), light=lambda points, normals: 0 * points + 1):
        canvas = Canvas(64, 64, position, np.array(position) + Z, 90)
        add(canvas)
        return canvas.finish(light, random.Random(0))[0]

    return look


def test_a_square_has_the_size_that_perspective_gives_it(seen):
    picture = seen(lambda canvas: canvas.face(2 * Z - 0.5 * (X + UP), X, UP, (1.0, 1.0, 1.0)))
    expected = np.zeros((64, 64))
    expected[24:40, 24:40] = 1  # 64 pixels see 4 m at a distance of 2 m
    assert (np.abs(picture - expected) < 0.03).mean() > 0.98  # Pillow draws edges a little wider
    assert abs(picture.sum() - 256) < 30


def test_an_image_stands_upright_and_lies_in_perspective(seen):
    halves = Image.fromarray(np.repeat(np.uint8([[[200] * 3], [[20] * 3]]), 32, axis=0).repeat(8, axis=1))
    wall = seen(lambda canvas: canvas.face(Z - X - UP, 2 * X, 2 * UP, halves))
    assert wall[:31].min() > 10 * wall[33:].max() > 0
    # A floor 1 m below the camera, from 1 m to 5 m ahead: its end is seen in row 32 + 32 / 5, its middle at 32 / 3.
    floor = seen(lambda canvas: canvas.face(Z - 4 * X - UP, 8 * X, 4 * Z, halves))[:, 32]
    assert not floor[:38].any() and (floor[39:42] > 0.3).all() and (floor[44:] > 0).all() and (floor[44:] < 0.1).all()


def test_what_passes_the_camera_is_cut_off_not_turned_inside_out(seen):
    def add(canvas):
        canvas.face(X - 50 * UP - 5 * Z, 30 * Z, 100 * UP, (1.0, 1.0, 1.0))  # a wall on the right
        canvas.face(-Z - X - UP, 2 * X, 2 * UP, (1.0, 1.0, 1.0))  # behind the camera

    picture = seen(add)
    assert (picture[:, 34:] > 0.9).all() and not picture[:, :31].any()


def test_a_box_looks_the_same_from_all_its_corners_and_hides_its_back():
    for x, z in ((3, 3), (-3, 3), (3, -3), (-3, -3)):
        canvas = Canvas(40, 40, (x, 2.5, z), 0 * X, 50)
        canvas.box(-X - UP - Z, 2 * X, 2 * Z, 2 * UP, (1.0, 1.0, 1.0))
        shapes, _, normals = canvas._project(np.array([face[0] for face in canvas.faces]))
        assert sum(bool(corners) for corners, _ in shapes) == 3
        assert [(normals[k] @ np.array([x, 2.5, z]) > 1).item() for k, (c, _) in enumerate(shapes) if c] == [True] * 3


def test_light_follows_the_cosine_and_the_square_of_the_distance_and_spares_what_shines(seen):
    light, points = np.zeros((3, 3), np.float32), np.float32([[0, 3, 0], [0, 0, 0], [3, 0, 0]])
    drawing.lamp(light, points, np.float32([[0, 1, 0], [0, -1, 0], [0, 1, 0]]), (0, 4, 0), (1, 2, 3), 0.0)
    assert np.allclose(light, np.outer([1, 0, 4 / 125], [1, 2, 3]))
    half = seen(lambda canvas: canvas.face(Z - X - UP, 2 * X, 2 * UP, (1.0, 1.0, 1.0)), light=lambda p, n: 0 * p + 0.5)
    assert np.allclose(half[10:50, 10:50], 0.5, atol=0.02)
    shining = seen(lambda canvas: canvas.face(Z - X - UP, 2 * X, 2 * UP, (1.0, 1.0, 1.0), shines=True))
    assert np.allclose(shining[10:50, 10:50], FULL)
    lit = seen(
        lambda canvas: canvas.face(Z - X - UP, 2 * X, 2 * UP, Image.new("RGB", (9, 9), "white"), relief=FLAT / 2)
    )
    assert np.allclose(lit[10:50, 10:50], 0.5, atol=0.02)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_noise_has_the_spectrum_it_promises(exponent):
    tile = noise_tile(exponent)
    assert abs(tile.mean()) < 1e-5 and np.isclose(tile.std(), 1, atol=1e-5)
    power = np.abs(np.fft.fft2(tile.astype(float))) ** 2
    radius = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE)) * TILE
    rings = [power[(radius >= k) & (radius < 1.3 * k)].mean() for k in (4, 8, 16, 32, 64)]
    assert abs(np.polyfit(np.log([4, 8, 16, 32, 64]), np.log(rings), 1)[0] + exponent) < 0.2


@pytest.mark.parametrize("name", patterns())
def test_a_sheet_has_the_colours_of_its_material(name):
    tones = [(0.8, 0.1, 0.1), (0.1, 0.7, 0.1), (0.1, 0.1, 0.9), (0.5, 0.5, 0.5)]
    image = sheet(random.Random(1), Material(name, tones, 1.0, 0.0), 2.0, 1.0, 100)
    assert image.size == (200, 100)
    expected = {tuple(int(255 * part) for part in tone) for tone in tones}
    assert {colour for _, colour in image.getcolors()} <= expected


def test_a_photograph_uses_the_range_whatever_the_light():
    picture = np.random.default_rng(0).uniform(0, 2, (3, 40, 60)).astype(np.float32)
    photograph, darker = (drawing.develop(picture * scale, random.Random(0)) for scale in (1, 0.01))
    assert photograph.shape == (40, 60, 3) and photograph.dtype == np.uint8 and photograph.std() > 20
    assert abs(darker.mean() - photograph.mean()) < 10
