"""What is kept of the way from noise to image: some states x_i and predictions x̂_0 of the first images."""

import sys

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blurdiff.diffusion.timesteps import apart


def step_bar(total: int, shown: bool = True) -> tqdm:
    """Progress of `total` steps on stderr: often on a terminal, seldom in a file."""
    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(total=total, unit="step", dynamic_ncols=True, mininterval=interval, disable=not shown)


class Trajectory:
    """A sampler's callback that keeps x_i and x̂_0(x_i) of the first images at some timesteps, and shows progress."""

    def __init__(
        self, denoiser, steps: list[int], n_snapshots: int, n_images: int, noise_only: bool = False, shown: bool = True
    ):
        self.denoiser, self.n_images, self.noise_only = denoiser, n_images, noise_only
        last = len(steps) - 1
        # Dense near the image: for most of the way x_i is nearly all noise.
        self.wanted = {steps[last - k] for k in apart(last * torch.linspace(0, 1, n_snapshots) ** 2, last)}
        self.timesteps: list[int] = []
        self.x: list[Tensor] = []
        self.x_0: list[Tensor] = []
        self.bar = step_bar(last, shown)

    def __call__(self, i: int, modes, epsilon) -> None:
        self.bar.update(1 if i else 0)
        if i not in self.wanted:
            return
        modes = modes[: self.n_images]
        to_pixels = self.denoiser.process.to_pixels
        x = to_pixels(modes)
        x_0 = x
        if epsilon is not None:
            at = torch.tensor([i], device=modes.device)
            x_0 = to_pixels(self.denoiser.guess(modes, epsilon[: self.n_images], at, self.noise_only))
        self.timesteps.append(i)
        self.x.append(x.permute(0, 2, 3, 1).float().cpu())
        self.x_0.append(x_0.permute(0, 2, 3, 1).float().cpu())
        if i == 0:
            self.bar.close()

    def arrays(self) -> dict:
        """The strip's arrays under the names that a shard's .npz uses."""

        return {
            "strip_timesteps": np.array(self.timesteps, dtype=np.int64),
            "strip_x": torch.stack(self.x).numpy(),
            "strip_x0": torch.stack(self.x_0).numpy(),
        }
