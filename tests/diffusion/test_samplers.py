"""Samplers: each step pushes q(x̄_i | x̄_0) to q(x̄_s | x̄_0); grids; and what an exact score leaves of Gaussian data."""

import math

import numpy as np
import pytest
import torch
from diffusion_helpers import (
    PROCESSES,
    at,
    blur_1d,
    build,
    gaussian_epsilon,
    random_images,
    scripted_noise,
    step_coefficients,
    walk,
)

from blurdiff.diffusion import samplers

STEPS = [(2, 1), (20, 1), (500, 499), (520, 500), (1000, 999), (1000, 980), (1000, 500), (1000, 1)]


def tables(process, i: int, s: int) -> tuple[np.ndarray, ...]:
    """(√Ā_i/√Ā_s, σ_i, σ_s) of every mode in numpy, from the tables alone."""
    blur, noise, log_D = process.blur.numpy(), process.noise.numpy(), process.log_D.numpy()
    keep = lambda t: np.log((1 - process.minimum) * np.exp(blur[t] * log_D) + process.minimum)  # noqa: E731
    if not process.minimum:
        keep = lambda t: blur[t] * log_D  # noqa: E731
    ratio = np.exp((noise[i] - noise[s]) / 2 + keep(i) - keep(s))
    if process.scalar_variance is not None:
        return ratio, *(np.full_like(log_D, math.sqrt(process.scalar_variance[t])) for t in (i, s))
    return ratio, *(np.sqrt(-np.expm1(noise[t] + 2 * blur[t] * log_D)) for t in (i, s))


def every_step(name: str, sampler: str, **options):
    """`tables` and `step_coefficients` of adjacent and skipped steps; a mode whose ratio is below 1e-3 is lost."""
    process = build(6, **PROCESSES[name])
    for i, s in STEPS:
        yield *tables(process, i, s), *step_coefficients(sampler, process, i, s, **options)


