"""Grids of timesteps, against brute force."""

import pytest
import torch
from diffusion_helpers import build

from blurdiff.config.settings import ProcessConfig
from blurdiff.diffusion import timesteps


@pytest.mark.parametrize("kind", timesteps.GRIDS)
@pytest.mark.parametrize("overrides", [{}, {"f_type": "log", "f_N": 0.6}, {"family": "blurring-diffusion"}])
def test_grids_have_exactly_their_steps(kind, overrides):
    for n in (10, 1000):
        process = build(6, n_timesteps=n, **overrides)
        for n_steps in {1, 2, 3, 7, 9, 10, 50, 250, n - 1, n}:
            if n_steps <= n:
                grid = timesteps.step_grid(process, n_steps, kind)
                assert len(grid) == n_steps + 1
                assert (grid[0], grid[-1]) == (n, 0)
                assert all(type(i) is int for i in grid)
                assert all(a > b for a, b in zip(grid, grid[1:], strict=False))
    assert timesteps.step_grid(process, None, kind) == list(range(1000, -1, -1))
    assert timesteps.step_grid(process, None, kind, start=999) == list(range(999, -1, -1))
    assert timesteps.step_grid(process, 5, kind, start=999)[0] == 999


@pytest.mark.parametrize(("skip", "last"), [(False, 50), (True, 49)])
def test_last_trained_timestep(skip, last):
    found = ProcessConfig(n_timesteps=50, skip_last_timestep=skip).last_timestep
    assert found == last and type(found) is int


def test_uniform_and_quadratic_grids():
    process = build(6)
    assert timesteps.step_grid(process, 50) == [1000 - 20 * k for k in range(51)]
    assert timesteps.step_grid(process, 4, "quadratic") == [1000, 562, 250, 62, 0]
    assert timesteps.step_grid(process, 50, "quadratic")[-4:] == [4, 2, 1, 0]


def test_snr_crossings_by_brute_force():
    process = build(6, n_timesteps=200, beta_1=5e-4, beta_N=0.1, f_type="log", f_N=0.6)
    signal = torch.logspace(2, -4, 36, dtype=torch.float64).reshape(6, 6)
    for variant in (process, build(6, n_timesteps=200, family="blurring-diffusion"), build(6, mode_order="released")):
        for variance in (None, signal):
            crossings = timesteps.snr_crossings(variant, variance)
            i = torch.arange(1, variant.n_timesteps + 1)
            power = variant.log_alpha_bar(i).exp() * (1.0 if variance is None else variance)
            below = power <= variant.variance(i)
            first = torch.where(below.any(0), below.double().argmax(0) + 1, variant.n_timesteps)
            assert torch.equal(crossings, first)
            assert crossings.shape == variant.log_D.shape


@pytest.mark.parametrize(("kind", "n"), [("snr", 40), ("information", 20)])
def test_half_of_a_grid_follows_what_is_lost(kind, n):
    """The k-th of n points lies where (lost so far / all + i/N)/2 reaches k/n, by brute force."""
    process = build(64)
    spectrum = 100 / (1 + torch.arange(64.0).double()[:, None] ** 2 + torch.arange(64.0).double() ** 2)
    if kind == "snr":
        crossings = timesteps.snr_crossings(process, spectrum).flatten()
        lost = torch.stack([(crossings <= i).double().mean() for i in range(1001)])
    else:
        left = timesteps.information(process, spectrum)
        lost = (left[0] - left) / (left[0] - left[-1])
    density = (lost + torch.arange(1001.0) / 1000) / 2
    grid = timesteps.step_grid(process, n, kind, spectrum)
    for k, i in enumerate(reversed(grid)):
        assert density[i] >= k / n - 1e-12
        assert i == 0 or density[i - 1] < k / n + 1e-12
    if kind == "snr":
        middle = int(crossings.double().median())
        near = lambda points: sum(abs(i - middle) < 50 for i in points)  # noqa: E731
        assert near(grid) > 2 * near(timesteps.step_grid(process, n))


def test_information_of_one_mode_by_hand():
    process = build(1, basis="pixel", n_timesteps=50)
    i = torch.arange(1, 51)
    alpha_bar = process.log_alpha_bar(i).exp().flatten()
    expected = 0.5 * torch.log1p(4 * alpha_bar / (1 - alpha_bar))
    found = timesteps.information(process, torch.full((1, 1), 4.0, dtype=torch.float64))
    assert torch.allclose(found[1:], expected, rtol=1e-12)
    assert found[0] == found[1]


def test_snr_grid_of_log_is_dense_at_the_start():
    """With log most modes live at the first few timesteps only."""
    grid = timesteps.step_grid(build(64, f_type="log", f_N=0.6), 50, "snr")
    assert sum(i <= 50 for i in grid) > 20
