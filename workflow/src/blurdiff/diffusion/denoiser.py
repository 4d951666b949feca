"""The method on one page: images to a loss, and noisy modes to ε̄, through one network.

In training x_0 and ε make x_i, the network makes a prediction of it, and the loss compares that with a target. In
sampling the prediction is turned into ε̄. What is predicted is an entry of PREDICTIONS:

    epsilon   ε                              the paper's L_ε (λ = 1)
    std       U σ_i Uᵀ ε                     "std matching" of the released code
    score     −U σ_i⁻¹ Uᵀ ε, times λ(i)      exact score matching, λ(i) = 1 / mean over modes of σ_i⁻²
    x0        x_0

Every loss is an element mean of squared differences in pixel space.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from blurdiff.config.keys import check_names
from blurdiff.config.settings import OBJECTIVES
from blurdiff.data.images import to_model_range
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError
from blurdiff.runtime.devices import autocast, memory_format


@dataclass(frozen=True)
class Prediction:
    """What a network can be trained to predict.

    target    (process, x_0, noise ε, i) → the target in pixels, (B, C, R, R)
    epsilon   (process, prediction, x̄_i, i) → ε̄, all in modes
    weight    (process, i) → λ(i), (B,); None for λ = 1
    """

    target: Callable[[Process, Tensor, Tensor, Tensor], Tensor]
    epsilon: Callable[[Process, Tensor, Tensor, Tensor], Tensor]
    weight: Callable[[Process, Tensor], Tensor] | None = None


def _std_target(process: Process, x_0: Tensor, noise: Tensor, i: Tensor) -> Tensor:
    _, sigma = process.alpha_sigma(i)
    return process.to_pixels(sigma * process.to_modes(noise))


def _score_target(process: Process, x_0: Tensor, noise: Tensor, i: Tensor) -> Tensor:
    _, sigma = process.alpha_sigma(i)
    return process.to_pixels(-process.to_modes(noise) / sigma)


def _score_weight(process: Process, i: Tensor) -> Tensor:
    """λ(i): the score's target has mean square 1/λ(i)."""
    _, sigma = process.alpha_sigma(i)
    return 1 / sigma.double().pow(-2).mean(dim=(1, 2, 3)).to(sigma.dtype)


def _epsilon_of_x0(process: Process, x_0: Tensor, modes: Tensor, i: Tensor) -> Tensor:
    alpha, sigma = process.alpha_sigma(i)
    return (modes - alpha * x_0) / sigma


PREDICTIONS = {
    "epsilon": Prediction(
        target=lambda process, x_0, noise, i: noise,
        epsilon=lambda process, prediction, modes, i: prediction,
    ),
    "std": Prediction(
        target=_std_target,
        epsilon=lambda process, prediction, modes, i: prediction / process.alpha_sigma(i)[1],
    ),
    "score": Prediction(
        target=_score_target,
        epsilon=lambda process, prediction, modes, i: -prediction * process.alpha_sigma(i)[1],
        weight=_score_weight,
    ),
    "x0": Prediction(target=lambda process, x_0, noise, i: x_0, epsilon=_epsilon_of_x0),
}
check_names(PREDICTIONS, OBJECTIVES, "denoiser.PREDICTIONS")


def prediction_of(name: str) -> Prediction:
    """The entry of PREDICTIONS; UserError when there is none."""
    if name not in PREDICTIONS:
        raise UserError(f"process.objective: {name!r} is not one of {', '.join(PREDICTIONS)}")
    return PREDICTIONS[name]


class Denoiser(nn.Module):
    """A network for one process: (images, i, ε) → losses, and (x̄_i, i) → ε̄.

    `network` takes pixels (B, C, R, R) and timesteps (B,). It alone computes in `precision` ("fp32" or "bf16") and in
    the memory format of the process's device; everything around it is float32. `range` is that of the pixels, see
    data.images.RANGES.
    """

    def __init__(
        self, network: nn.Module, process: Process, prediction: str, range: str = "unit", precision: str = "fp32"
    ):
        super().__init__()
        self.network, self.process, self.prediction = network, process, prediction_of(prediction)
        self.range, self.precision = range, precision
        self.device = process.noise.device
        self.layout = memory_format(self.device)
        # Replaced by what torch.compile makes of them.
        self.compute_losses: Callable = self.losses
        self.evaluate: Callable = self.predict

    def predict(self, x: Tensor, i: Tensor) -> Tensor:
        """The network's output for pixels x (B, C, R, R) at timesteps i (B,), in the precision that it computes in."""
        with autocast(self.device, self.precision):
            return self.network(x.contiguous(memory_format=self.layout), i)

    def losses(self, images: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """The loss of each image, (B,) float32: images uint8 (B, R, R, C), i (B,), noise ε (B, C, R, R)."""
        x_0 = to_model_range(images, self.range)
        x_i = self.process.q_sample(x_0, i, noise)
        target = self.prediction.target(self.process, x_0, noise, i)
        return weighted_loss(self.process, self.prediction, self.predict(x_i, i), target, i)

    def forward(self, images: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """`losses`, compiled where that was asked for."""
        return self.compute_losses(images, i, noise)

    def epsilon(self, modes: Tensor, i: Tensor) -> Tensor:
        """ε̄ in modes for x̄_i (B, C, R, R) at one timestep i (1,): the samplers' view, with one U and one Uᵀ."""
        output = self.evaluate(self.process.to_pixels(modes), i.expand(len(modes)))
        output = self.process.to_modes(output.to(modes.dtype))
        return self.prediction.epsilon(self.process, output, modes, i)


def weighted_loss(process: Process, prediction: Prediction, output: Tensor, target: Tensor, i: Tensor) -> Tensor:
    """λ(i) times the mean square of the error of each image, (B,), float32 whatever the network computed in."""
    loss = (output.float() - target).square().mean(dim=(1, 2, 3))
    return loss if prediction.weight is None else prediction.weight(process, i) * loss
