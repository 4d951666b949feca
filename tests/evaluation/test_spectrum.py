import numpy as np
import pytest

from blurdiff.errors import UserError
from blurdiff.evaluation.spectrum import radial_power_spectrum


def noise(n, resolution, deviation, seed=0):
    values = np.random.default_rng(seed).normal(128, deviation, size=(n, resolution, resolution, 3))
    return np.rint(values).clip(0, 255).astype(np.uint8)


def test_white_noise_is_flat_at_its_variance():
    images = noise(300, 16, 20)
    frequencies, power = radial_power_spectrum(images)
    np.testing.assert_allclose(frequencies, np.arange(12) / 16)
    # Rounding to whole grey values adds 1/12. A band has at least 3 x 300 modes: 1/√900 is one standard deviation.
    np.testing.assert_allclose(power[1:], (20**2 + 1 / 12) / 255**2, rtol=0.12)


def test_sinusoid_stands_in_its_band_alone():
    resolution, cycles, amplitude = 32, 8, 100
    wave = np.rint(amplitude * np.cos(2 * np.pi * cycles * np.arange(resolution) / resolution))  # 100, 0, -100, 0
    images = np.broadcast_to((128 + wave)[None, None, :, None], (2, resolution, resolution, 3)).astype(np.uint8)
    _, power = radial_power_spectrum(images)
    u = np.arange(-16, 16)
    modes = (np.rint(np.sqrt(u[:, None] ** 2 + u[None] ** 2)) == cycles).sum()
    expected = np.zeros(len(power))
    expected[0] = (128 / 255) ** 2 * resolution**2
    expected[cycles] = 2 * (amplitude / 255 * resolution / 2) ** 2 / modes  # two modes of |F| = R² a / 2
    np.testing.assert_allclose(power, expected, atol=1e-12 * expected[0])


def test_bands_hold_all_power():
    images = np.random.default_rng(1).integers(0, 256, (3, 10, 10, 3), dtype=np.uint8)
    _, power = radial_power_spectrum(images)
    u = np.fft.fftfreq(10, 0.1)
    counts = np.bincount(np.rint(np.hypot(u[:, None], u)).astype(int).ravel())
    assert (power * counts).sum() / 100 == pytest.approx(((images / 255) ** 2).mean(), rel=1e-12)


def test_batches_do_not_change_it():
    images = noise(300, 8, 40)  # more than one batch
    parts = [radial_power_spectrum(images[a:b])[1] for a, b in ((0, 100), (100, 200), (200, 300))]
    np.testing.assert_allclose(radial_power_spectrum(images)[1], np.mean(parts, axis=0), rtol=1e-12)


def test_twice_the_contrast_is_four_times_the_power_and_blur_shows_at_high_frequencies_only():
    real = noise(200, 16, 10, seed=2)
    frequencies, power = radial_power_spectrum(real)
    np.testing.assert_allclose(radial_power_spectrum(noise(200, 16, 20, seed=3))[1][1:] / power[1:], 4, rtol=0.3)
    blurred = ((real.astype(int) + np.roll(real, 1, axis=2) + np.roll(real, 1, axis=1)) // 3).astype(np.uint8)
    ratio = radial_power_spectrum(blurred)[1] / power
    assert ratio[1] > 0.8 and (ratio[frequencies > 0.45] < 0.4).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 4, 3), np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_bad_images(images):
    with pytest.raises(UserError, match="power spectrum needs"):
        radial_power_spectrum(images)
