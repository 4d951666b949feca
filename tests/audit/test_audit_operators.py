"""The operators against a direct convolution and against the released layout written out as one large matrix."""

import numpy as np
import pytest
import scipy.ndimage

from blurdiff.audit import operators
from blurdiff.audit.settings import paper_process
from blurdiff.diffusion.basis import blur_matrix, gaussian_blur
from blurdiff.errors import UserError

SETTINGS = paper_process()


def random_image(resolution, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(size=(channels, resolution, resolution))


@pytest.mark.parametrize("resolution", [5, 16])
def test_paper_operator_is_the_blur(resolution):
    image = random_image(resolution)
    offsets = np.arange(1 - resolution, resolution)
    taps = np.exp(-(offsets**2) / (2 * 0.4**2))
    expected = image
    for axis in (1, 2):
        expected = scipy.ndimage.convolve1d(expected, taps / taps.sum(), axis=axis, mode="constant")
    np.testing.assert_allclose(operators.convolve(image, 0.4), expected, atol=1e-14)
    np.testing.assert_allclose(operators.apply_operator(image, SETTINGS, "paper"), expected, atol=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
def test_released_operator_is_its_layout_as_one_matrix(channels):
    R = 5
    basis = gaussian_blur(R, 0.4)
    D = np.outer(basis.attenuation, basis.attenuation).ravel()
    order = np.argsort(-D, kind="stable")
    # Columns: modes sorted by D, for each mode all channels; rows: channel-first images.
    modes = np.kron(basis.matrix, basis.matrix)[:, order]
    layout = np.zeros((channels * R * R, channels * R * R))
    for channel in range(channels):
        layout[channel * R * R : (channel + 1) * R * R, channel::channels] = modes
    repeated = np.tile(D[order], channels)  # channel by channel
    image = random_image(R, channels)
    expected = (layout @ (repeated**2.5 * (layout.T @ image.ravel()))).reshape(image.shape)
    applied = operators.apply_operator(image, SETTINGS, "released", 2.5)
    np.testing.assert_allclose(applied, expected, atol=1e-12)
    blurred = operators.apply_operator(image, SETTINGS, "paper", 2.5)
    assert np.allclose(applied, blurred, atol=1e-12) == (channels == 1)


def test_released_operator_error_of_the_paper_resolution():
    image = random_image(64)
    direct = operators.convolve(image, 0.4)
    assert np.abs(operators.apply_operator(image, SETTINGS, "released") - direct).max() == pytest.approx(
        0.11, abs=0.005
    )
    assert np.abs(operators.apply_operator(image[:1], SETTINGS, "released") - direct[:1]).max() < 1e-13
    single = operators.apply_operator(image[:1].astype(np.float32), SETTINGS, "released")
    assert single.dtype == np.float32
    assert np.abs(single - direct[:1]).max() < 3e-6


def test_half_open_kernel_lacks_one_corner():
    full, half_open = blur_matrix(9, 4.0), operators.half_open_blur_matrix(9, 4.0)
    assert half_open[0, -1] == 0
    assert half_open[-1, 0] > 0
    np.testing.assert_allclose(half_open / half_open[4, 4], np.where(half_open == 0, 0, full / full[4, 4]))
    taps = np.exp(-(np.arange(-8, 8) ** 2) / (2 * 4.0**2))
    assert half_open[4, 4] == pytest.approx(1 / taps.sum())
    assert (operators.half_open_blur_matrix(64, 0.4) == blur_matrix(64, 0.4)).all()


def test_equivalent_blur_is_the_width_of_a_repeated_blur():
    image = np.zeros((1, 33, 33))
    image[0, 16, 16] = 1
    for _ in range(4):
        image = operators.convolve(image, 0.7)
    profile = image[0].sum(axis=0) / image.sum()
    width = np.sqrt((profile * (np.arange(33) - 16) ** 2).sum())
    assert operators.equivalent_blur(0.7, 4) == pytest.approx(width, rel=1e-6)


def test_test_image():
    image = operators.draw_image(64)
    assert image.shape == (3, 64, 64)
    assert image.min() >= 0
    assert image.max() <= 1
    assert (image.std(axis=(1, 2)) > 0.2).all()
    assert (operators.draw_image(17) >= 0).all()
    with pytest.raises(UserError, match="--resolution 15"):
        operators.draw_image(15)


def test_settings_refuse_an_unknown_key():
    assert paper_process(f_type="log")["f_type"] == "log"
    with pytest.raises(UserError, match="process.f_tpye"):
        paper_process(f_tpye="log")
