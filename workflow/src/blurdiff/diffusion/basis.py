"""Orthonormal bases of R×R images: separable, so that one R×R matrix holds a whole basis. float64.

Mode (m, n) of an image x is (Uᵀ x U)[m, n]; a column of U is a one-dimensional mode. `laplacian` orders the modes from
coarse to fine (it is their λ in heat dissipation, in rad²/px²), `attenuation` is what one application of a blur leaves
of a mode.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from blurdiff.config import settings as config
from blurdiff.config.keys import check_names
from blurdiff.errors import UserError, check_known

BORDERS: dict[str, Any] = {"zero": "constant", "circular": "wrap", "reflect": "symmetric"}  # and what numpy calls them


@dataclass(frozen=True)
class Basis:
    """`matrix` U (R, R); `laplacian` λ (R,) of each column; `attenuation` d (R,) in (0, 1], None without a blur.

    `is_identity` lets transforms be skipped in the pixel basis.
    """

    matrix: np.ndarray
    laplacian: np.ndarray
    attenuation: np.ndarray | None = None
    is_identity: bool = False


def blur_matrix(resolution: int, sigma: float, border: str = "zero") -> np.ndarray:
    """The R×R matrix of a 1-D Gaussian blur of standard deviation `sigma` pixels; W x = B x Bᵀ blurs an image.

    Taps exp(−k²/2σ²), |k| < R, normalised over these 2R − 1. Beyond the border lies: zero, the other side
    (circular), or the mirror image with the edge pixel doubled (reflect, scipy.ndimage's name). Symmetric in each case.
    """
    check_known("process.border", border, BORDERS)
    beyond = resolution - 1
    taps = np.exp(-(np.arange(-beyond, resolution) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    pixels = np.pad(np.eye(resolution), [(beyond, beyond), (0, 0)], mode=BORDERS[border])  # row j is pixel j − beyond
    matrix = np.zeros((resolution, resolution))
    for k, tap in enumerate(taps):
        matrix += tap * pixels[k : k + resolution]
    return (matrix + matrix.T) / 2  # symmetric up to rounding already; exactly so for eigh


def gaussian_blur(resolution: int, sigma: float, border: str = "zero", scale: float = 1.0) -> Basis:
    """The eigenbasis of a Gaussian blur (the paper's Ũ), from the mode that it attenuates least to the one most.

    `sigma` is in pixels of an image of `resolution`/`scale` pixels. Where that is larger, the blur is one of those, and
    the modes here have the attenuation of its coarsest: a blur of a fraction of a pixel cannot be sampled here.
    """
    if scale > 1:
        sigma, scale = sigma * scale, 1.0
    eigenvalues, vectors = np.linalg.eigh(blur_matrix(resolution, sigma, border))
    if scale < 1:
        eigenvalues = np.linalg.eigvalsh(blur_matrix(round(resolution / scale), sigma, border))[-resolution:]
    if eigenvalues[0] < 1e-12:  # below, rounding decides value and sign
        raise UserError(f"process.sigma: a blur of {sigma} px is not invertible at {resolution} px; give less")
    k = np.arange(resolution)
    # Exact for reflect and circular (where a sine and a cosine share one), close for zero.
    half_cycles = {"zero": (k + 1) * resolution / (resolution + 1), "reflect": k, "circular": (k + 1) // 2 * 2}[border]
    laplacian = (np.pi * half_cycles / resolution) ** 2
    return Basis(np.ascontiguousarray(vectors[:, ::-1]), laplacian, np.minimum(eigenvalues[::-1], 1.0))


def dct(resolution: int) -> Basis:
    """The cosine basis (DCT-II): heat dissipation with insulated borders."""
    matrix = scipy.fft.dct(np.eye(resolution), norm="ortho", axis=0).T
    return Basis(matrix, (np.pi * np.arange(resolution) / resolution) ** 2)


def dst(resolution: int) -> Basis:
    """The sine basis (DST-I): heat dissipation with borders held at zero."""
    matrix = scipy.fft.dst(np.eye(resolution), type=1, norm="ortho", axis=0).T
    return Basis(matrix, (np.pi * np.arange(1, resolution + 1) / (resolution + 1)) ** 2)


def haar(resolution: int) -> Basis:
    """The Haar wavelet basis; where a length is odd the left half is one pixel longer, still orthonormal.

    λ of a wavelet of support s is (π / s)²; of the constant, 0.
    """
    columns, laplacian = [np.full(resolution, resolution**-0.5)], [0.0]
    intervals = [(0, resolution)]
    while intervals:
        start, stop = intervals.pop(0)
        length = stop - start
        if length < 2:
            continue
        middle = start + (length + 1) // 2
        left, right = middle - start, stop - middle
        wavelet = np.zeros(resolution)
        wavelet[start:middle] = np.sqrt(right / (left * length))
        wavelet[middle:stop] = -np.sqrt(left / (right * length))
        columns.append(wavelet)
        laplacian.append((np.pi / length) ** 2)
        intervals += [(start, middle), (middle, stop)]
    order = np.argsort(laplacian, kind="stable")
    return Basis(np.stack(columns, axis=1)[:, order], np.array(laplacian)[order])


def pixel(resolution: int) -> Basis:
    """No transform: every pixel is a mode, as in standard diffusion; λ = 0, no mode is finer than another."""
    return Basis(np.eye(resolution), np.zeros(resolution), is_identity=True)


BASES = {"dct": dct, "dst": dst, "haar": haar, "pixel": pixel}
check_names(["gaussian-blur", *BASES], config.BASES, "basis.BASES")


def make_basis(name: str, resolution: int, sigma: float, border: str, scale: float = 1.0) -> Basis:
    """The basis of a config: "gaussian-blur" (which alone uses sigma, border and scale) or a key of BASES."""
    if name == "gaussian-blur":
        return gaussian_blur(resolution, sigma, border, scale)
    check_known("process.basis", name, ["gaussian-blur", *BASES])
    return BASES[name](resolution)
