"""The variance recursion against the samplers themselves, and against the numbers that the audit reports."""

import itertools

import numpy as np
import pytest
import torch

from blurdiff.audit import gaussian
from blurdiff.audit.settings import paper_process
from blurdiff.diffusion import samplers
from blurdiff.diffusion.basis import gaussian_blur
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.timesteps import step_grid

OPTIONS = {
    "reverse-diffusion": (samplers.SAMPLERS["reverse-diffusion"].walk, {"noise_free_steps": 2}),
    "reverse-diffusion, noise in every step": (samplers.SAMPLERS["reverse-diffusion"].walk, {"noise_free_steps": 0}),
    "ancestral": (samplers.SAMPLERS["ancestral"].walk, {}),
    "ddim": (samplers.SAMPLERS["ddim"].walk, {"eta": 0.0}),
    "ode-heun": (samplers.SAMPLERS["ode-heun"].walk, {}),
}
PROCESSES = {
    "none": {"f_type": "none"},
    "quartic": {"f_type": "quartic", "f_N": 2.0},
    "log": {"f_type": "log", "f_N": 0.6},
    "fine-to-coarse": {"f_type": "quartic", "f_N": 0.1, "direction": "fine-to-coarse"},
    "released": {"f_type": "quartic", "f_N": 2.0, "mode_order": "released"},
    "hoogeboom-salimans": {"family": "blurring-diffusion"},
}
R, N = 4, 12


def process_and_spectrum(name, resolution=R, n_timesteps=N):
    settings = paper_process(n_timesteps=n_timesteps, beta_1=0.01, beta_N=0.5, **PROCESSES[name])
    return build_process(settings, resolution), gaussian.spectrum(resolution)


def exact_epsilon(process, S):
    """E[ε̄ | x̄_i] by the rule for jointly Gaussian variables: cov(ε̄, x̄_i)/var(x̄_i)."""

    def epsilon(modes, i):
        sigma = process.variance(i).sqrt()
        alpha = (process.log_alpha_bar(i) / 2).exp()
        return sigma / (alpha**2 * torch.from_numpy(S) + sigma**2) * modes

    return epsilon


def variance_of_sampler(process, S, name, steps, monkeypatch):
    """Var x̄_0 of a linear sampler by its own code: the start and the noise of each step are sent through one by one."""
    sampler, options = OPTIONS[name]
    ones = torch.ones(1, 3, R, R, dtype=torch.float64)
    total = 0
    for source in range(-1, len(steps) - 1):  # -1 is the start, k the k-th call for noise
        calls = itertools.count()

        def noise(x, generator, calls=calls, source=source):
            return torch.full_like(x, float(next(calls) == source))

        monkeypatch.setattr(samplers, "_noise_like", noise)
        x_N = process.to_pixels(ones if source == -1 else 0 * ones)
        x_0 = sampler(process, exact_epsilon(process, S), x_N, steps, None, **options)
        total = total + process.to_modes(x_0).square()
    return total[0].numpy()


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", PROCESSES)
def test_recursion_is_the_sampler(kind, name, monkeypatch):
    process, S = process_and_spectrum(kind)
    for steps in (list(range(N, -1, -1)), [12, 7, 6, 2, 0]):
        ratio = gaussian.propagate(process, S, steps, {name: gaussian.SAMPLERS[name]})[name]
        expected = variance_of_sampler(process, S, name, steps, monkeypatch)
        np.testing.assert_allclose(np.broadcast_to(ratio**2 * S, expected.shape), expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["reverse-diffusion", "ancestral"])
def test_monte_carlo(name):
    process, S = process_and_spectrum("quartic")
    steps, n = list(range(N, -1, -1)), 40_000
    sampler, options = OPTIONS[name]
    generator = torch.Generator().manual_seed(0)
    x_N = torch.randn(n, 1, R, R, generator=generator, dtype=torch.float64)
    x_0 = process.to_modes(sampler(process, exact_epsilon(process, S), x_N, steps, generator, **options))
    drawn = x_0.square().mean(dim=0)[0].numpy()
    expected = gaussian.propagate(process, S, steps)[name][0] ** 2 * S
    np.testing.assert_allclose(drawn, expected, rtol=5 * np.sqrt(2 / n))  # five standard errors of a variance


