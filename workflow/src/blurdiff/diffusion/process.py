"""One class for every diffusion that is diagonal in an orthonormal basis (section 3.1 of the paper).

With x̄ = Uᵀx, mode by mode: x̄_i = √Ā_i x̄_0 + σ_i ε̄. A process is a basis, a few scalar tables over the timesteps and one
R×R grid log D of speeds:

    log Ā_i = log ᾱ_i + 2 log((1 − m) exp(F_i log D) + m),      m = 0 but for Blurring Diffusion
    σ_i²    = 1 − Ā_i (variance preserving, the paper's), or a scalar a timestep

`snr_shift` δ and `snr_tilt` p add to the log SNR of a mode with signal power S: Ā/(1 − Ā) becomes
e^δ (S/S̄)^{−p} Ā/(1 − Ā), with S̄ the geometric mean of S, so that a tilt leaves the mean log SNR over modes as it is.
With `shape` w the noise is not white: σ_i² is w times the scalar variance.

Tables and grid stay in float64; what depends on them is computed in float64 and rounded once, so that √Ā may underflow
to 0 but nothing becomes infinite or NaN. Nothing is larger than O(N + R²).
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


def _interpolate(table: Tensor, i: Tensor) -> Tensor:
    """A table at fractional timesteps: piecewise cubic, smooth, and monotone where the table is (Fritsch & Butland).

    Straight lines would do for the values, but the probability flow needs their slope to be continuous.
    """
    steps = table.diff()
    product = steps[:-1] * steps[1:]
    slopes = torch.where(product > 0, 2 * product / (steps[:-1] + steps[1:]), 0.0)
    slopes = torch.cat([steps[:1], slopes, steps[-1:]])
    low = i.floor().long().clamp(0, len(table) - 2)
    t = i - low
    ends = (1 + 2 * t) * (1 - t) ** 2 * table[low] + t**2 * (3 - 2 * t) * table[low + 1]
    return ends + t * (1 - t) ** 2 * slopes[low] + t**2 * (t - 1) * slopes[low + 1]


def shifted(log_alpha_bar: Tensor, snr_shift: float | Tensor) -> Tensor:
    """log Ā after `snr_shift` is added to log Ā/(1 − Ā): exact near Ā = 1 and where Ā underflows; 0 stays 0."""
    if isinstance(snr_shift, float) and snr_shift == 0:
        return log_alpha_bar
    log_snr = log_alpha_bar - (-torch.expm1(log_alpha_bar)).log()
    return -torch.nn.functional.softplus(-(log_snr + snr_shift), threshold=40)


@dataclass(frozen=True)
class Process:
    """A diagonal diffusion process.

    matrix          (R, R), U; None for the pixel basis (U = I)
    noise           (N + 1,) float64, log ᾱ_i, the part of log Ā_i that all modes share
    blur            (N + 1,) float64, F_i ≥ 0, how often D has been applied at timestep i
    log_D           (1, R, R), or (C, R, R) where channels differ, float64, ≤ 0
    minimum         m in [0, 1): the share of a mode that no blur removes
    scalar_variance (N + 1,) float64, or None for σ² = 1 − Ā
    snr_shift       δ, where σ² = 1 − Ā (a scalar variance has it in its tables already)
    snr_tilt        p, likewise: 0 is no tilt; 1 gives all modes the same SNR; with more, fine modes are lost last
    power           (1, R, R) float64, > 0, S, of a process that is made from it; else None
    shape           (1, R, R) float64, > 0, w; None for white noise
    dtype           of transforms and coefficients
    """

    matrix: Tensor | None
    noise: Tensor
    blur: Tensor
    log_D: Tensor
    minimum: float = 0.0
    scalar_variance: Tensor | None = None
    snr_shift: float = 0.0
    snr_tilt: float = 0.0
    power: Tensor | None = None
    shape: Tensor | None = None
    dtype: torch.dtype = torch.float32

    @property
    def n_timesteps(self) -> int:
        return len(self.noise) - 1

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Process":
        """The same process on another device, computing in `dtype` (the tables stay float64)."""
        dtype = dtype or self.dtype
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: each.to(device) for name, each in tensors.items() if isinstance(each, Tensor)}
        return replace(self, **moved, dtype=dtype)

    def to_modes(self, x: Tensor) -> Tensor:
        """x̄ = Uᵀ x: (…, R, R) pixels to (…, R, R) modes."""
        if self.matrix is None:
            return x
        U = self.matrix.to(x.dtype)
        return U.T @ x @ U

    def to_pixels(self, modes: Tensor) -> Tensor:
        """x = U x̄: (…, R, R) modes to (…, R, R) pixels."""
        if self.matrix is None:
            return modes
        U = self.matrix.to(modes.dtype)
        return U @ modes @ U.T

    def _at(self, table: Tensor, i: Tensor) -> Tensor:
        """A table at timesteps (B,), shaped (B, 1, 1, 1); fractional timesteps are interpolated (`_interpolate`).

        Timesteps shaped like log_D, one for each mode, keep their shape.
        """
        values = _interpolate(table, i.double()) if i.is_floating_point() else table[i]
        return values[:, None, None, None] if i.dim() == 1 else values

    def log_alpha_bar(self, i: Tensor) -> Tensor:
        """log Ā_i (B, 1 or C, R, R), float64, for timesteps (B,) in [0, N], whole or fractional.

        With i (1 or C, R, R) every mode is taken at its own timestep; so in `variance`.
        """
        exponent = self._at(self.blur, i) * self.log_D
        if self.minimum:
            exponent = torch.log1p((1 - self.minimum) * torch.expm1(exponent))
        return shifted(self._at(self.noise, i) + 2 * exponent, self.shift_of_modes())

    def shift_of_modes(self) -> float | Tensor:
        """What is added to the log SNR: δ, or with a tilt δ − p log(S/S̄), (1, R, R)."""
        if self.power is None or self.snr_tilt == 0:
            return self.snr_shift
        log_power = self.power.log()
        return self.snr_shift - self.snr_tilt * (log_power - log_power.mean())

    def shared_alpha(self, i: Tensor) -> Tensor:
        """√ᾱ_i (B, 1, 1, 1): what is left at timestep i of a mode without blur and tilt; in the process's dtype."""
        return (shifted(self._at(self.noise, i), self.snr_shift) / 2).exp().to(self.dtype)

    def variance(self, i: Tensor) -> Tensor:
        """σ_i² (B, 1 or C, R, R), or (B, 1, 1, 1) where all modes share it; float64."""
        if self.scalar_variance is None:
            return -torch.expm1(self.log_alpha_bar(i))
        variance = self._at(self.scalar_variance, i)
        return variance if self.shape is None else variance * self.shape

    def alpha_sigma(self, i: Tensor) -> tuple[Tensor, Tensor]:
        """(√Ā_i, σ_i) in the process's dtype, shaped like `log_alpha_bar` and `variance`."""
        log_alpha_bar = self.log_alpha_bar(i)
        variance = -torch.expm1(log_alpha_bar) if self.scalar_variance is None else self.variance(i)
        return (log_alpha_bar / 2).exp().to(self.dtype), variance.sqrt().to(self.dtype)

    def transition(self, i: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(A, v) of q(x̄_i | x̄_s) = N(√A x̄_s, v) for s < i, float64: A = Ā_i/Ā_s, v = σ_i² − A σ_s².

        For a variance preserving process v = 1 − A; for adjacent timesteps these are the paper's A_i and B_i.
        """
        if self.minimum or self.snr_shift or self.snr_tilt:
            log_A = self.log_alpha_bar(i) - self.log_alpha_bar(s)
        else:  # from the tables' differences: log Ā itself may be −3700, and a step of it .02
            log_A = self._at(self.noise, i) - self._at(self.noise, s)
            log_A = log_A + 2 * (self._at(self.blur, i) - self._at(self.blur, s)) * self.log_D
        if self.scalar_variance is None:
            return log_A.exp(), -torch.expm1(log_A)
        variance_s = self.variance(s)
        return log_A.exp(), self.variance(i) - variance_s - variance_s * torch.expm1(log_A)  # no cancellation at A ≈ 1

    def q_sample(self, x_0: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """x_i = U √Ā_i Uᵀ x_0 + U σ_i Uᵀ ε in pixels: x_0 and noise (B, C, R, R), i (B,)."""
        alpha, sigma = self.alpha_sigma(i)
        if self.matrix is None:
            return alpha * x_0 + sigma * noise
        modes, noise_modes = self.to_modes(torch.stack([x_0, noise]))
        return self.to_pixels(torch.addcmul(sigma * noise_modes, alpha, modes))

    def predict_x0(
        self, modes: Tensor, epsilon: Tensor, i: Tensor, noise_only: bool = False, unknown: Tensor | float = 0.0
    ) -> Tensor:
        """x̂_0 in modes from x̄_i and ε̄: (x̄_i − σ ε̄)/√Ā.

        A mode whose √Ā_i is below 1e-3 is given as `unknown`: x̂_0 would be the network's error a thousandfold.
        `noise_only` divides by √ᾱ_i alone, as the released code does: that x̂_0 stays blurred.
        """
        alpha, sigma = self.alpha_sigma(i)
        if noise_only:
            alpha = self.shared_alpha(i)
        lost = alpha < 1e-3
        return torch.where(lost, unknown, (modes - sigma * epsilon) / alpha.masked_fill(lost, 1.0))
