"""Samplers judged without a network: Gaussian data, the exact score, and the variance of each mode carried to the end.

Data whose modes are independent and Gaussian, x̄_0 ~ N(0, S), have x̄_i ~ N(0, Ā_i S + σ_i²) and the exact prediction

    E[ε̄ | x̄_i] = σ_i / (Ā_i S + σ_i²) · x̄_i,

which is linear. A step of any sampler is then x̄_s = g x̄_i + √w z with numbers g and w for each mode, and the variance
goes from step to step as g² Var + w: nothing is drawn, nothing is estimated. What is left between the final and the
true standard deviation is the sampler's own error (discrete steps, and the start at N(0, I)), since the score has none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from blurdiff.audit.settings import LOG, QUARTIC, paper_process
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.process import Process
from blurdiff.diffusion.timesteps import GRIDS, snr_crossings, step_grid

# Process keys of every row of the experiment; what is not named is the paper's.
PROCESSES: list[dict[str, Any]] = [
    {"f_type": "none"},
    LOG,
    QUARTIC,
    {**QUARTIC, "direction": "fine-to-coarse"},
    {**QUARTIC, "direction": "reversed"},
    {**QUARTIC, "mode_order": "released"},
    {**LOG, "mode_order": "released"},
]
FEW_STEPS = 50
PIXEL_STD = 0.25


def spectrum(resolution: int, pixel_std: float = PIXEL_STD) -> np.ndarray:
    """Variance S of every mode, (R, R) float64: ∝ 1/f² as in photographs, with `pixel_std`² as its mean.

    Mode m of a blur with a zero border is close to a sine of (m + 1)/2 periods over R + 1 pixels, so that
    f² ∝ (m + 1)² + (n + 1)². The mean over modes is the variance of a pixel; 0.25 is usual for images in [0, 1].
    """
    squared = np.arange(1, resolution + 1) ** 2
    S = 1 / (squared[:, None] + squared[None, :])
    return S * (pixel_std**2 / S.mean())


def frequencies(resolution: int) -> np.ndarray:
    """Spatial frequency √(f_x² + f_y²) of every mode in cycles a pixel, (R, R), see `spectrum`."""
    f = np.arange(1, resolution + 1) / (2 * (resolution + 1))
    return np.hypot(f[:, None], f[None, :])


@dataclass(frozen=True)
class Marginal:
    """x̄_i of one timestep, mode by mode: its variance `total` = Ā S + σ², of which `noise` = σ² and `signal` = Ā S."""

    signal: Tensor
    noise: Tensor

    @cached_property
    def total(self) -> Tensor:
        return self.signal + self.noise

    @cached_property
    def sigma(self) -> Tensor:
        return self.noise.sqrt()

    @cached_property
    def share(self) -> Tensor:
        """Of the signal in the total; 1 − σ epsilon, but exact where Ā is tiny."""
        return self.signal / self.total

    @cached_property
    def epsilon(self) -> Tensor:
        """The exact prediction's coefficient: ε̄ = epsilon · x̄_i."""
        return self.sigma / self.total


# A sampler's (g, w) for a step from timestep i to s: A and v are the forward transition's, i and s the marginals, and
# `remaining` counts the steps down to 1.


def reverse_diffusion(A, v, i: Marginal, s: Marginal, remaining: int, noise_free_steps: int = 2):
    """The paper's sampler: Euler–Maruyama, no noise in the last steps."""
    gain = 2 - A.sqrt() - v * i.epsilon / i.sigma
    return gain, v if remaining > noise_free_steps else 0.0


def reverse_diffusion_noisy(A, v, i: Marginal, s: Marginal, remaining: int):
    """The paper's sampler as its text has it: noise in every step."""
    return reverse_diffusion(A, v, i, s, remaining, noise_free_steps=0)


def ancestral(A, v, i: Marginal, s: Marginal, remaining: int):
    """DDPM's sampler with the posterior's variance; g = (1 − v/σ_i epsilon)/√A."""
    return A.sqrt() * s.total / i.total, v * s.noise / i.noise


def ddim(A, v, i: Marginal, s: Marginal, remaining: int):
    """DDIM with η = 0, deterministic; g = (1 − σ_i epsilon)/√A + σ_s epsilon."""
    return i.share / A.sqrt() + s.sigma * i.epsilon, 0.0


def ode_heun(A, v, i: Marginal, s: Marginal, remaining: int):
    """Heun's method for the probability-flow ODE, its last step Euler's (DDIM).

    With e = epsilon: the mean of Euler's step E = 1/√A + (σ_s − σ_i/√A) e_i and of the one with e_s E in place of e_i.
    """
    euler, _ = ddim(A, v, i, s, remaining)
    if remaining == 1:
        return euler, 0.0
    both = i.share + s.share - i.share * s.share
    corrected = (1 - s.share) * euler - i.sigma * s.epsilon * i.share / A + both / A.sqrt()
    return (euler + corrected) / 2, 0.0


# By the names of the config's `sampling.sampler`; the second is `noise_free_steps: 0`.
SAMPLERS: dict[str, Callable] = {
    "reverse-diffusion": reverse_diffusion,
    "reverse-diffusion, noise in every step": reverse_diffusion_noisy,
    "ancestral": ancestral,
    "ddim": ddim,
    "ode-heun": ode_heun,
}


