"""What the samplers make of Gaussian data with the exact score: no training, no drawing, the paper's numbers."""

import math
from dataclasses import replace

import pytest
import torch
from diffusion_helpers import (
    build,
    final_variance,
)

from blurdiff.diffusion import timesteps


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
    steps = timesteps.step_grid(process, n_steps)
    variance = final_variance(monkeypatch, sampler, process, signal, steps, **options)
    assert round(math.sqrt(variance / signal), digits) == expected


def test_a_better_grid_cures_ddim(monkeypatch):
    """50 steps on the SNR grid beat 50 uniform steps for log, whose high modes live at i ≤ 20."""
    process, signal = highest_mode(**LOG)
    whole = build(64, 1, **LOG)
    error = {}
    for kind in ("uniform", "snr"):
        steps = timesteps.step_grid(whole, 50, kind)
        variance = final_variance(monkeypatch, "ddim", process, signal, steps)
        error[kind] = abs(math.sqrt(variance / signal) - 1)
    assert error["snr"] < error["uniform"]