def test_many_small_steps_are_exact():
    """From the last timestep's true marginal on, DDIM's error vanishes with the step; Heun's faster."""
    errors = []
    for n in (200, 400):
        settings = paper_process(n_timesteps=n, beta_1=0.02 / n, beta_N=20 / n, f_type="quartic", f_N=20 / n)
        process, S = build_process(settings, R), gaussian.spectrum(R, pixel_std=2.0)
        ratios = gaussian.propagate(process, S, list(range(n, -1, -1)))
        errors.append([np.abs(ratios[name] - 1).max() for name in ("ddim", "ode-heun")])
    assert errors[0][0] / errors[1][0] == pytest.approx(2, rel=0.15)  # first order
    assert errors[1][1] < errors[1][0] / 5


def test_figures_of_the_paper_resolution():
    """The biases at the highest mode, R = 64, N = 1000, σ = 0.4 px, pixel standard deviation 0.25."""
    S = gaussian.spectrum(64)
    for f, expected in {
        ("quartic", 0.140625): {"reverse-diffusion": 0.998, "ancestral": 0.950, "ddim": 0.975},
        ("log", 0.6): {
            "reverse-diffusion": 0.56,
            "reverse-diffusion, noise in every step": 2.77,
            "ancestral": 0.35,
        },
    }.items():
        process = build_process(paper_process(f_type=f[0], f_N=f[1]), 64)
        ratios = gaussian.propagate(process, S, step_grid(process))
        for name, value in expected.items():
            places = len(str(value).split(".")[1])
            assert round(float(ratios[name][0, -1, -1]), max(places, 2)) == pytest.approx(value, abs=1e-9), (f, name)
        if f[0] == "quartic":
            few = gaussian.propagate(process, S, step_grid(process, 50), {"ddim": gaussian.ddim})["ddim"]
            assert few[0, -1, -1] == pytest.approx(0.66, abs=0.005)


def test_spectrum_and_frequencies():
    S, f = gaussian.spectrum(8), gaussian.frequencies(8)
    assert S.mean() == pytest.approx(0.25**2)
    np.testing.assert_allclose(S * f**2, S[0, 0] * f[0, 0] ** 2)  # 1/f²
    # Mode m of the blur has m changes of sign: m + 1 half periods, the ends of the image being zeros.
    changes = (np.diff(np.sign(gaussian_blur(8, 0.4).matrix), axis=0) != 0).sum(axis=0)
    np.testing.assert_allclose(f.diagonal() / np.sqrt(2), (changes + 1) / 2 / 9)
    assert f.max() < np.sqrt(0.5)


def test_summary_numbers():
    S = np.array([[4.0, 1.0], [1.0, 2.0]])
    summary = gaussian.summarize(np.array([[[1.0, 1.05], [0.5, 1.5]]]), S)
    assert summary["ratio_highest_mode"] == pytest.approx(1.5)
    assert summary["ratio_worst_mode"] == 0.5
    assert summary["share_off_by_a_tenth"] == 0.5
    assert summary["relative_distance"] == pytest.approx((0.05**2 + 0.25 + 2 * 0.25) / 8)


def test_amplification_is_the_largest_of_all_steps():
    process, _ = process_and_spectrum("fine-to-coarse")
    steps = [12, 7, 6, 2, 0]
    largest = max(
        float(process.transition(torch.tensor([i]), torch.tensor([s]))[0].rsqrt().max())
        for i, s in itertools.pairwise(steps)
    )
    assert gaussian.amplification(process, steps) == pytest.approx(largest, rel=1e-12)