def propagate(
    process: Process, S: np.ndarray, steps: Sequence[int], samplers: Mapping[str, Callable] = SAMPLERS
) -> dict[str, np.ndarray]:
    """Final over true standard deviation of every mode, (1 or C, R, R), for each of `samplers`, started at N(0, I).

    S: the data's variance in modes, (R, R). steps: decreasing timesteps that end at 0.
    """
    # Modes with the same D and S share their fate: (m, n) and (n, m) in the paper's order.
    pairs = np.stack([process.log_D.numpy(), np.broadcast_to(S, process.log_D.shape)]).reshape(2, -1)
    (log_D, data), index = np.unique(pairs, axis=1, return_inverse=True)
    folded = replace(process, log_D=torch.from_numpy(log_D).reshape(1, 1, -1))
    data = torch.from_numpy(data)
    variances = {name: torch.ones_like(data) for name in samplers}
    timesteps = torch.tensor(list(steps))

    def marginal(i: Tensor) -> Marginal:
        return Marginal(folded.log_alpha_bar(i).flatten().exp() * data, folded.variance(i).flatten())

    here = marginal(timesteps[:1])
    for k in range(len(steps) - 1):
        i, s = timesteps[k : k + 1], timesteps[k + 1 : k + 2]
        A, v = (part.flatten() for part in folded.transition(i, s))
        there = marginal(s)
        for name, step in samplers.items():
            gain, noise = step(A, v, here, there, len(steps) - 1 - k)
            variances[name] = gain.square() * variances[name] + noise
        here = there
    shape = process.log_D.shape
    return {name: (variance / data).sqrt().numpy()[index].reshape(shape) for name, variance in variances.items()}


def experiment(resolution: int, n_timesteps: int = 1000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every process, grid of steps and sampler: (curves over spatial frequency, one summary row each).

    Curves: ratio is the geometric mean over the modes of a ring of frequencies, ratio_min and ratio_max its extremes.
    Summary: the ratio at the highest mode and at the worst mode (the one of largest |log ratio|), the share of modes
    whose ratio is off by more than a tenth, the squared 2-Wasserstein distance to the data, Σ(σ_final − σ_true)², as a
    share of the data's variance, the largest 1/√A of a step: what all samplers but reverse diffusion multiply an error
    of a network by, and the rounding of float32; and the timestep by which half of the modes have an SNR below 1.
    """
    S = spectrum(resolution)
    curves, summary = [], []
    for keys in PROCESSES:
        settings = paper_process(n_timesteps=n_timesteps, **keys)
        process = build_process(settings, resolution)
        named = {key: settings[key] for key in ("f_type", "f_N", "direction", "mode_order")}
        crossing = float(np.median(snr_crossings(process, torch.from_numpy(S)).numpy()))
        for grid in ("all", *GRIDS):
            steps = step_grid(process) if grid == "all" else step_grid(process, FEW_STEPS, grid)
            n_steps = len(steps) - 1
            for name, ratio in propagate(process, S, steps).items():
                evaluations = 2 * n_steps - 1 if name == "ode-heun" else n_steps
                row = {**named, "sampler": name, "grid": grid, "n_steps": n_steps, "evaluations": evaluations}
                numbers = {"largest_amplification": amplification(process, steps), "median_snr_crossing": crossing}
                summary.append({**row, **summarize(ratio, S), **numbers})
                curve = radial_average(ratio)
                curves.append(curve.assign(**row)[[*row, *curve.columns]])
    return pd.concat(curves, ignore_index=True), pd.DataFrame(summary)


def radial_average(ratio: np.ndarray) -> pd.DataFrame:
    """Ratios (1 or C, R, R) over R/2 rings of equal width in spatial frequency."""
    f = frequencies(ratio.shape[-1]).ravel()
    ring = np.digitize(f, np.linspace(0, f.max(), ratio.shape[-1] // 2 + 1)[1:-1])
    modes = ratio.reshape(len(ratio), -1)
    log_ratio = np.log(modes).mean(axis=0)
    table = pd.DataFrame({"f": f, "log_ratio": log_ratio, "low": modes.min(axis=0), "high": modes.max(axis=0)})
    rings = table.groupby(ring)
    return pd.DataFrame(
        {
            "frequency": rings["f"].mean(),
            "n_modes": rings.size(),
            "ratio": np.exp(rings["log_ratio"].mean()),
            "ratio_min": rings["low"].min(),
            "ratio_max": rings["high"].max(),
        }
    )


def summarize(ratio: np.ndarray, S: np.ndarray) -> dict[str, float]:
    """The numbers of a summary row from the ratios (1 or C, R, R) and the data's variance (R, R)."""
    worst = ratio.flat[np.abs(np.log(ratio)).argmax()]
    distance = (np.square(ratio - 1) * S).sum() / (len(ratio) * S.sum())
    highest = np.exp(np.log(ratio[:, -1, -1]).mean())
    return {
        "ratio_highest_mode": highest,
        "ratio_worst_mode": worst,
        "share_off_by_a_tenth": (np.abs(ratio - 1) > 0.1).mean(),
        "relative_distance": distance,
    }


def amplification(process: Process, steps: Sequence[int]) -> float:
    """The largest 1/√A over all steps of a grid and all modes."""
    i, s = torch.tensor(list(steps[:-1])), torch.tensor(list(steps[1:]))
    log_A = process.noise[i] - process.noise[s] + 2 * (process.blur[i] - process.blur[s]) * process.log_D.min()
    return float(torch.exp(-log_A.min() / 2))
