"""What the network is trained to predict, and how each prediction is turned into ε̄ for the samplers.

Every objective is an element mean of squared differences in pixel space:

    epsilon   ε                              the paper's L_ε (λ = 1)
    std       U σ_i Uᵀ ε                     "std matching" of the released code
    score     −U σ_i⁻¹ Uᵀ ε, times λ(i)      exact score matching, λ(i) = 1 / mean over modes of σ_i⁻²
    x0        x_0
"""

from collections.abc import Callable

from torch import Tensor

from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError

OBJECTIVES = ("epsilon", "std", "score", "x0")


def training_pair(process: Process, objective: str, x_0: Tensor, i: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """(x_i, target), both (B, C, R, R), for images x_0, timesteps i (B,) and noise ε (B, C, R, R)."""
    x_i = process.q_sample(x_0, i, noise)
    if objective == "epsilon":
        return x_i, noise
    if objective == "x0":
        return x_i, x_0
    _, sigma = process.alpha_sigma(i)
    noise_modes = process.to_modes(noise)
    if objective == "std":
        return x_i, process.to_pixels(sigma * noise_modes)
    if objective == "score":
        return x_i, process.to_pixels(-noise_modes / sigma)
    raise UserError(f"process.objective: {objective!r} is not one of {', '.join(OBJECTIVES)}")


def loss_weight(process: Process, objective: str, i: Tensor) -> Tensor | None:
    """λ(i), (B,), or None for λ = 1. Only the score has one: its target has mean square 1/λ(i)."""
    if objective != "score":
        return None
    _, sigma = process.alpha_sigma(i)
    return 1 / sigma.double().pow(-2).mean(dim=(1, 2, 3)).to(sigma.dtype)


def per_image_loss(process: Process, objective: str, prediction: Tensor, target: Tensor, i: Tensor) -> Tensor:
    """The loss of each image, (B,), float32 whatever the network computed in."""
    loss = (prediction.float() - target).square().mean(dim=(1, 2, 3))
    weight = loss_weight(process, objective, i)
    return loss if weight is None else weight * loss


def mode_epsilon(process: Process, network: Callable[[Tensor, Tensor], Tensor], objective: str) -> Callable:
    """The samplers' view of a network: a function (x̄_i, i) → ε̄, modes to modes, with one U and one Uᵀ.

    `i` is a tensor of one timestep, (1,); the network gets it for every image of the batch.
    """

    def epsilon(modes: Tensor, i: Tensor) -> Tensor:
        prediction = network(process.to_pixels(modes), i.expand(len(modes)))
        prediction = process.to_modes(prediction.to(modes.dtype))
        if objective == "epsilon":
            return prediction
        alpha, sigma = process.alpha_sigma(i)
        if objective == "std":
            return prediction / sigma
        if objective == "score":
            return -prediction * sigma
        return (modes - alpha * prediction) / sigma

    return epsilon
