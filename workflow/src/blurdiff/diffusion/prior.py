"""What a Gaussian knows of the training images: mean and power of every mode, the prior of `prediction: gaussian`."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blurdiff.data.images import RANGES, to_model_range
from blurdiff.diffusion.process import Process

N_IMAGES = 4096  # of which it is taken, the first ones; fewer where there are fewer


class Prior(NamedTuple):
    """x̄_0 ~ N(mean, power), independently in every mode.

    mean    (C, R, R) float64, the mean image in modes
    power   (1, R, R) float64, > 0, the variance of every mode, a mean over colour channels
    """

    mean: Tensor
    power: Tensor

    def to(self, device: torch.device | str) -> "Prior":
        return Prior(self.mean.to(device), self.power.to(device))

    def marginal(self, process: Process, i: Tensor) -> tuple[Tensor, Tensor]:
        """Mean √Ā_i μ̄ and variance Ā_i S + σ_i² of x̄_i, float64."""
        log_alpha_bar = process.log_alpha_bar(i)
        mean = (log_alpha_bar / 2).exp() * self.mean
        return mean, log_alpha_bar.exp() * self.power + process.variance(i)


def measure_prior(images: np.ndarray, process: Process, range: str) -> Prior:
    """The prior of the first N_IMAGES of `images`, uint8 (n, R, R, C), in the process's basis and the model's range.

    Computed in float64 on the CPU, image after image in order, so that it is the same whoever computes it. No power is
    less than that of the rounding to 8 bits, 1/12 of a grey value squared.
    """
    modal = process.to("cpu", torch.float64)
    n = min(len(images), N_IMAGES)
    channels, sides = images.shape[-1], images.shape[1:3]
    total = torch.zeros(channels, *sides, dtype=torch.float64)
    squares = torch.zeros_like(total)
    # Around the first image: sums of squares of what is nearly constant would cancel.
    first = None
    for start in np.arange(0, n, 256):
        x = to_model_range(torch.from_numpy(np.array(images[start : min(start + 256, n)])), range).double()
        modes = modal.to_modes(x)
        first = modes[:1] if first is None else first
        total += (modes - first).sum(0)
        squares += (modes - first).square().sum(0)
    assert first is not None
    mean = total / n
    power = (squares / n - mean.square()).mean(0, keepdim=True)
    return Prior(first[0] + mean, power.clamp(min=1 / 12 / RANGES[range][0] ** 2))
