"""Samplers: each step pushes q(x̄_i | x̄_0) to q(x̄_s | x̄_0); grids; and what an exact score leaves of Gaussian data."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusion_helpers import (
    at,
    build,
    final_variance,
    finite_everywhere,
    gaussian_epsilon,
    scripted_noise,
    step_coefficients,
)

from blurdiff.diffusion import samplers
from blurdiff.errors import UserError

PROCESSES = {
    "quartic": {},
    "log": {"f_type": "log", "f_N": 0.6},
    "fine-to-coarse": {"direction": "fine-to-coarse", "border": "circular", "floor": 1e-4},
    "reversed dct": {"direction": "reversed", "basis": "dct", "power": "heat"},
    "released haar": {"mode_order": "released", "basis": "haar"},
    "ddpm": {"basis": "pixel", "f_type": "none", "f_N": 0.0},
    "blurring-diffusion": {"family": "blurring-diffusion"},
}
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


# -- single steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "options"), [("ancestral", {})] + [("ddim", {"eta": e}) for e in (0, 0.3, 1)])
@pytest.mark.parametrize("name", PROCESSES)
def test_steps_keep_the_marginals(monkeypatch, name, sampler, options):
    """With exact ε̄, x̄_i ~ q(x̄_i | x̄_0) gives x̄_s ~ q(x̄_s | x̄_0), adjacent and skipped: mean and variance, exactly."""
    process = build(6, **PROCESSES[name])
    for i, s in STEPS:
        ratio, sigma_i, sigma_s = tables(process, i, s)
        a, b, g = (part.numpy() for part in step_coefficients(monkeypatch, sampler, process, i, s, **options))
        lost = ratio < 1e-3
        np.testing.assert_allclose((a * ratio)[~lost], 1, rtol=1e-12)  # mean: a √Ā_i = √Ā_s
        assert (a[lost] == 0).all()
        pushed = (a * sigma_i + b) ** 2 + g**2  # ε̄ is one and the same in x̄_i and in the prediction
        # a is up to 1e3, so that a σ_i + b is rounded at 1e-13.
        np.testing.assert_allclose(np.sqrt(pushed)[~lost], sigma_s[~lost], rtol=1e-12, atol=1e-15 * a.max())
        np.testing.assert_allclose(np.sqrt(b**2 + g**2)[lost], sigma_s[lost], rtol=1e-5)


@pytest.mark.parametrize("name", PROCESSES)
def test_ddim_formula(monkeypatch, name):
    """x̄_s = (x̄_i − σ_i ε̄)/√A + √(σ_s² − η² w) ε̄ + η √w z."""
    process = build(6, **PROCESSES[name])
    for i, s in STEPS:
        ratio, sigma_i, sigma_s = tables(process, i, s)
        kept = ratio >= 1e-3
        w = (sigma_i**2 - ratio**2 * sigma_s**2) * sigma_s**2 / sigma_i**2
        for eta in (0.0, 0.6):
            a, b, g = (part.numpy() for part in step_coefficients(monkeypatch, "ddim", process, i, s, eta=eta))
            np.testing.assert_allclose(a[kept], 1 / ratio[kept], rtol=1e-12)
            expected = np.sqrt(sigma_s**2 - eta**2 * w) - sigma_i / np.maximum(ratio, 1e-3)
            np.testing.assert_allclose(b[kept], expected[kept], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(g, eta * np.sqrt(w), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", PROCESSES)
def test_ancestral_step_is_bayes_rule(monkeypatch, name):
    """The prior N(√Ā_s x̂_0, σ_s²) times the likelihood of x̄_i, with x̂_0 = (x̄_i − σ_i ε̄)/√Ā_i."""
    process = build(6, **PROCESSES[name])
    for i, s in STEPS:
        ratio, sigma_i, sigma_s = tables(process, i, s)
        kept = ratio >= 1e-3
        v = sigma_i**2 - ratio**2 * sigma_s**2
        precision = 1 / sigma_s**2 + ratio**2 / v
        prior = 1 / (ratio * sigma_s**2)  # of x̄_i in √Ā_s x̂_0 / σ_s²
        a, b, g = (part.numpy() for part in step_coefficients(monkeypatch, "ancestral", process, i, s))
        np.testing.assert_allclose(a[kept], ((prior + ratio / v) / precision)[kept], rtol=1e-8)
        np.testing.assert_allclose(b[kept], (-prior * sigma_i / precision)[kept], rtol=1e-8)
        np.testing.assert_allclose(g**2, 1 / precision, rtol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_posterior_is_ddim_at_eta_one(monkeypatch, name):
    process = build(6, **PROCESSES[name])
    for i, s in STEPS:
        posterior = step_coefficients(monkeypatch, "ancestral", process, i, s)
        ddim = step_coefficients(monkeypatch, "ddim", process, i, s, eta=1.0)
        scale = float(posterior[0].max())
        for one, other in zip(posterior, ddim, strict=True):
            lost = posterior[0] == 0
            torch.testing.assert_close(one[~lost], other[~lost], rtol=1e-12, atol=1e-14 * scale)
            torch.testing.assert_close(one[lost], other[lost], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "blurring-diffusion"])
def test_reverse_diffusion_is_the_papers(monkeypatch, name):
    """x̄ + (x̄ − A^½ x̄) − B (I − Ā)^−½ ε̄ + B^½ z, with A_i = (1 − β_i) D^2f(i) from the schedules."""
    process = build(6, **PROCESSES[name])
    betas = np.linspace(1e-4, 0.02, 1000)
    f = np.diff(process.blur.numpy(), prepend=0.0)
    D = process.log_D.exp().numpy()
    for i in (2, 20, 500, 1000):
        A = (1 - betas[i - 1]) * D ** (2 * f[i])
        A_bar = np.exp(np.log1p(-betas[:i]).sum() + 2 * f[: i + 1].sum() * np.log(D))
        a, b, g = (
            part.numpy()
            for part in step_coefficients(monkeypatch, "reverse-diffusion", process, i, i - 1, noise_free_steps=0)
        )
        np.testing.assert_allclose(a, 1 + (1 - np.sqrt(A)), rtol=1e-12)
        np.testing.assert_allclose(b, -(1 - A) / np.sqrt(1 - A_bar), rtol=1e-11)
        np.testing.assert_allclose(g, np.sqrt(1 - A), rtol=1e-11)
        *_, silent = step_coefficients(monkeypatch, "reverse-diffusion", process, i, i - 1)  # two steps remain
        assert (silent == 0).all()


def test_reverse_diffusion_in_pixels():
    """One step written out with matrices in pixel space, unsharp masking and all, noise drawn from the generator."""
    process = build(6, 3)
    U = process.matrix.numpy()
    d = np.diag(U.T @ blur_1d(6) @ U)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eps = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    states = {}

    def callback(i, modes, prediction):
        states[i] = process.to_pixels(modes).numpy()

    samplers.reverse_diffusion(
        process, lambda modes, i: process.to_modes(eps), x, [3, 2, 1, 0], torch.Generator().manual_seed(2), callback
    )
    betas = np.linspace(1e-4, 0.02, 1000)
    f = 0.140625 * (np.arange(4) / 1000) ** 4
    A = (1 - betas[2]) * np.outer(d, d) ** (2 * f[3])
    A_bar = np.prod([(1 - betas[j - 1]) * np.outer(d, d) ** (2 * f[j]) for j in (1, 2, 3)], axis=0)
    apply = lambda grid, image: U @ (grid * (U.T @ image @ U)) @ U.T  # noqa: E731
    z = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).numpy()
    x, eps = x.numpy(), eps.numpy()
    unsharp = x + (x - apply(np.sqrt(A), x))
    expected = unsharp - apply((1 - A) / np.sqrt(1 - A_bar), eps) + U @ (np.sqrt(1 - A) * z) @ U.T
    np.testing.assert_allclose(states[2], expected, atol=1e-13)


def blur_1d(resolution: int) -> np.ndarray:
    taps = np.exp(-(np.arange(resolution) ** 2) / (2 * 0.4**2))
    j = np.arange(resolution)
    return (taps / (2 * taps.sum() - 1))[np.abs(j[:, None] - j)]


@pytest.mark.parametrize("noise_free", [0, 1, 2, 5])
def test_noise_free_steps(noise_free):
    """The generator is drawn from in all steps but the last ones."""
    process = build(4, n_timesteps=5, f_N=0.5)
    drawn = []

    def reference(count):
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64)
        return generator.get_state()

    generator = torch.Generator().manual_seed(0)
    x = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    samplers.reverse_diffusion(
        process, lambda modes, i: drawn.append(int(i)) or modes, x, [5, 4, 3, 2, 1, 0], generator, None, noise_free
    )
    assert torch.equal(generator.get_state(), reference(5 - noise_free))
    assert drawn == [5, 4, 3, 2, 1]


# -- whole walks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_callback_sees_the_walk(sampler):
    process = build(4)
    seen = []
    signal = torch.ones_like(process.log_D)
    x_N = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def callback(i, modes, prediction):
        seen.append(i)
        assert modes.shape == (2, 3, 4, 4)
        if i:
            exact = gaussian_epsilon(process, signal)(modes, at(i))
            torch.testing.assert_close(prediction, exact, rtol=1e-9, atol=1e-9)
        else:
            assert prediction is None
            seen.append(process.to_pixels(modes))

    x_0 = samplers.SAMPLERS[sampler](
        process, gaussian_epsilon(process, signal), x_N, [1000, 500, 1, 0], torch.Generator().manual_seed(1), callback
    )
    torch.testing.assert_close(x_0, seen.pop(), rtol=0, atol=0)
    assert seen == [1000, 500, 1, 0]


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_walk_depends_on_its_generator_alone(sampler):
    process = build(4, f_N=0.02)
    epsilon = gaussian_epsilon(process, torch.ones_like(process.log_D))
    x_N = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    walk = lambda seed: samplers.SAMPLERS[sampler](  # noqa: E731
        process, epsilon, x_N, [1000, 600, 200, 30, 0], torch.Generator().manual_seed(seed)
    )
    assert torch.equal(walk(0), walk(0))
    assert torch.equal(walk(0), walk(1)) == (sampler in ("ddim", "ode-heun", "ode-adaptive"))


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([1000, 500, 500, 0], "must decrease"),
        ([500, 700, 0], "must decrease"),
        ([1000, 500, 1], "end at 0"),
        ([0], "must decrease"),
        ([], "must decrease"),
        ([1001, 0], "starts at 1001, beyond the last timestep 1000"),
    ],
)
def test_bad_grid(sampler, steps, words):
    process = build(4)
    with pytest.raises(UserError, match=words):
        samplers.SAMPLERS[sampler](process, lambda modes, i: modes, torch.ones(1, 3, 4, 4).double(), steps, None)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_shortest_grids(sampler):
    """One step from N or from 1: x̂_0, with exact ε̄ the image itself (reverse diffusion aside)."""
    process = build(4, n_timesteps=10, f_N=0.3)
    x_0, noise = (
        torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (0, 1)
    )
    for start in (10, 1):
        x = process.q_sample(x_0, at(start), noise)
        result = samplers.SAMPLERS[sampler](process, lambda modes, i: process.to_modes(noise), x, [start, 0], None)
        if sampler != "reverse-diffusion" and not (sampler == "ode-adaptive" and start == 10):
            torch.testing.assert_close(result, x_0, rtol=0, atol=1e-12)
        assert result.isfinite().all()


# -- the probability flow --------------------------------------------------------------------------------------------


def flow_error(sampler: str, n: int, **options) -> float:
    """Largest relative error against the closed-form flow map of Gaussian data, from t = .9 to t = .1 in n·.8 steps.

    Of data of variance c, x̄ has the variance m = Ā c + σ², and the flow is x̄_s = x̄_i √(m_s/m_i).
    """
    process = build(3, 1, n_timesteps=n, beta_1=0.1 / n, beta_N=20 / n, f_N=140.625 / n)
    signal = torch.tensor([[2.0, 0.5, 0.1], [0.7, 0.2, 0.05], [0.3, 0.02, 0.01]], dtype=torch.float64)
    marginal = lambda i: process.log_alpha_bar(at(i)).exp() * signal + process.variance(at(i))  # noqa: E731
    start, stop = n * 9 // 10, n // 10
    states = {}
    samplers.SAMPLERS[sampler](
        replace(process, matrix=None), gaussian_epsilon(process, signal), torch.ones(1, 1, 3, 3).double(),
        list(range(start, stop - 1, -1)) + [0], None, lambda i, modes, prediction: states.update({i: modes}), **options,
    )  # fmt: skip
    exact = (marginal(stop) / marginal(start)).sqrt()
    return float((states[stop] / exact - 1).abs().max())


def test_ddim_is_first_order_and_heun_second():
    """Both tend to the flow map, so to each other: errors fall as 1/n and 1/n²."""
    ddim = [flow_error("ddim", n) for n in (200, 400)]
    heun = [flow_error("ode-heun", n) for n in (200, 400)]
    assert ddim[0] / ddim[1] == pytest.approx(2, abs=0.1)
    assert heun[0] / heun[1] == pytest.approx(4, abs=0.4)
    assert ddim[1] < 0.02
    assert heun[1] < 1e-3


def test_the_adaptive_solver_finds_the_flow():
    """Down to i = 1 by the closed-form flow map of Gaussian data, then one DDIM step."""
    process = build(3, 1)
    signal = torch.tensor([[2.0, 0.5, 0.1], [0.7, 0.2, 0.05], [0.3, 0.02, 0.01]], dtype=torch.float64)
    modal, epsilon = replace(process, matrix=None), gaussian_epsilon(process, signal)
    marginal = lambda i: process.log_alpha_bar(at(i)).exp() * signal + process.variance(at(i))  # noqa: E731
    x_1 = (marginal(1) / marginal(1000)).sqrt()
    exact = samplers.ddim(modal, epsilon, x_1, [1, 0], None)
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        x_N = torch.ones(1, 1, 3, 3, dtype=torch.float64)
        x_0 = samplers.ode_adaptive(modal, epsilon, x_N, [1000, 0], None, rtol=tolerance, atol=tolerance)
        errors.append(float((x_0 / exact - 1).abs().max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.02
    assert errors[2] < 1e-4


def test_the_adaptive_solver_says_when_it_fails():
    process = build(4)
    with pytest.raises(UserError, match="the adaptive solver found no way .* is the model trained") as error:
        samplers.ode_adaptive(process, lambda modes, i: modes * math.nan, torch.ones(1, 3, 4, 4).double(), [9, 0], None)
    assert "\n" not in str(error.value)


def test_adaptive_evaluations_do_not_depend_on_the_grid():
    process = build(4)
    exact, counts = gaussian_epsilon(process, torch.full_like(process.log_D, 0.5)), []
    x_N = torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for steps in ([1000, 0], list(range(1000, -1, -1)), [1000, 300, 0]):
        counts.append(0)

        def epsilon(modes, i):
            counts[-1] += 1
            return exact(modes, i)

        results.append(samplers.ode_adaptive(process, epsilon, x_N, steps, None))
    assert counts[0] == counts[1] == counts[2] < 200
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("sampler", ["ddim", "ode-heun", "ode-adaptive"])
@pytest.mark.parametrize("name", ["quartic", "blurring-diffusion"])
def test_flow_of_other_families(name, sampler):
    """The flow map holds whatever Ā and σ are; 250 steps come close to it."""
    process = build(3, 1, **PROCESSES[name])
    signal = torch.full((3, 3), 0.5, dtype=torch.float64)
    options = {"rtol": 1e-5, "atol": 1e-5} if sampler == "ode-adaptive" else {}
    modal, x_N = replace(process, matrix=None), torch.ones(1, 1, 3, 3, dtype=torch.float64)
    steps = samplers.step_grid(process, 250, "quadratic")
    x_0 = samplers.SAMPLERS[sampler](modal, gaussian_epsilon(process, signal), x_N, steps, None, **options)
    start = process.log_alpha_bar(at(1000)).exp() * signal + process.variance(at(1000))
    torch.testing.assert_close(x_0, (signal / start).sqrt(), rtol=0.04, atol=0)


# -- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uniform", "quadratic", "snr"])
@pytest.mark.parametrize("overrides", [{}, {"f_type": "log", "f_N": 0.6}, {"family": "blurring-diffusion"}])
def test_grids_have_exactly_their_steps(kind, overrides):
    for n in (10, 1000):
        process = build(6, n_timesteps=n, **overrides)
        for n_steps in {1, 2, 3, 7, 9, 10, 50, 250, n - 1, n}:
            if n_steps <= n:
                grid = samplers.step_grid(process, n_steps, kind)
                assert len(grid) == n_steps + 1
                assert (grid[0], grid[-1]) == (n, 0)
                assert all(type(i) is int for i in grid)
                assert all(a > b for a, b in zip(grid, grid[1:], strict=False))
    assert samplers.step_grid(process, None, kind) == list(range(1000, -1, -1))
    assert samplers.step_grid(process, None, kind, start=999) == list(range(999, -1, -1))
    assert samplers.step_grid(process, 5, kind, start=999)[0] == 999


def test_uniform_and_quadratic_grids():
    process = build(6)
    assert samplers.step_grid(process, 50) == [1000 - 20 * k for k in range(51)]
    assert samplers.step_grid(process, 4, "quadratic") == [1000, 562, 250, 62, 0]
    assert samplers.step_grid(process, 50, "quadratic")[-4:] == [4, 2, 1, 0]


def test_snr_crossings_by_brute_force():
    process = build(6, n_timesteps=200, beta_1=5e-4, beta_N=0.1, f_type="log", f_N=0.6)
    signal = torch.logspace(2, -4, 36, dtype=torch.float64).reshape(6, 6)
    for variant in (process, build(6, n_timesteps=200, family="blurring-diffusion"), build(6, mode_order="released")):
        for variance in (None, signal):
            crossings = samplers.snr_crossings(variant, variance)
            i = torch.arange(1, variant.n_timesteps + 1)
            power = variant.log_alpha_bar(i).exp() * (1.0 if variance is None else variance)
            below = power <= variant.variance(i)
            first = torch.where(below.any(0), below.double().argmax(0) + 1, variant.n_timesteps)
            assert torch.equal(crossings, first)
            assert crossings.shape == variant.log_D.shape


def test_snr_grid_follows_the_crossings():
    """The k-th of n points lies where (crossings so far / all + i/N)/2 reaches k/n, by brute force."""
    process = build(64)
    spectrum = 100 / (1 + torch.arange(64.0).double()[:, None] ** 2 + torch.arange(64.0).double() ** 2)
    crossings = samplers.snr_crossings(process, spectrum).flatten()
    density = np.array([float((crossings <= i).double().mean()) + i / 1000 for i in range(1001)]) / 2
    grid = samplers.step_grid(process, 40, "snr", spectrum)
    for k, i in enumerate(reversed(grid)):
        assert density[i] >= k / 40 - 1e-12
        assert i == 0 or density[i - 1] < k / 40 + 1e-12
    uniform = samplers.step_grid(process, 40)
    middle = int(crossings.double().median())
    near = lambda points: sum(abs(i - middle) < 50 for i in points)  # noqa: E731
    assert near(grid) > 2 * near(uniform)


def test_snr_grid_of_log_is_dense_at_the_start():
    """With log most modes live at the first few timesteps only."""
    grid = samplers.step_grid(build(64, f_type="log", f_N=0.6), 50, "snr")
    assert sum(i <= 50 for i in grid) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "uniform"), "sampling.n_steps: 0 must lie between 1 and 1000"),
        ((1001, "uniform"), "sampling.n_steps: 1001 must lie between 1 and 1000"),
        ((-3, "snr"), "sampling.n_steps: -3 must lie between"),
        ((10, "cubic"), "sampling.grid: 'cubic' is not one of uniform, quadratic, snr"),
        ((None, "cubic"), "sampling.grid: 'cubic' is not one of uniform, quadratic, snr"),
    ],
)
def test_bad_grids(arguments, words):
    with pytest.raises(UserError, match=words):
        samplers.step_grid(build(4), *arguments)


# -- Gaussian data and the exact score -------------------------------------------------------------------------------


def highest_mode(**overrides):
    """The mode attenuated most at R = 64 as a process of its own, and its share of a 1/f² spectrum.

    Mode (m, n) has the frequency ((m + 1)² + (n + 1)²)^½; the variance of a pixel is .25².
    """
    process = build(64, 1, **overrides)
    k = torch.arange(1, 65, dtype=torch.float64)
    spectrum = 1 / (k[:, None] ** 2 + k**2)
    spectrum *= 0.25**2 / spectrum.mean()
    return replace(process, matrix=None, log_D=process.log_D[:, -1:, -1:]), spectrum[-1:, -1:]


LOG = {"f_type": "log", "f_N": 0.6}


@pytest.mark.parametrize(
    ("overrides", "sampler", "options", "n_steps", "expected", "digits"),
    [
        ({}, "reverse-diffusion", {}, None, 0.998, 3),
        ({}, "ancestral", {}, None, 0.950, 3),
        ({}, "ddim", {}, None, 0.975, 3),
        ({}, "ddim", {}, 50, 0.66, 2),
        (LOG, "reverse-diffusion", {}, None, 0.56, 2),
        (LOG, "reverse-diffusion", {"noise_free_steps": 0}, None, 2.77, 2),
        (LOG, "ancestral", {}, None, 0.35, 2),
    ],
)
def test_sampler_bias(monkeypatch, overrides, sampler, options, n_steps, expected, digits):
    """PAPER.md section 4: final over true standard deviation at the highest mode, computed without drawing."""
    process, signal = highest_mode(**overrides)
    steps = samplers.step_grid(process, n_steps)
    variance = final_variance(monkeypatch, sampler, process, signal, steps, **options)
    assert round(math.sqrt(variance / signal), digits) == expected


def test_a_better_grid_cures_ddim(monkeypatch):
    """50 steps on the SNR grid beat 50 uniform steps for log, whose high modes live at i ≤ 20."""
    process, signal = highest_mode(**LOG)
    whole = build(64, 1, **LOG)
    error = {}
    for kind in ("uniform", "snr"):
        steps = samplers.step_grid(whole, 50, kind)
        variance = final_variance(monkeypatch, "ddim", process, signal, steps)
        error[kind] = abs(math.sqrt(variance / signal) - 1)
    assert error["snr"] < error["uniform"]


# -- float32 ---------------------------------------------------------------------------------------------------------

EVERY_BASIS = [
    *({"border": border} for border in ("zero", "circular", "reflect")),
    *({"basis": name} for name in ("dct", "dst", "haar", "pixel")),
    {"basis": "dct", "power": "heat"},
]


PAIRS = [(1, 0), (20, 0), (20, 19), (500, 480), (1000, 999), (1000, 980), (1000, 500)]
STEPPERS = tuple(name for name in samplers.SAMPLERS if name != "ode-adaptive")


@pytest.mark.parametrize("mode_order", ["paper", "released"])
@pytest.mark.parametrize("direction", ["coarse-to-fine", "fine-to-coarse", "reversed"])
@pytest.mark.parametrize("basis", EVERY_BASIS, ids=lambda basis: "-".join(basis.values()))
def test_float32_is_finite(basis, direction, mode_order):
    floor = 1e-4 if direction == "fine-to-coarse" else 0.0
    for schedule in ({}, LOG):
        overrides = {**basis, **schedule, "direction": direction, "mode_order": mode_order, "floor": floor}
        finite_everywhere(build(64, dtype=torch.float32, **overrides), PAIRS, STEPPERS)


@pytest.mark.parametrize("family", ["blur", "blurring-diffusion", "ihdm"])
@pytest.mark.parametrize("noise_schedule", ["linear", "cosine", "exponential"])
def test_float32_is_finite_in_every_family(family, noise_schedule):
    process = build(64, dtype=torch.float32, family=family, noise_schedule=noise_schedule)
    finite_everywhere(process, PAIRS, STEPPERS)


@pytest.mark.parametrize("direction", ["coarse-to-fine", "fine-to-coarse"])
@pytest.mark.parametrize("border", ["zero", "reflect"])
def test_float32_is_finite_at_256(border, direction):
    floor = 1e-4 if direction == "fine-to-coarse" and border == "reflect" else 0.0
    overrides = {**LOG, "border": border, "direction": direction, "floor": floor, "mode_order": "released"}
    finite_everywhere(build(256, dtype=torch.float32, **overrides), [(20, 0), (1000, 999), (1000, 980)], STEPPERS)


@pytest.mark.parametrize("name", ["quartic", "log", "fine-to-coarse", "blurring-diffusion"])
def test_float32_walks_with_the_adaptive_solver(name):
    finite_everywhere(build(16, dtype=torch.float32, **PROCESSES[name]), [(1000, 500)], ("ode-adaptive",))


def test_a_lost_mode_does_not_explode():
    """Fine-to-coarse loses modes within a coarse step: a network off by 1 % must not be off by a thousand after it."""
    process = build(64, dtype=torch.float32, direction="fine-to-coarse")
    A, _ = process.transition(at(1000), at(980))
    assert float(A.min()) < 1e-20
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 64, 64, generator=generator)
    for name in STEPPERS:
        wrong = lambda modes, i: 0.99 * modes  # noqa: E731
        assert samplers.SAMPLERS[name](process, wrong, x, [1000, 980, 0], generator).abs().max() < 1e4


def test_noise_is_scripted(monkeypatch):
    """The helper that makes the samplers' randomness exact does what it says."""
    scripted_noise(monkeypatch, row=1)
    x = torch.zeros(3, 1, 2, 2)
    draws = [samplers._noise_like(x, None)[:, 0, 0, 0].tolist() for _ in range(3)]
    assert draws == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