# -- single steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "options"), [("ancestral", {})] + [("ddim", {"eta": e}) for e in (0, 0.3, 1)])
@pytest.mark.parametrize("name", PROCESSES)
def test_steps_keep_the_marginals(name, sampler, options):
    """With exact ε̄, x̄_i ~ q(x̄_i | x̄_0) gives x̄_s ~ q(x̄_s | x̄_0), adjacent and skipped: mean and variance, exactly."""
    for ratio, sigma_i, sigma_s, a, b, g in every_step(name, sampler, **options):
        lost = ratio < 1e-3
        np.testing.assert_allclose((a * ratio)[~lost], 1, rtol=1e-12)  # mean: a √Ā_i = √Ā_s
        assert (a[lost] == 0).all()
        pushed = (a * sigma_i + b) ** 2 + g**2  # ε̄ is one and the same in x̄_i and in the prediction
        # a is up to 1e3, so that a σ_i + b is rounded at 1e-13.
        np.testing.assert_allclose(np.sqrt(pushed)[~lost], sigma_s[~lost], rtol=1e-12, atol=1e-15 * a.max())
        np.testing.assert_allclose(np.sqrt(b**2 + g**2)[lost], sigma_s[lost], rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("name", PROCESSES)
def test_ddim_formula(name, eta):
    """x̄_s = (x̄_i − σ_i ε̄)/√A + √(σ_s² − η² w) ε̄ + η √w z."""
    for ratio, sigma_i, sigma_s, a, b, g in every_step(name, "ddim", eta=eta):
        kept = ratio >= 1e-3
        w = (sigma_i**2 - ratio**2 * sigma_s**2) * sigma_s**2 / sigma_i**2
        np.testing.assert_allclose(a[kept], 1 / ratio[kept], rtol=1e-12)
        expected = np.sqrt(sigma_s**2 - eta**2 * w) - sigma_i / np.maximum(ratio, 1e-3)
        np.testing.assert_allclose(b[kept], expected[kept], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(g, eta * np.sqrt(w), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", PROCESSES)
def test_ancestral_step_is_bayes_rule(name):
    """The prior N(√Ā_s x̂_0, σ_s²) times the likelihood of x̄_i, with x̂_0 = (x̄_i − σ_i ε̄)/√Ā_i."""
    for ratio, sigma_i, sigma_s, a, b, g in every_step(name, "ancestral"):
        kept = ratio >= 1e-3
        v = sigma_i**2 - ratio**2 * sigma_s**2
        precision = 1 / sigma_s**2 + ratio**2 / v
        prior = 1 / (ratio * sigma_s**2)  # of x̄_i in √Ā_s x̂_0 / σ_s²
        np.testing.assert_allclose(a[kept], ((prior + ratio / v) / precision)[kept], rtol=1e-8)
        np.testing.assert_allclose(b[kept], (-prior * sigma_i / precision)[kept], rtol=1e-8)
        np.testing.assert_allclose(g**2, 1 / precision, rtol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_posterior_is_ddim_at_eta_one(name):
    for posterior, ddim in zip(every_step(name, "ancestral"), every_step(name, "ddim", eta=1.0), strict=True):
        scale, lost = posterior[3].max(), posterior[3] == 0
        for one, other in zip(posterior[3:], ddim[3:], strict=True):
            np.testing.assert_allclose(one[~lost], other[~lost], rtol=1e-12, atol=1e-14 * scale)
            np.testing.assert_allclose(one[lost], other[lost], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "blurring-diffusion"])
def test_reverse_diffusion_is_the_papers(name):
    """x̄ + (x̄ − A^½ x̄) − B (I − Ā)^−½ ε̄ + B^½ z, with A_i = (1 − β_i) D^2f(i) from the schedules."""
    process = build(6, **PROCESSES[name])
    betas = np.linspace(1e-4, 0.02, 1000)
    f = np.diff(process.blur.numpy(), prepend=0.0)
    D = process.log_D.exp().numpy()
    for i in (2, 20, 500, 1000):
        A = (1 - betas[i - 1]) * D ** (2 * f[i])
        A_bar = np.exp(np.log1p(-betas[:i]).sum() + 2 * f[: i + 1].sum() * np.log(D))
        a, b, g = step_coefficients("reverse-diffusion", process, i, i - 1, noise_free_steps=0)
        np.testing.assert_allclose(a, 1 + (1 - np.sqrt(A)), rtol=1e-12)
        np.testing.assert_allclose(b, -(1 - A) / np.sqrt(1 - A_bar), rtol=1e-11)
        np.testing.assert_allclose(g, np.sqrt(1 - A), rtol=1e-11)
        *_, silent = step_coefficients("reverse-diffusion", process, i, i - 1, remaining=2)
        assert (silent == 0).all()


def test_reverse_diffusion_in_pixels():
    """One step written out with matrices in pixel space, unsharp masking and all, noise drawn from the generator."""
    process = build(6, 3)
    U = process.matrix.numpy()
    d = np.diag(U.T @ blur_1d(6, 0.4) @ U)
    x, eps = random_images(2, 3, 6, 6), random_images(2, 3, 6, 6, seed=1)
    states = {}

    def callback(i, modes, prediction):
        states[i] = process.to_pixels(modes).numpy()

    generator = torch.Generator().manual_seed(2)
    walk("reverse-diffusion", process, lambda modes, i: process.to_modes(eps), x, [3, 2, 1, 0], generator, callback)
    betas = np.linspace(1e-4, 0.02, 1000)
    f = 0.140625 * (np.arange(4) / 1000) ** 4
    A = (1 - betas[2]) * np.outer(d, d) ** (2 * f[3])
    A_bar = np.prod([(1 - betas[j - 1]) * np.outer(d, d) ** (2 * f[j]) for j in (1, 2, 3)], axis=0)
    apply = lambda grid, image: U @ (grid * (U.T @ image @ U)) @ U.T  # noqa: E731
    x, eps, z = x.numpy(), eps.numpy(), random_images(2, 3, 6, 6, seed=2).numpy()
    unsharp = x + (x - apply(np.sqrt(A), x))
    expected = unsharp - apply((1 - A) / np.sqrt(1 - A_bar), eps) + U @ (np.sqrt(1 - A) * z) @ U.T
    np.testing.assert_allclose(states[2], expected, atol=1e-13)


@pytest.mark.parametrize("noise_free", [0, 1, 2, 5])
def test_noise_free_steps(noise_free):
    """The generator is drawn from in all steps but the last ones."""
    process = build(4, n_timesteps=5, f_N=0.5)
    generator, reference = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    asked, x = [], torch.ones(1, 3, 4, 4, dtype=torch.float64)
    epsilon = lambda modes, i: asked.append(int(i)) or modes  # noqa: E731
    walk("reverse-diffusion", process, epsilon, x, [5, 4, 3, 2, 1, 0], generator, noise_free_steps=noise_free)
    for _ in range(5 - noise_free):
        torch.randn(1, 3, 4, 4, generator=reference, dtype=torch.float64)
    assert torch.equal(generator.get_state(), reference.get_state())
    assert asked == [5, 4, 3, 2, 1]


# -- whole walks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_callback_sees_the_walk(sampler):
    process = build(4)
    seen = []
    epsilon = gaussian_epsilon(process, torch.ones_like(process.log_D))

    def callback(i, modes, prediction):
        seen.append(i)
        assert modes.shape == (2, 3, 4, 4)
        if i:
            torch.testing.assert_close(prediction, epsilon(modes, at(i)), rtol=1e-9, atol=1e-9)
        else:
            assert prediction is None
            seen.append(process.to_pixels(modes))

    generator = torch.Generator().manual_seed(1)
    x_0 = walk(sampler, process, epsilon, random_images(2, 3, 4, 4), [1000, 500, 1, 0], generator, callback)
    torch.testing.assert_close(x_0, seen.pop(), rtol=0, atol=0)
    assert seen == [1000, 500, 1, 0]


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_walk_depends_on_its_generator_alone(sampler):
    process = build(4, f_N=0.02)
    epsilon = gaussian_epsilon(process, torch.ones_like(process.log_D))
    x_N, steps = random_images(2, 3, 4, 4), [1000, 600, 200, 30, 0]
    first, again, other = (
        walk(sampler, process, epsilon, x_N, steps, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (sampler in ("ddim", "ode-heun"))


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_shortest_grids(sampler):
    """One step from N or from 1: x̂_0, with exact ε̄ the image itself (reverse diffusion aside)."""
    process = build(4, n_timesteps=10, f_N=0.3)
    x_0, noise = random_images(1, 3, 4, 4), random_images(1, 3, 4, 4, seed=1)
    for start in (10, 1):
        x = process.q_sample(x_0, at(start), noise)
        result = walk(sampler, process, lambda modes, i: process.to_modes(noise), x, [start, 0])
        if sampler != "reverse-diffusion":
            torch.testing.assert_close(result, x_0, rtol=0, atol=1e-12)
        assert result.isfinite().all()


def test_noise_is_scripted(monkeypatch):
    """The helper that makes the samplers' randomness exact does what it says."""
    scripted_noise(monkeypatch, row=1)
    x = torch.zeros(3, 1, 2, 2)
    draws = [samplers._noise_like(x, None)[:, 0, 0, 0].tolist() for _ in range(3)]
    assert draws == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
