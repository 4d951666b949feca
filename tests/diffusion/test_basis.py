"""Bases are orthonormal and diagonalise what they should; the paper's numbers of the blur."""

import numpy as np
import pytest
import scipy.linalg
from diffusion_helpers import blur_operator, convolve, gaussian_taps

from blurdiff.diffusion import basis

SIZES = [*range(1, 10), 64]
EVERY_BASIS = [("gaussian-blur", border) for border in basis.BORDERS] + [(name, "zero") for name in basis.BASES]


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize(("name", "border"), EVERY_BASIS)
def test_orthonormal(name, border, resolution):
    made = basis.make_basis(name, resolution, 0.4, border)
    assert made.matrix.shape == (resolution, resolution)
    assert made.matrix.dtype == np.float64
    np.testing.assert_allclose(made.matrix.T @ made.matrix, np.eye(resolution), atol=1e-12)
    np.testing.assert_allclose(made.matrix @ made.matrix.T, np.eye(resolution), atol=1e-12)
    assert made.laplacian.shape == (resolution,)
    assert (made.laplacian >= 0).all()
    assert made.is_identity == (name == "pixel")


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize("border", basis.BORDERS)
def test_blur_matrix_is_the_convolution(border, resolution):
    images = np.random.default_rng(0).normal(size=(2, resolution, resolution))
    B = basis.blur_matrix(resolution, 0.7, border)
    np.testing.assert_allclose(B @ images @ B.T, convolve(images, 0.7, border), atol=1e-14)
    np.testing.assert_array_equal(B, B.T)


@pytest.mark.parametrize("resolution", [5, 6, 64])
@pytest.mark.parametrize("border", basis.BORDERS)
def test_blur_eigenbasis(border, resolution):
    made = basis.gaussian_blur(resolution, 0.4, border)
    B = basis.blur_matrix(resolution, 0.4, border)
    np.testing.assert_allclose(made.matrix @ np.diag(made.attenuation) @ made.matrix.T, B, atol=1e-14)
    assert (np.diff(made.attenuation) <= 1e-15).all()  # from the mode attenuated least to the one attenuated most
    if border != "zero":
        assert made.attenuation[0] == pytest.approx(1, abs=1e-14)
        np.testing.assert_allclose(np.abs(made.matrix[:, 0]), resolution**-0.5, rtol=1e-10)


@pytest.mark.parametrize("border", basis.BORDERS)
def test_two_dimensional_eigenvalues_are_products(border):
    made = basis.gaussian_blur(6, 0.5, border)
    W = blur_operator(6, 0.5, border)
    modes = np.kron(made.matrix, made.matrix)
    diagonal = np.kron(made.attenuation, made.attenuation)
    np.testing.assert_allclose(W @ modes, modes * diagonal, atol=1e-14)


@pytest.mark.parametrize("resolution", [*range(2, 10), 64])
def test_dct_diagonalises_the_reflected_blur(resolution):
    U = basis.dct(resolution).matrix
    rotated = U.T @ basis.blur_matrix(resolution, 0.6, "reflect") @ U
    diagonal = np.diag(rotated)
    np.testing.assert_allclose(rotated, np.diag(diagonal), atol=1e-14)
    np.testing.assert_allclose(diagonal, basis.gaussian_blur(resolution, 0.6, "reflect").attenuation, atol=1e-14)


def test_dct_and_dst_are_the_textbook_matrices():
    R = 7
    j, k = np.arange(R)[:, None], np.arange(R)[None]
    cosine = np.sqrt(2 / R) * np.cos(np.pi * (j + 0.5) * k / R)
    cosine[:, 0] /= np.sqrt(2)
    np.testing.assert_allclose(basis.dct(R).matrix, cosine, atol=1e-14)
    sine = np.sqrt(2 / (R + 1)) * np.sin(np.pi * (j + 1) * (k + 1) / (R + 1))
    np.testing.assert_allclose(basis.dst(R).matrix, sine, atol=1e-14)


@pytest.mark.parametrize(("name", "ghosts"), [("dct", (1.0, 1.0)), ("dst", (0.0, 0.0))])
def test_laplacian_is_that_of_heat_dissipation(name, ghosts):
    """Second differences with insulated (DCT) or cold (DST) borders have these modes; λ is their continuous rate."""
    R = 256
    made = basis.make_basis(name, R, 0.4, "zero")
    second = 2 * np.eye(R) - np.eye(R, k=1) - np.eye(R, k=-1)
    second[0, 0] -= ghosts[0]
    second[-1, -1] -= ghosts[1]
    rotated = made.matrix.T @ second @ made.matrix
    np.testing.assert_allclose(rotated, np.diag(2 - 2 * np.cos(np.sqrt(made.laplacian))), atol=1e-12)
    np.testing.assert_allclose(np.diag(rotated)[:10], made.laplacian[:10], rtol=2e-3)


@pytest.mark.parametrize("resolution", [5, 6, 64])
@pytest.mark.parametrize(("border", "tolerance"), [("circular", 1e-9), ("reflect", 1e-9), ("zero", 0.2)])
def test_laplacian_of_the_blur_bases(border, tolerance, resolution):
    """A kernel's response at the frequency √λ is the eigenvalue; with a zero border only nearly, of high modes."""
    made = basis.gaussian_blur(resolution, 0.4, border)
    k = np.arange(1 - resolution, resolution)
    response = (gaussian_taps(resolution, 0.4) * np.cos(np.sqrt(made.laplacian)[:, None] * k)).sum(1)
    np.testing.assert_allclose(1 - response, 1 - made.attenuation, rtol=tolerance, atol=1e-14)


def test_haar_of_four():
    h, s = 0.5, np.sqrt(0.5)
    expected = np.array([[h, h, s, 0], [h, h, -s, 0], [h, -h, 0, s], [h, -h, 0, -s]])
    np.testing.assert_allclose(basis.haar(4).matrix, expected, atol=1e-15)
    np.testing.assert_allclose(basis.haar(4).laplacian, np.pi**2 * np.array([0, 1 / 16, 1 / 4, 1 / 4]))


@pytest.mark.parametrize("resolution", [5, 7, 9])
def test_haar_of_odd_sizes(resolution):
    """Every wavelet but the constant has mean 0 and at most two values, on one interval."""
    matrix = basis.haar(resolution).matrix
    for column in matrix.T[1:]:
        support = np.flatnonzero(column)
        assert column.sum() == pytest.approx(0, abs=1e-14)
        assert len(np.unique(column[support].round(12))) == 2
        assert (np.diff(support) == 1).all()


def test_numbers_of_the_paper():
    """PAPER.md section 2: taps and eigenvalues at σ = .4, R = 64."""
    B = basis.blur_matrix(64, 0.4)
    assert B[30, 30] == pytest.approx(0.9192, abs=5e-5)
    assert B[30, 31] == pytest.approx(0.0404, abs=5e-5)
    np.testing.assert_array_equal(B, scipy.linalg.toeplitz(B[0]))
    np.testing.assert_allclose(B[0], gaussian_taps(64, 0.4)[63:], rtol=1e-15)
    d = basis.gaussian_blur(64, 0.4).attenuation
    assert (d.min(), d.max()) == pytest.approx((0.83854, 0.99991), abs=5e-6)
    assert (d.min() ** 2, d.max() ** 2) == pytest.approx((0.70316, 0.99981), abs=6e-6)
