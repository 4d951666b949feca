"""The blur that the paper means and the operator that the released code applies to an image of three colours.

Both are U D^p Uᵀ in the eigenbasis of the blur. In the released code the basis lays the modes of an RGB image out with
the three channels interleaved (element k = 3·mode + channel), while the vector of eigenvalues is repeated channel by
channel, so that element k gets the (k mod R²)-th eigenvalue, the modes being sorted from the largest to the smallest.
"""

import numpy as np
import scipy.signal

from blurdiff.config.settings import ProcessConfig
from blurdiff.diffusion import basis, families
from blurdiff.errors import UserError

SMALLEST = 16  # pixels: the test image has nothing to show below


def eigenvalues(settings: ProcessConfig, resolution: int, mode_order: str, channels: int = 3) -> np.ndarray:
    """D of every mode, (channels, R, R), as `mode_order` ("paper" or "released") hands it to the modes."""
    blur = basis.gaussian_blur(resolution, settings["sigma"], settings["border"])
    log_D = families.log_attenuation(blur, settings)
    if mode_order == "released":
        return np.exp(families.released_mode_order(log_D, channels))
    return np.broadcast_to(np.exp(log_D), (channels, resolution, resolution))


def apply_operator(image: np.ndarray, settings: ProcessConfig, mode_order: str, power: float = 1.0) -> np.ndarray:
    """U D^power Uᵀ of an image (C, R, R), channel by channel, in the image's own precision."""
    channels, resolution = len(image), image.shape[-1]
    U = basis.gaussian_blur(resolution, settings["sigma"], settings["border"]).matrix.astype(image.dtype)
    scale = (eigenvalues(settings, resolution, mode_order, channels) ** power).astype(image.dtype)
    return U @ (scale * (U.T @ image @ U)) @ U.T


def convolve(image: np.ndarray, sigma: float) -> np.ndarray:
    """The blur without any basis: each channel of (C, R, R) convolved with a (2R−1)×(2R−1) Gaussian, zeros outside."""
    k = np.arange(1 - image.shape[-1], image.shape[-1])
    kernel = np.exp(-(k[:, None] ** 2 + k[None, :] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    return np.stack([scipy.signal.convolve2d(channel, kernel, mode="same") for channel in image])


def half_open_blur_matrix(resolution: int, sigma: float) -> np.ndarray:
    """The 1-D blur matrix (R, R) from taps −(R − 1) ≤ k < R − 1, a half-open range: one corner entry is missing."""
    matrix = basis.blur_matrix(resolution, sigma)
    k = np.arange(1 - resolution, resolution - 1)
    taps = np.exp(-(k**2) / (2 * sigma**2))
    full = taps.sum() + np.exp(-((resolution - 1) ** 2) / (2 * sigma**2))
    matrix = matrix * (full / taps.sum())
    matrix[0, -1] = 0.0
    return matrix


def kernel_variance(sigma: float, reach: int = 200) -> float:
    """Variance in px² of a Gaussian of standard deviation `sigma` px sampled at whole pixels.

    Below about half a pixel it is less than σ²: 0.0808 instead of 0.16 at σ = 0.4.
    """
    k = np.arange(-reach, reach + 1)
    taps = np.exp(-(k**2) / (2 * sigma**2))
    return float((taps * k**2).sum() / taps.sum())


def equivalent_blur(sigma: float, total: float) -> float:
    """Standard deviation in px of the blur W^total: variances of repeated blurs add up."""
    return float(np.sqrt(total * kernel_variance(sigma)))


def draw_image(resolution: int) -> np.ndarray:
    """An RGB test image (3, R, R) float64 in [0, 1]: zone plate, colour bars, points of light, and slanted edges.

    Raises UserError below 16 pixels, where none of them can be drawn.
    """
    if resolution < SMALLEST:
        raise UserError(f"--resolution {resolution}: the test image needs {SMALLEST} pixels or more")
    half = resolution // 2
    image = np.zeros((3, resolution, resolution))
    y, x = np.mgrid[:half, :half] / half
    image[:, :half, :half] = 0.5 + 0.5 * np.cos(np.pi * half * (x**2 + y**2) / 2)  # up to half a cycle a pixel
    bars = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], float)
    columns = np.arange(resolution - half) * len(bars) // (resolution - half)
    image[:, :half, half:] = bars[columns].T[:, None, :]
    colours = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    spots = np.linspace(0, half, 5)[:-1].astype(int) + half // 8
    for row, first in zip(spots, range(4), strict=True):
        for column, spot in enumerate(spots):
            image[:, half + row, spot] = colours[(first + column) % 4]
    y, x = np.mgrid[half:resolution, half:resolution]
    stripe = (x * 2 + y) // max(resolution // 8, 1) % 3
    palette = np.array([[0.95, 0.35, 0.15], [0.1, 0.25, 0.55], [0.95, 0.9, 0.75]])
    image[:, half:, half:] = palette[stripe].transpose(2, 0, 1)
    return image
