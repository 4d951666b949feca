"""Samplers: plain functions that walk x̄ down a grid of timesteps, mode by mode, for any Process.

Each is `sampler(process, epsilon, x_N, steps, generator, callback=None, **options) → x_0`:

    epsilon    (x̄_i, i of shape (1,)) → ε̄, see denoiser.Denoiser.epsilon; the only place where pixels are needed
    x_N        (B, C, R, R) pixels, the start; white noise stays white under U, so noise is drawn in modes directly
    steps      decreasing timesteps, steps[0] the start, steps[-1] = 0
    callback   called with (i, x̄_i, ε̄_i) before each step, and with (0, x̄_0, None) at the end

√Ā_i is never divided by: it underflows in strongly blurred modes. Formulas hold for s < i, with A = Ā_i/Ā_s and
v = σ_i² − A σ_s².

Samplers that divide by √A treat a mode that keeps less than a thousandth in one step (√A < 1e-3: grids of few steps,
for fine-to-coarse above all) as lost: x̂_0 would be the network's error a thousandfold, in float32 soon infinite. They
take x̂_0 = 0 there, which the exact posterior mean tends to as √Ā_i → 0.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blurdiff.config import settings as config
from blurdiff.config.keys import check_names
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _check_grid(process: Process, steps: Sequence[int]) -> None:
    if len(steps) < 2 or steps[-1] != 0 or any(b >= a for a, b in zip(steps, steps[1:], strict=False)):
        raise UserError("the grid of timesteps must decrease from step to step and end at 0")
    if steps[0] > process.n_timesteps:
        raise UserError(f"the grid of timesteps starts at {steps[0]}, beyond the last timestep {process.n_timesteps}")


def _inverse_sqrt(A: Tensor) -> Tensor:
    """1/√A; 0 for a lost mode (see above)."""
    return A.rsqrt().masked_fill(A < 1e-6, 0.0)


def _flow_step(process: Process, modes: Tensor, prediction: Tensor, i: Tensor, s: Tensor) -> Tensor:
    """DDIM at η = 0, which is also Euler's step of the probability flow: x̄_s = (x̄_i − σ_i ε̄)/√A + σ_s ε̄."""
    scale = _inverse_sqrt(process.transition(i, s)[0])
    weight = process.variance(s).sqrt() - scale * process.variance(i).sqrt()
    return scale.to(modes.dtype) * modes + weight.to(modes.dtype) * prediction


def _walk(process: Process, epsilon, x_N: Tensor, steps: Sequence[int], callback, step) -> Tensor:
    """Apply `step(x̄, ε̄, i, s, remaining)` along the grid; i and s are tensors (1,), remaining counts down to 1."""
    _check_grid(process, steps)
    modes = process.to_modes(x_N)
    timesteps = torch.tensor(list(steps), device=x_N.device)
    for k in range(len(steps) - 1):
        i, s = timesteps[k : k + 1], timesteps[k + 1 : k + 2]
        prediction = epsilon(modes, i)
        if callback:
            callback(steps[k], modes, prediction)
        modes = step(modes, prediction, i, s, len(steps) - 1 - k)
    if callback:
        callback(0, modes, None)
    return process.to_pixels(modes)


def reverse_diffusion(process, epsilon, x_N, steps, generator, callback=None, noise_free_steps: int = 2) -> Tensor:
    """The paper's sampler (section 3.2; Euler–Maruyama): x̄_s = x̄_i + (1 − √A) x̄_i − v/σ_i ε̄ + √v z.

    The second term is the high-pass H that deblurs. No noise in the last `noise_free_steps` steps (2 in the authors'
    code, 0 in the paper's text).
    """

    def step(modes, prediction, i, s, remaining):
        A, v = process.transition(i, s)
        sigma = process.variance(i).sqrt()
        mean = (2 - A.sqrt()).to(modes.dtype) * modes - (v / sigma).to(modes.dtype) * prediction
        if remaining <= noise_free_steps:
            return mean
        return torch.addcmul(mean, v.sqrt().to(modes.dtype), _noise_like(modes, generator))

    return _walk(process, epsilon, x_N, steps, callback, step)


def ddim(process, epsilon, x_N, steps, generator, callback=None, eta: float = 0.0) -> Tensor:
    """DDIM (arXiv 2010.02502) per mode: deterministic at η = 0, the ancestral posterior at η = 1.

    x̄_s = (x̄_i − σ_i ε̄)/√A + √(σ_s² − η² w) ε̄ + η √w z, with the posterior's variance w = v σ_s²/σ_i².
    """

    def step(modes, prediction, i, s, remaining):
        if eta == 0:
            return _flow_step(process, modes, prediction, i, s)
        A, v = process.transition(i, s)
        variance_i, variance_s = process.variance(i), process.variance(s)
        posterior = eta**2 * v * variance_s / variance_i
        scale = _inverse_sqrt(A)
        weight = (variance_s - posterior).clamp(min=0).sqrt() - scale * variance_i.sqrt()
        mean = scale.to(modes.dtype) * modes + weight.to(modes.dtype) * prediction
        return torch.addcmul(mean, posterior.sqrt().to(modes.dtype), _noise_like(modes, generator))

    return _walk(process, epsilon, x_N, steps, callback, step)


def ancestral(process, epsilon, x_N, steps, generator, callback=None) -> Tensor:
    """The posterior q(x̄_s | x̄_i, x̂_0) per mode (DDPM's sampler with the smaller variance): mean
    (x̄_i − v/σ_i ε̄)/√A, variance v σ_s²/σ_i²."""

    def step(modes, prediction, i, s, remaining):
        A, v = process.transition(i, s)
        variance_i = process.variance(i)
        scale = _inverse_sqrt(A)
        weight = -scale * v / variance_i.sqrt()
        mean = scale.to(modes.dtype) * modes + weight.to(modes.dtype) * prediction
        posterior = v * process.variance(s) / variance_i
        return torch.addcmul(mean, posterior.sqrt().to(modes.dtype), _noise_like(modes, generator))

    return _walk(process, epsilon, x_N, steps, callback, step)


def ode_heun(process, epsilon, x_N, steps, generator, callback=None) -> Tensor:
    """Probability-flow ODE by Heun's method in x̄/√Ā against σ/√Ā (as EDM, arXiv 2206.00364); two evaluations a step.

    In these variables the ODE is d(x̄/√Ā) = ε̄ d(σ/√Ā), so the Euler step is DDIM. The last step is an Euler step.
    """

    def step(modes, prediction, i, s, remaining):
        euler = _flow_step(process, modes, prediction, i, s)
        if remaining == 1:
            return euler
        return _flow_step(process, modes, (prediction + epsilon(euler, s)) / 2, i, s)

    return _walk(process, epsilon, x_N, steps, callback, step)


class Sampler(NamedTuple):
    """A sampler by the name that a config gives it."""

    walk: Callable  # as above
    options: tuple[str, ...] = ()  # keys of the config's sampling section that `walk` takes
    evaluations: int = 1  # of the network per step, but for the last step, which always takes one


SAMPLERS = {
    "reverse-diffusion": Sampler(reverse_diffusion, ("noise_free_steps",)),
    "ancestral": Sampler(ancestral),
    "ddim": Sampler(ddim, ("eta",)),
    "ode-heun": Sampler(ode_heun, evaluations=2),
}
check_names(SAMPLERS, config.SAMPLERS, "samplers.SAMPLERS")


def evaluations(sampler: str, n_steps: int) -> int:
    """How often a sampler evaluates the network for each image."""
    return SAMPLERS[sampler].evaluations * (n_steps - 1) + 1
