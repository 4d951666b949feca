"""The method on one page: images to a loss, and noisy modes to ε̄, through one network.

In training x_0 and ε make x_i, the network makes F of it, and the loss compares F with its target T. In sampling F is
turned into ε̄. What F predicts is, mode by mode, a mix of noise and image,

    T = p ε̄ + q (x̄_0 − μ̄)        so that, with y = x̄_i − √Ā μ̄ = √Ā (x̄_0 − μ̄) + σ ε̄ and Δ = √Ā p − σ q,
    ε̄ = (√Ā F − q y) / Δ          (1/p F where q = 0: nothing is ever divided by √Ā)

An entry of PREDICTIONS gives p and q. Whatever is predicted, an entry of LOSSES says where errors are squared: an
error e of F is one of √Ā/Δ e in ε̄, and one of σ/Δ e in x̄_0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blurdiff.config import settings as config
from blurdiff.config.keys import check_names
from blurdiff.data.images import to_model_range
from blurdiff.diffusion.prior import Prior
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError, check_known
from blurdiff.runtime.devices import autocast, memory_format

Coefficient = float | Tensor  # the same for all modes of all images, or one for each mode, (B, 1 or C, R, R)


@dataclass(frozen=True)
class Prediction:
    """What a network can be trained to predict: `mix(√Ā, σ)` → (p, q).

    With `of_prior` the mix is of ε̄ and (x̄_0 − μ̄)/√S, where S and μ̄ are the power and mean of every mode over the
    training images; √Ā and σ are then those of this whitened process, √(Ā S) c and σ c, with c = 1/√(Ā S + σ²), and the
    network is shown c y, whose modes have variance 1.
    """

    mix: Callable[[Tensor, Tensor], tuple[Coefficient, Coefficient]]
    of_prior: bool = False


PREDICTIONS = {
    "epsilon": Prediction(lambda alpha, sigma: (1.0, 0.0)),  # the paper's
    "v": Prediction(lambda alpha, sigma: (alpha, -sigma)),  # arXiv 2202.00512, with a speed for each mode
    "x0": Prediction(lambda alpha, sigma: (0.0, 1.0)),
    "score": Prediction(lambda alpha, sigma: (-1 / sigma, 0.0)),
    "std": Prediction(lambda alpha, sigma: (sigma, 0.0)),  # "std matching" of the released code
    # F = 0 is the exact posterior mean of Gaussian data: the network learns what is not Gaussian. EDM (arXiv
    # 2206.00364) is this with one S for all modes; S → ∞ is epsilon, S = 1 v, S → 0 x0, up to a factor.
    "gaussian": Prediction(lambda alpha, sigma: (alpha, -sigma), of_prior=True),
}
check_names(PREDICTIONS, config.PREDICTIONS, "denoiser.PREDICTIONS")


@dataclass(frozen=True)
class Relation:
    """How F belongs to ε̄ and x̄_0 at timesteps (B,), mode by mode; a float where modes and timesteps do not differ.

    alpha, sigma   √Ā and σ, (B, 1 or C, R, R)
    show           the network is shown show · y
    p, q           T = p ε̄ + q (x̄_0 − μ̄)
    """

    alpha: Tensor
    sigma: Tensor
    show: Coefficient
    p: Coefficient
    q: Coefficient

    @property
    def determinant(self) -> Tensor:
        """Δ, of use where q is not 0."""
        return self.alpha * self.p - self.sigma * self.q

    @property
    def from_y(self) -> Coefficient:
        """ε̄ = from_y · y + in_epsilon · F."""
        return 0.0 if _is(self.q, 0.0) else -self.q / self.determinant

    @property
    def in_epsilon(self) -> Coefficient:
        """An error e of F is one of in_epsilon · e in ε̄."""
        return 1 / self.p if _is(self.q, 0.0) else self.alpha / self.determinant

    @property
    def in_x0(self) -> Tensor:
        """And one of in_x0 · e in x̄_0; with q = 0, none where nothing is left of a mode (see Process.predict_x0)."""
        if not _is(self.q, 0.0):
            return self.sigma / self.determinant
        lost = self.alpha < 1e-3
        return (self.sigma / (self.p * self.alpha.masked_fill(lost, 1.0))).masked_fill(lost, 0.0)


def _score_weight(at: Relation) -> Tensor:
    """√λ(i) times the error of the score −ε̄/σ, with 1/λ(i) the mean square of the score, the mean over modes of σ⁻²."""
    mean = at.sigma.double().pow(-2).mean(dim=(1, 2, 3), keepdim=True)
    return mean.rsqrt().to(at.sigma.dtype) / at.sigma * at.in_epsilon


# What an error of F is multiplied by before it is squared.
LOSSES: dict[str, Callable[[Relation], Coefficient]] = {
    "epsilon": lambda at: at.in_epsilon,
    "x0": lambda at: at.in_x0,
    "prediction": lambda at: 1.0,
    "balanced": lambda at: torch.as_tensor(at.in_epsilon).abs().sqrt(),
    "score": _score_weight,
}
check_names(LOSSES, config.LOSSES, "denoiser.LOSSES")


def relation(prediction: str, alpha: Tensor, sigma: Tensor, power: Tensor | None = None) -> Relation:
    """The relation of a prediction for √Ā and σ (B, 1 or C, R, R); `power` S (1, R, R) of the prior if it has one."""
    check_known("process.prediction", prediction, PREDICTIONS)
    entry = PREDICTIONS[prediction]
    if not entry.of_prior:
        return Relation(alpha, sigma, 1.0, *entry.mix(alpha, sigma))
    if power is None:
        raise UserError(f"prediction {prediction} needs the prior of the training images; this model has none")
    root = power.sqrt().to(alpha.dtype)
    show = (alpha * root).hypot(sigma).reciprocal()
    p, q = entry.mix(alpha * root * show, sigma * show)
    return Relation(alpha, sigma, show, p, q / root)


def combined(process: Process, *terms: tuple[Coefficient, Tensor]) -> Tensor:
    """Σ coefficient · image, of images in pixels; through the modes only where a coefficient depends on them."""
    if all(isinstance(coefficient, float) for coefficient, _ in terms):
        return _sum(*terms)
    return process.to_pixels(_sum(*((c, process.to_modes(image)) for c, image in terms if not _is(c, 0.0))))


def _sum(*terms: tuple[Coefficient, Tensor]) -> Tensor:
    """Σ coefficient · image; a coefficient of 0.0 or 1.0 costs nothing and changes no bit."""
    parts = [image if _is(c, 1.0) else c * image for c, image in terms if not _is(c, 0.0)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _is(coefficient: Coefficient, number: float) -> bool:
    return isinstance(coefficient, float) and coefficient == number


class Denoiser(nn.Module):
    """A network for one process: (images, i, ε) → losses, and (x̄_i, i) → ε̄.

    `network` takes pixels (B, C, R, R) and timesteps (B,). It alone computes in `precision` ("fp32" or "bf16") and in
    the memory format of the process's device; everything around it is float32. `prediction` and `loss` are keys of
    PREDICTIONS and LOSSES, `range` is that of the pixels (data.images.RANGES); `prior` is that of the training images,
    for the start of sampling, and for the prediction that assumes it.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        prediction: str = "epsilon",
        loss: str = "epsilon",
        range: str = "unit",
        precision: str = "fp32",
        prior: Prior | None = None,
    ):
        super().__init__()
        check_known("process.prediction", prediction, PREDICTIONS)
        check_known("process.loss", loss, LOSSES)
        self.network, self.process, self.prediction = network, process, prediction
        self.weigh, self.range, self.precision = LOSSES[loss], range, precision
        self.device = process.noise.device
        self.layout = memory_format(self.device)
        self.prior = prior and prior.to(self.device)
        self.assumed = self.prior if PREDICTIONS[prediction].of_prior else None
        # Replaced by what torch.compile makes of them.
        self.compute_losses: Callable = self.losses
        self.evaluate: Callable = self.predict

    def predict(self, x: Tensor, i: Tensor) -> Tensor:
        """The network's output for pixels x (B, C, R, R) at timesteps i (B,), in the precision that it computes in."""
        with autocast(self.device, self.precision):
            return self.network(x.contiguous(memory_format=self.layout), i)

    def relation(self, i: Tensor) -> Relation:
        """The prediction's relation at timesteps i."""
        return relation(self.prediction, *self.process.alpha_sigma(i), self.assumed and self.assumed.power)

    def centred(self, modes: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
        """x̄ − √Ā μ̄."""
        return modes if self.assumed is None else modes - alpha * self.assumed.mean.to(modes.dtype)

    def losses(self, images: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """The loss of each image, (B,) float32: images uint8 (B, R, R, C), i (B,), noise ε (B, C, R, R)."""
        process, x_0 = self.process, to_model_range(images, self.range)
        at, shown = self.relation(i), process.q_sample(x_0, i, noise)
        if self.assumed is not None:
            shown = process.to_pixels(at.show * self.centred(process.to_modes(shown), at.alpha))
            x_0 = x_0 - process.to_pixels(self.assumed.mean.to(x_0.dtype))
        target = combined(process, (at.p, noise), (at.q, x_0))
        # A sum over pixels of squares is one over modes.
        error = self.predict(shown, i).float() - target
        return mean_square(process, error, self.weigh(at))

    def forward(self, images: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """`losses`, compiled where that was asked for."""
        return self.compute_losses(images, i, noise)

    def epsilon(self, modes: Tensor, i: Tensor) -> Tensor:
        """ε̄ in modes for x̄_i (B, C, R, R) at one timestep i (1,): the samplers' view, with one U and one Uᵀ."""
        at, y, output = self._asked(modes, i)
        return _sum((at.from_y, y), (at.in_epsilon, output))

    def image(self, modes: Tensor, i: Tensor) -> Tensor:
        """x̂_0 in modes for x̄_i (B, C, R, R) at one timestep i ≥ 1 (1,): μ̄ + (p y − σ F)/Δ, without a detour through ε̄,
        which says nothing of a mode that is lost. Predictions with q = 0 give such a mode as 0."""
        at, y, output = self._asked(modes, i)
        x_0 = at.in_x0 * (at.p / at.sigma * y - output)
        return x_0 if self.assumed is None else x_0 + self.assumed.mean.to(x_0.dtype)

    def guess(self, modes: Tensor, epsilon: Tensor, i: Tensor, noise_only: bool = False) -> Tensor:
        """x̂_0 in modes from x̄_i and the ε̄ that a sampler was given, see Process.predict_x0; of a mode that is lost, the
        mean of the training images where the prediction assumes it."""
        unknown = 0.0 if self.assumed is None else self.assumed.mean.to(modes.dtype)
        return self.process.predict_x0(modes, epsilon, i, noise_only, unknown)

    def _asked(self, modes: Tensor, i: Tensor) -> tuple[Relation, Tensor, Tensor]:
        """(relation, y, F), the last two in modes."""
        at = self.relation(i)
        y = self.centred(modes, at.alpha)
        output = self.evaluate(self.process.to_pixels(_sum((at.show, y))), i.expand(len(modes)))
        return at, y, self.process.to_modes(output.to(modes.dtype))

    def start(self, noise: Tensor, i: Tensor, of_prior: bool = True) -> Tensor:
        """x_N of white noise (B, C, R, R), in pixels: drawn from the prior's marginal at timestep i (1,), if there is
        a prior and it is wanted; otherwise the noise as it is, or in the process's shape."""
        if self.prior is not None and of_prior:
            mean, variance = self.prior.marginal(self.process, i)
        elif self.process.shape is not None:
            mean, variance = torch.zeros((), device=noise.device), self.process.variance(i)
        else:
            return noise
        return self.process.to_pixels(
            mean.to(noise.dtype) + variance.sqrt().to(noise.dtype) * self.process.to_modes(noise)
        )


def mean_square(process: Process, error: Tensor, weight: Coefficient) -> Tensor:
    """The mean square of each image's error (B, C, R, R), its modes multiplied by `weight`, (B,)."""
    if not isinstance(weight, float):
        error = weight * process.to_modes(error)
    elif weight != 1:
        error = weight * error
    return error.square().mean(dim=(1, 2, 3))
