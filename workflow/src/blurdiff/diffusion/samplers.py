"""Samplers: plain functions that say, mode by mode, what a step down a grid of timesteps makes of x̄, for any Process.

Each is `sampler(step, **options) → (a, b, w)`, which stands for x̄_s = a x̄_i + b ε̄ + √w z; where w is None, no noise z
is drawn. `Sampler.walk` takes all steps of a grid. One whose steps are not of this form has a `walk` of its own.

√Ā_i is never divided by: it underflows in strongly blurred modes. Formulas hold for s < i, with A = Ā_i/Ā_s and
v = σ_i² − A σ_s².

Samplers that divide by √A treat a mode that keeps less than a thousandth in one step (√A < 1e-3: grids of few steps,
for fine-to-coarse above all) as lost: x̂_0 would be the network's error a thousandfold, in float32 soon infinite. They
take x̂_0 = 0 there, which the exact posterior mean tends to as √Ā_i → 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from blurdiff.config import settings as config
from blurdiff.config.keys import check_names
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError

Coefficients = tuple[Tensor, Tensor, Tensor | None]


class Step(NamedTuple):
    """A step from timestep i down to s: float64, for every mode; `remaining` counts the steps down to 1."""

    A: Tensor
    v: Tensor
    variance_i: Tensor
    variance_s: Tensor
    remaining: int

    @property
    def inverse_sqrt_A(self) -> Tensor:
        """1/√A; 0 for a lost mode (see above)."""
        return self.A.rsqrt().masked_fill(self.A < 1e-6, 0.0)


def reverse_diffusion(step: Step, noise_free_steps: int = 2) -> Coefficients:
    """The paper's sampler (section 3.2; Euler–Maruyama): x̄_s = x̄_i + (1 − √A) x̄_i − v/σ_i ε̄ + √v z.

    The second term is the high-pass H that deblurs. No noise in the last `noise_free_steps` steps (2 in the authors'
    code, 0 in the paper's text).
    """
    noise = None if step.remaining <= noise_free_steps else step.v
    return 2 - step.A.sqrt(), -step.v / step.variance_i.sqrt(), noise


def ddim(step: Step, eta: float = 0.0) -> Coefficients:
    """DDIM (arXiv 2010.02502) per mode: the ancestral posterior at η = 1; at η = 0 deterministic, Euler's step of the
    probability flow.

    x̄_s = (x̄_i − σ_i ε̄)/√A + √(σ_s² − η² w) ε̄ + η √w z, with the posterior's variance w = v σ_s²/σ_i².
    """
    noise = eta**2 * step.v * step.variance_s / step.variance_i if eta else None
    known = step.variance_s if noise is None else (step.variance_s - noise).clamp(min=0)
    scale = step.inverse_sqrt_A
    return scale, known.sqrt() - scale * step.variance_i.sqrt(), noise


def ancestral(step: Step) -> Coefficients:
    """The posterior q(x̄_s | x̄_i, x̂_0) per mode (DDPM's sampler with the smaller variance): mean
    (x̄_i − v/σ_i ε̄)/√A, variance v σ_s²/σ_i²."""
    scale = step.inverse_sqrt_A
    return scale, -scale * step.v / step.variance_i.sqrt(), step.v * step.variance_s / step.variance_i


@dataclass(frozen=True)
class Sampler:
    """A sampler by the name that a config gives it.

    options       keys of the config's section sampling that `coefficients` takes
    evaluations   of the network per step, but for the last step, which always takes one; with 2, ε̄ is the mean of that
                  at the step's start and that at its end, which is Heun's method
    """

    coefficients: Callable[..., Coefficients]
    options: tuple[str, ...] = ()
    evaluations: int = 1

    def walk(
        self,
        process: Process,
        epsilon: Callable[[Tensor, Tensor], Tensor],
        x_N: Tensor,
        steps: Sequence[int],
        generator: torch.Generator | None,
        callback: Callable | None = None,
        **options: float,
    ) -> Tensor:
        """x_0 in pixels.

        epsilon    (x̄_i, i of shape (1,)) → ε̄, see denoiser.Denoiser.epsilon; the only place where pixels are needed
        x_N        (B, C, R, R) pixels, the start; white noise stays white under U, so noise is drawn in modes directly
        steps      decreasing timesteps, steps[0] the start, steps[-1] = 0
        callback   called with (i, x̄_i, ε̄_i) before each step, and with (0, x̄_0, None) at the end
        """
        _check_grid(process, steps)
        modes = process.to_modes(x_N)
        timesteps = torch.tensor(list(steps), device=x_N.device)
        for k, remaining in enumerate(range(len(steps) - 1, 0, -1)):
            i, s = timesteps[k : k + 1], timesteps[k + 1 : k + 2]
            prediction = epsilon(modes, i)
            if callback:
                callback(steps[k], modes, prediction)
            step = Step(*process.transition(i, s), process.variance(i), process.variance(s), remaining)
            *mix, noise = self.coefficients(step, **options)
            a, b = (coefficient.to(modes.dtype) for coefficient in mix)
            if self.evaluations == 2 and remaining > 1:
                prediction = (prediction + epsilon(a * modes + b * prediction, s)) / 2
            modes = a * modes + b * prediction
            if noise is not None:
                modes = torch.addcmul(modes, noise.sqrt().to(modes.dtype), _noise_like(modes, generator))
        if callback:
            callback(0, modes, None)
        return process.to_pixels(modes)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _check_grid(process: Process, steps: Sequence[int]) -> None:
    if len(steps) < 2 or steps[-1] != 0 or any(b >= a for a, b in zip(steps, steps[1:], strict=False)):
        raise UserError("the grid of timesteps must decrease from step to step and end at 0")
    if steps[0] > process.n_timesteps:
        raise UserError(f"the grid of timesteps starts at {steps[0]}, beyond the last timestep {process.n_timesteps}")


SAMPLERS = {
    "reverse-diffusion": Sampler(reverse_diffusion, ("noise_free_steps",)),
    "ancestral": Sampler(ancestral),
    "ddim": Sampler(ddim, ("eta",)),
    # The probability flow by Heun's method in x̄/√Ā against σ/√Ā (as EDM, arXiv 2206.00364), where the ODE is d(x̄/√Ā) =
    # ε̄ d(σ/√Ā), so that Euler's step is DDIM's. The last step is one of Euler's.
    "ode-heun": Sampler(ddim, evaluations=2),
}
check_names(SAMPLERS, config.SAMPLERS, "samplers.SAMPLERS")


def evaluations(sampler: str, n_steps: int) -> int:
    """How often a sampler evaluates the network for each image."""
    return SAMPLERS[sampler].evaluations * (n_steps - 1) + 1
