import random

import numpy as np
import pytest
from PIL import Image

from blurdiff.data.synthetic import canvas as drawing
from blurdiff.data.synthetic.canvas import FLAT, FULL, UP, Canvas, X, Z
from blurdiff.data.synthetic.textures import TILE, noise_tile

WHITE = (1.0, 1.0, 1.0)


@pytest.fixture
def seen(monkeypatch):
    """What a camera with 90° sees that looks along z from the origin: linear light (64, 64), not developed."""
    monkeypatch.setattr(drawing, "develop", lambda picture, _: picture)

    def look(*face, brightness=1.0, **options):
        canvas = Canvas(64, 64, (0.0, 0.0, 0.0), Z, 90)
        canvas.face(9 * Z - 20 * UP, 9 * X, UP, WHITE)  # below the picture
        canvas.face(-Z - X - UP, 2 * X, 2 * UP, WHITE)  # behind the camera
        canvas.face(*face, **options)
        return canvas.finish(lambda points, normals: 0 * points + brightness, random.Random(0))[0]

    return look


def test_faces_have_the_size_that_perspective_gives_them_and_end_at_the_camera(seen):
    picture, expected = seen(2 * Z - 0.5 * (X + UP), X, UP, WHITE), np.zeros((64, 64))
    expected[24:40, 24:40] = 1  # 64 pixels see 4 m at a distance of 2 m
    assert abs(picture.sum() - 256) < 30  # Pillow draws edges a little wider
    assert (np.abs(picture - expected) < 0.03).mean() > 0.98
    wall = seen(X - 50 * UP - 5 * Z, 30 * Z, 100 * UP, WHITE)
    assert (wall[:, 34:] > 0.9).all() and not wall[:, :31].any()


def test_an_image_stands_upright_and_lies_in_perspective(seen):
    halves = Image.fromarray(np.repeat(np.uint8([[[200] * 3], [[20] * 3]]), 32, axis=0).repeat(8, axis=1))
    wall = seen(Z - X - UP, 2 * X, 2 * UP, halves)
    assert wall[:31].min() > 10 * wall[33:].max() > 0
    # A floor 1 m below the camera, from 1 m to 5 m ahead: its end is seen in row 32 + 32 / 5, its middle at 32 / 3.
    floor = seen(Z - 4 * X - UP, 8 * X, 4 * Z, halves)[:, 32]
    assert not floor[:38].any() and (floor[39:42] > 0.3).all() and (floor[44:] > 0).all() and (floor[44:] < 0.1).all()


@pytest.mark.parametrize("position", [(3.0, 2.5, 3.0), (-3.0, 2.5, 3.0), (3.0, 2.5, -3.0), (-3.0, 2.5, -3.0)])
def test_a_box_hides_its_back(position):
    canvas = Canvas(40, 40, position, 0 * X, 50)
    canvas.box(-X - UP - Z, 2 * X, 2 * Z, 2 * UP, WHITE)
    _, rectangles, _, normals = canvas._project(np.array([face[0] for face in canvas.faces]))
    seen = [k for k, (x0, _, x1, _) in enumerate(rectangles) if x0 < x1]
    assert len(seen) == 3 and (normals[seen] @ position > 1).all()


def test_light_falls_on_what_does_not_shine_by_cosine_and_square_of_the_distance(seen):
    square, half = (Z - X - UP, 2 * X, 2 * UP), {"brightness": 0.5}
    assert np.allclose(seen(*square, WHITE, **half)[10:50, 10:50], 0.5, atol=0.02)
    assert np.allclose(seen(*square, WHITE, **half, shines=True)[10:50, 10:50], FULL)
    image = Image.new("RGB", (9, 9), "white")
    assert np.allclose(seen(*square, image, **half, relief=FLAT / 2)[10:50, 10:50], 0.25, atol=0.02)
    light, points = np.zeros((3, 3), np.float32), np.float32([[0, 3, 0], [0, 0, 0], [3, 0, 0]])
    drawing.lamp(light, points, np.float32([UP, -UP, UP]), (0, 4, 0), (1, 2, 3), 0.0)
    assert np.allclose(light, np.outer([1, 0, 4 / 125], [1, 2, 3]))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_noise_has_the_spectrum_it_promises(exponent):
    power = np.abs(np.fft.fft2(noise_tile(exponent).astype(float))) ** 2
    radius = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE)) * TILE
    rings = [power[(radius >= k) & (radius < 1.3 * k)].mean() for k in (4, 8, 16, 32, 64)]
    assert abs(np.polyfit(np.log([4, 8, 16, 32, 64]), np.log(rings), 1)[0] + exponent) < 0.2
