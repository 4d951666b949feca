"""A trained model as a thing to use: `blurdiff.load_model(path)`, whose file holds all that it needs to know."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blurdiff.config.settings import GRIDS, SAMPLERS, SamplingConfig, with_keys
from blurdiff.data.images import to_model_range, to_uint8
from blurdiff.diffusion.timesteps import step_grid
from blurdiff.errors import UserError, check_known
from blurdiff.network.model_file import model_settings
from blurdiff.sampling.model import load_denoiser
from blurdiff.sampling.sample import draw
from blurdiff.sampling.trajectory import Trajectory, step_bar

# Of the samplers that docs/why.md compares, the best with so few steps, for ε and for the Gaussian prior.
SAMPLER, GRID, STEPS = "ancestral", "uniform", 25
BATCH = 64  # images at once


class Model:
    """A model of `load_model`. Images are uint8 (n, R, R, 3), or, where they are noisy, float32 (n, R, R, 3) in the
    model's range: [0, 1], or [-1, 1] with `range: symmetric`.

    settings     those of its run
    resolution   R, pixels
    last         the last timestep, of which sampling starts; the image is timestep 0
    """

    def __init__(self, path: str | Path, device: str | None = None, settings: str | Path | None = None):
        found = model_settings(path, settings)
        if found.process.family == "ihdm":
            raise UserError(f"{path}: ihdm is a forward process only; nothing can be drawn from it")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device not in ("cpu", "cuda"):
            raise UserError(f"device: {device!r} is neither cpu nor cuda")
        # How its run was sampled does not matter here: few steps want another sampler.
        sampling = SamplingConfig(start="prior", shard_size=BATCH, batch_size=BATCH, compile=False, device=device)
        self.settings = with_keys(found, "sampling", **sampling)
        self.resolution, self.last = found.resolution, found.process.last_timestep
        self._denoiser = load_denoiser(self.settings, str(path), torch.get_num_threads())

    def __repr__(self) -> str:
        process, R = self.settings.process, self.resolution
        return f"<blurdiff model {self.settings.run}: {R}×{R}, blur {process.f_type}, {self.last} timesteps>"

    def sample(
        self,
        n: int,
        steps: int | None = None,
        seed: int = 0,
        sampler: str = SAMPLER,
        grid: str = GRID,
        progress: bool = False,
        way: Trajectory | None = None,
    ) -> np.ndarray:
        """`n` images, uint8 (n, R, R, 3), the same for the same arguments on the same kind of device.

        `steps`: STEPS if None, or all where there are fewer; `sampler` and `grid` as in the config's section sampling.
        Images are drawn BATCH at a time, the full batches alike whatever `n` is. `way`, of the method of that name for
        the same steps and grid, keeps how the first of them came about. Raises UserError for arguments out of
        range, and when what is drawn is not finite.
        """
        self.check(n, steps, seed, sampler, grid)
        timesteps = self._timesteps(steps, grid)
        steps = len(timesteps) - 1
        settings = with_keys(self.settings, "sampling", sampler=sampler, n_steps=steps, grid=grid)
        settings = dataclasses.replace(settings, seed=int(seed))
        sizes = [min(BATCH, n - first) for first in range(0, n, BATCH)]
        with step_bar(steps * len(sizes), progress) as bar:

            def advance(i: int, *state: Any) -> None:
                bar.update(1 if i else 0)
                if way and not parts:
                    way(i, *state)

            parts: list[np.ndarray] = []
            for part, size in enumerate(sizes):
                of_size = with_keys(settings, "sampling", shard_size=size)
                parts.append(self._pictures(draw(of_size, self._denoiser, timesteps, part, advance)))
        return np.concatenate(parts)

    def way(self, steps: int | None = None, grid: str = GRID, n_images: int = 6, n_snapshots: int = 41) -> Trajectory:
        """What `sample` keeps the way of its first `n_images` in, at up to `n_snapshots` timesteps: `.arrays()` then
        has strip_timesteps (K,), strip_x and strip_x0 float32 (K, n, R, R, 3) in the model's range."""
        timesteps = self._timesteps(steps, grid)
        return Trajectory(self._denoiser, timesteps, min(n_snapshots, len(timesteps)), n_images, shown=False)

    def check(self, n: int, steps: int | None, seed: int, sampler: str, grid: str) -> None:
        """Raise UserError when `sample` cannot do with these arguments."""
        _check_count("n", n, 1)
        _check_count("steps", 1 if steps is None else steps, 1, self.last)
        _check_count("seed", seed, 0, 2**32 - 1)
        check_known("sampler", sampler, SAMPLERS)
        check_known("grid", grid, GRIDS)

    def diffuse(self, images: np.ndarray, i: int, seed: int = 0) -> np.ndarray:
        """x_i, the images blurred and noisy as at timestep i, 0 ≤ i ≤ last: float32 (n, R, R, 3) in model range."""
        x, at = self._tensor(images), self._timestep(i, 0)
        generator = torch.Generator(x.device).manual_seed(seed)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        return _array(self._denoiser.process.q_sample(x, at.expand(len(x)), noise))

    def denoise(self, x: np.ndarray, i: int) -> np.ndarray:
        """x̂_0, the finished images that the network predicts from x_i at timestep i, 1 ≤ i ≤ last.

        `x`: float (n, R, R, 3) in the model's range, as `diffuse` gives it, or uint8; the result is of the same kind,
        float32 or uint8. Where the network predicts noise (`epsilon`, `score`, `std`), a mode of which x_i holds less
        than a thousandth comes out as 0. Raises UserError.
        """
        process, at, x = self._denoiser.process, self._timestep(i, 1), np.asarray(x)
        with torch.inference_mode():
            x_0 = process.to_pixels(self._denoiser.image(process.to_modes(self._tensor(x)), at))
        return self._pictures(x_0) if x.dtype == np.uint8 else _array(x_0)

    def _timesteps(self, steps: int | None, grid: str) -> list[int]:
        steps = min(STEPS, self.last) if steps is None else int(steps)
        return step_grid(self._denoiser.process, steps, grid, start=self.last)

    def _timestep(self, i: int, first: int) -> Tensor:
        _check_count("i", i, first, self.last)
        return torch.tensor([i], device=self._denoiser.device)

    def _pictures(self, x: Tensor) -> np.ndarray:
        return to_uint8(x, self.settings.process.range).cpu().numpy()

    def _tensor(self, images: np.ndarray) -> Tensor:
        """float32 (n, 3, R, R) in the model's range, on its device."""
        images, R = np.asarray(images), self.resolution
        if images.ndim != 4 or images.shape[1:] != (R, R, 3) or not len(images):
            raise UserError(f"images must be an array (n, {R}, {R}, 3), not {images.shape}")
        dtype = images.dtype
        if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
            raise UserError(f"images must be uint8, or float in the model's range, not {dtype}")
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self._denoiser.device)
        return to_model_range(x, self.settings.process.range) if dtype == np.uint8 else x.permute(0, 3, 1, 2).float()


def load_model(path: str | Path, device: str | None = None, settings: str | Path | None = None) -> Model:
    """The model of a model.safetensors: of the store, of a run, or of `blurdiff import-checkpoint`.

    `device`: "cpu" or "cuda"; if None, a GPU where there is one. `settings`: JSON or the path of a file, where the
    model's file does not hold all of them. Raises UserError (blurdiff.errors), one line, for a file that is no model,
    settings that are missing or not those that it was trained with, and a GPU that is not there.
    """
    return Model(path, device, settings)


def _check_count(name: str, value: int, first: int, last: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < first or value > (last or value):
        raise UserError(f"{name}: {value!r} must be a whole number from {first}" + (f" to {last}" if last else " on"))


def _array(x: Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).float().contiguous().cpu().numpy()
