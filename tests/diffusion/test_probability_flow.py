"""The probability flow: DDIM and Heun against the closed-form map of Gaussian data."""

from dataclasses import replace

import pytest
import torch
from diffusion_helpers import PROCESSES, at, build, gaussian_epsilon, walk

from blurdiff.diffusion import timesteps


def flow_error(sampler: str, n: int, **options) -> float:
    """Largest relative error against the closed-form flow map of Gaussian data, from t = .9 to t = .1 in n·.8 steps.

    Of data of variance c, x̄ has the variance m = Ā c + σ², and the flow is x̄_s = x̄_i √(m_s/m_i).
    """
    process = build(3, 1, n_timesteps=n, beta_1=0.1 / n, beta_N=20 / n, f_N=140.625 / n)
    signal = torch.tensor([[2.0, 0.5, 0.1], [0.7, 0.2, 0.05], [0.3, 0.02, 0.01]], dtype=torch.float64)
    marginal = lambda i: process.log_alpha_bar(at(i)).exp() * signal + process.variance(at(i))  # noqa: E731
    start, stop = n * 9 // 10, n // 10
    states = {}
    walk(
        sampler, replace(process, matrix=None), gaussian_epsilon(process, signal), torch.ones(1, 1, 3, 3).double(),
        [*range(start, stop - 1, -1), 0], None, lambda i, modes, prediction: states.update({i: modes}), **options,
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


@pytest.mark.parametrize("sampler", ["ddim", "ode-heun"])
@pytest.mark.parametrize("name", ["quartic", "blurring-diffusion"])
def test_flow_of_other_families(name, sampler):
    """The flow map holds whatever Ā and σ are; 250 steps come close to it."""
    process = build(3, 1, **PROCESSES[name])
    signal = torch.full((3, 3), 0.5, dtype=torch.float64)
    modal, x_N = replace(process, matrix=None), torch.ones(1, 1, 3, 3, dtype=torch.float64)
    steps = timesteps.step_grid(process, 250, "quadratic")
    x_0 = walk(sampler, modal, gaussian_epsilon(process, signal), x_N, steps)
    start = process.log_alpha_bar(at(1000)).exp() * signal + process.variance(at(1000))
    torch.testing.assert_close(x_0, (signal / start).sqrt(), rtol=0.04, atol=0)
