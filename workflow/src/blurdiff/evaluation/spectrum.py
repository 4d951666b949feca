"""Power spectra of images, averaged over direction: how much detail of each size samples have, against real images.

A blur schedule decides when a frequency is lost and made anew; so where it fails shows here, band by band.
"""

import numpy as np

from blurdiff.errors import UserError

BATCH = 256


def radial_power_spectrum(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (K,) in cycles per pixel, and the mean power (K,) of images uint8 (n, R, R, 3) around them, float64.

    With u, v in -R/2..R/2 the frequencies of the two-dimensional Fourier transform F of a channel with values in
    [0, 1], the power of a mode is |F|²/R²: white noise of variance s² has s² everywhere, and the mean over all modes
    is the mean square. Band k = 0..K-1 averages the modes with round(√(u² + v²)) = k, over images and channels; its
    frequency is k/R. The last bands, above 0.5, are the corners (diagonals up to √½). No window is applied: edges leak
    into high frequencies alike in real images and samples. Raises UserError for anything but such images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise UserError(f"a power spectrum needs images, uint8 (n, R, R, 3), not {images.dtype} {images.shape}")
    if 0 in images.shape:
        raise UserError("a power spectrum needs at least one image")
    resolution = images.shape[1]
    power = np.zeros((resolution, resolution))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH] / 255.0
        power += (np.abs(np.fft.fft2(batch, axes=(1, 2))) ** 2).sum(axis=(0, 3))
    power /= 3 * len(images) * resolution**2
    frequency = np.fft.fftfreq(resolution, 1 / resolution)
    band = np.rint(np.hypot(*np.meshgrid(frequency, frequency))).astype(int).ravel()
    mean = np.bincount(band, power.ravel()) / np.bincount(band)
    return np.arange(len(mean)) / resolution, mean


def power_of_data(images: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of `n` images of a data set, evenly spread over it, or of all if they are fewer; may be a memory map."""
    pick = np.linspace(0, len(images) - 1, min(n, len(images))).round().astype(int)
    return radial_power_spectrum(np.asarray(images[pick]))
