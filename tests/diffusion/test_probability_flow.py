"""The probability flow: DDIM, Heun and the adaptive solver against the closed-form map of Gaussian data."""

import math
from dataclasses import replace

import pytest
import torch
from diffusion_helpers import PROCESSES, at, build, gaussian_epsilon

from blurdiff.diffusion import samplers, timesteps
from blurdiff.errors import UserError


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


def test_the_adaptive_solver_of_a_still_flow():
    """x̂_0 = 0 everywhere makes x̄ ∝ σ, so slow at first that the solver's first guess is one step beyond the end."""
    process = build(4, dtype=torch.float32)
    seen, states = [], {}

    def epsilon(modes, i):
        seen.append(float(i))
        return modes / process.alpha_sigma(i)[1]

    x_N = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    callback = lambda i, modes, prediction: states.update({i: modes})  # noqa: E731
    x_0 = samplers.ode_adaptive(process, epsilon, x_N, [1000, 1, 0], None, callback)
    assert min(seen) == 1
    ratio = process.variance(at(1)).sqrt() / process.variance(at(1000)).sqrt()
    torch.testing.assert_close(states[1], (process.to_modes(x_N) * ratio).float(), rtol=0.05, atol=1e-3)
    assert x_0.abs().max() < 1e-4


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
    steps = timesteps.step_grid(process, 250, "quadratic")
    x_0 = samplers.SAMPLERS[sampler](modal, gaussian_epsilon(process, signal), x_N, steps, None, **options)
    start = process.log_alpha_bar(at(1000)).exp() * signal + process.variance(at(1000))
    torch.testing.assert_close(x_0, (signal / start).sqrt(), rtol=0.04, atol=0)
