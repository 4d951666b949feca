import random

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from blurdiff.data.synthetic.render import NOISE_SIZE, Scene, _blur, develop, lamp, noise_tile


def even(point, normal):
    return np.ones((3, point[0].size), np.float32)


def grey(value):
    return lambda x, y: np.full((3, len(x)), value, np.float32)


def test_a_square_has_the_size_that_perspective_gives_it():
    scene = Scene(64, 64, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 90)
    scene.patch((-0.5, -0.5, 2.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), grey(1))
    picture = scene.render(None, even)
    expected = np.zeros((64, 64))
    expected[24:40, 24:40] = 1  # 64 pixels see 4 m at a distance of 2 m
    assert np.array_equal(picture, np.stack([expected] * 3))


def test_edges_are_smooth():
    scene = Scene(64, 64, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 90)
    scene.patch((-0.5, -0.5, 2.0), (1.03125, 0.0, 0.0), (0.0, 1.0, 0.0), grey(1))
    assert np.allclose(scene.render(None, even)[0, 30, 38:42], [1, 1, 0.5, 0])


def test_a_floor_shows_its_positions_in_perspective():
    """A ray down to the floor at height -h meets it at depth h / tan: each pixel of one column is checked."""
    scene = Scene(64, 64, (5.0, 1.5, 3.0), (5.0, 1.5, 4.0), 90)
    scene.patch((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (0.0, 0.0, 100.0), lambda x, y: np.stack([x, y, 0 * x]))
    across, ahead, _ = scene.render(None, even)
    row, column = np.arange(40, 64), 50
    depth = 1.5 / ((row + 0.5 - 32) / 32)
    assert np.allclose(ahead[row, column], 3 + depth, rtol=1e-4)
    assert np.allclose(across[row, column], 5 + depth * (column + 0.5 - 32) / 32, rtol=1e-4)
    assert not ahead[:31].any()


def test_what_passes_the_camera_is_cut_off_not_turned_inside_out():
    scene = Scene(32, 32, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 90)
    scene.patch((1.0, -50.0, -5.0), (0.0, 0.0, 30.0), (0.0, 100.0, 0.0), grey(1))  # a wall on the right
    scene.patch((-1.0, -1.0, -1.0), (2.0, 0.0, 0.0), (0.0, 2.0, 0.0), grey(5))  # behind the camera
    picture = scene.render(None, even)[0]
    assert (picture[:, 17:] == 1).all()
    assert (picture[:, :16] == 0).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_patch_is_seen_whatever_was_added_first(order):
    scene = Scene(16, 16, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 60)
    for k in order:
        scene.patch((-9.0, -9.0, 2.0 + k), (18.0, 0.0, 0.0), (0.0, 18.0, 0.0), grey(k + 1))
    assert (scene.render(None, even) == 1).all()


def test_a_box_looks_the_same_from_all_its_corners_and_hides_its_back():
    pictures = []
    for x, z in ((3, 3), (-3, 3), (3, -3), (-3, -3)):
        scene = Scene(40, 40, (x, 2.5, z), (0.0, 0.0, 0.0), 50)
        scene.box((-1.0, -1.0, -1.0), (2.0, 0, 0), (0, 0, 2.0), (0, 2.0, 0), grey(1), grey(2))
        assert sum(number < 0 for number in scene._project()[0]) == 0
        assert len(scene._project()[0]) == 3
        pictures.append(scene.render(None, even))
    assert {1.0, 2.0} <= set(np.unique(pictures[0]))
    for picture in pictures[1:]:
        assert np.allclose(picture, pictures[0], atol=0.3)  # edges round to either side
        assert np.isclose(picture.mean(), pictures[0].mean(), rtol=1e-2)


def test_shapes_cut_holes_and_light_falls_on_what_does_not_shine():
    scene = Scene(32, 32, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 90)
    scene.patch((-1.0, -1.0, 1.0), (2.0, 0.0, 0.0), (0.0, 2.0, 0.0), grey(1), lambda u, v: u > 0.5)
    scene.patch((-2.0, -2.0, 2.0), (4.0, 0.0, 0.0), (0.0, 4.0, 0.0), grey(3), lambda u, v: v > 0.5, shines=True)
    picture = scene.render(lambda x, y, z: np.stack([x, y, z]) * 0 + 7, lambda point, normal: 0.5 * even(point, normal))
    assert (picture[:, :, 16:] == 0.5).all()
    assert (picture[:, :16, :16] == 3).all()
    assert (picture[:, 16:, :16] == 7).all()


def test_a_lamp_follows_the_cosine_and_the_square_of_the_distance():
    light = np.zeros((3, 3), np.float32)
    point = [np.array([0.0, 0.0, 3.0]), np.zeros(3), np.zeros(3)]
    normal = [np.zeros(3), np.array([1.0, -1.0, 1.0]), np.zeros(3)]
    lamp(light, point, normal, (0.0, 4.0, 0.0), (1.0, 2.0, 0.0), 0.0)
    assert np.allclose(light[0], [1 / 16, 0, 4 / 5 / 25])
    assert np.allclose(light[1], 2 * light[0])


@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_noise_has_the_spectrum_it_promises(exponent):
    tile = noise_tile(exponent)
    assert abs(tile.mean()) < 1e-5
    assert np.isclose(tile.std(), 1, atol=1e-5)
    power = np.abs(np.fft.fft2(tile.astype(float))) ** 2
    radius = np.hypot(np.fft.fftfreq(NOISE_SIZE)[:, None], np.fft.fftfreq(NOISE_SIZE)) * NOISE_SIZE
    rings = [power[(radius >= k) & (radius < 1.3 * k)].mean() for k in (4, 8, 16, 32, 64)]
    slope = np.polyfit(np.log([4, 8, 16, 32, 64]), np.log(rings), 1)[0]
    assert abs(slope + exponent) < 0.2


def test_a_photograph_uses_the_range_and_keeps_the_shape():
    picture = np.random.default_rng(0).uniform(0, 2, (3, 40, 60)).astype(np.float32)
    photograph = develop(picture, random.Random(0))
    assert photograph.shape == (40, 60, 3)
    assert photograph.dtype == np.uint8
    assert photograph.std() > 20
    assert np.array_equal(photograph, develop(picture, random.Random(0)))
    darker = develop(picture * 0.01, random.Random(0))  # the exposure makes up for it
    assert abs(darker.mean() - photograph.mean()) < 10


@pytest.mark.parametrize("size", [1, 2, 11, 12])
def test_glare_is_spread_by_the_mean_over_a_square(size):
    plane = np.random.default_rng(0).random((40, 61), np.float32)
    assert np.allclose(_blur(plane, size), uniform_filter(plane, size, mode="nearest"), atol=1e-5)
