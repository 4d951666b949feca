"""Draw one shard of samples from a model: a fixed number of images with a seed of their own."""

import json

import torch
from torch import Tensor

from blurdiff.config.made import SAMPLES, deciding
from blurdiff.config.settings import Settings
from blurdiff.data.images import to_uint8
from blurdiff.diffusion.denoiser import Denoiser
from blurdiff.diffusion.samplers import SAMPLERS
from blurdiff.diffusion.timesteps import step_grid
from blurdiff.errors import UserError
from blurdiff.runtime.seeding import SAMPLE, derive_seed
from blurdiff.sampling.model import load_denoiser
from blurdiff.sampling.trajectory import Trajectory


def sample_shard(settings: Settings, model_path: str, shard: int, threads: int) -> dict:
    """The arrays of a shard: arr_0 uint8 (shard_size, R, R, 3), strip_timesteps (K,), strip_x and strip_x0 float32
    (K, n_strip, R, R, 3) in the model's range; and made_with, the settings that decide them, as JSON."""
    sampling = settings.sampling
    denoiser = load_denoiser(settings, model_path, threads)
    steps = step_grid(denoiser.process, settings.n_steps, sampling.grid, start=settings.process.last_timestep)
    released = sampling.strip_x0 == "released"
    trajectory = Trajectory(denoiser, steps, sampling.n_snapshots, sampling.n_strip, released)
    x_0 = draw(settings, denoiser, steps, shard, trajectory)
    images = to_uint8(x_0, settings.process.range).cpu().numpy()
    return {"arr_0": images, **trajectory.arrays(), "made_with": json.dumps(deciding(settings, *SAMPLES))}


def draw(settings: Settings, denoiser: Denoiser, steps: list[int], shard: int, callback=None) -> Tensor:
    """x_0 (shard_size, 3, R, R) in model range by the settings' sampler along `steps`, from the noise of (seed, shard):
    the same for every run, so that runs are compared on the same noise. UserError when it is not finite."""
    sampling, resolution, device = settings.sampling, settings.resolution, denoiser.device
    generator = torch.Generator(device).manual_seed(derive_seed(SAMPLE, settings.seed, shard))
    with torch.inference_mode():
        x_N = torch.randn((sampling.shard_size, 3, resolution, resolution), generator=generator, device=device)
        x_N = denoiser.start(x_N, torch.tensor(steps[:1], device=device), of_prior=sampling.start == "prior")
        sampler = SAMPLERS[sampling.sampler]
        options = {name: sampling[name] for name in sampler.options}
        x_0 = sampler.walk(denoiser.process, denoiser.epsilon, x_N, steps, generator, callback, **options)
    if not x_0.isfinite().all():
        raise UserError(f"shard {shard} of {settings.run}: samples are not finite; try more steps or another sampler")
    return x_0
