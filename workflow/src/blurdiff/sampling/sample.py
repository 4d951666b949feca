"""Draw one shard of samples from a model: a fixed number of images with a seed of their own.

The images of shard k depend on the model, the sampling settings and (seed, k), not on how many shards there are or who
makes them. Beside the images (arr_0) a shard keeps the way of its first few: states x_i and predictions x̂_0(x_i).
"""

import torch

from blurdiff.data.images import to_uint8
from blurdiff.diffusion.objectives import mode_epsilon
from blurdiff.diffusion.samplers import SAMPLER_OPTIONS, SAMPLERS
from blurdiff.diffusion.timesteps import last_trained_timestep, step_grid
from blurdiff.errors import UserError
from blurdiff.runtime.seeding import SAMPLE, derive_seed
from blurdiff.sampling.model import load_sampler
from blurdiff.sampling.trajectory import Trajectory


def sample_shard(settings: dict, model_path: str, shard: int, threads: int) -> dict:
    """The arrays of a shard: arr_0 uint8 (shard_size, R, R, 3), strip_timesteps (K,), strip_x and strip_x0 float32
    (K, n_strip, R, R, 3) in the model's range."""

    sampling = settings["sampling"]
    process, predict, device = load_sampler(settings, model_path, threads)
    start = last_trained_timestep(settings["process"])
    steps = step_grid(process, min(sampling["n_steps"], start), sampling["grid"], start=start)
    strip = Trajectory(process, steps, sampling["n_snapshots"], sampling["n_strip"], sampling["strip_x0"] == "released")
    x_0 = draw(settings, process, predict, device, steps, shard, strip)
    return {"arr_0": to_uint8(x_0, settings["process"]["range"]).cpu().numpy(), **strip.arrays()}


def draw(settings: dict, process, predict, device, steps: list[int], shard: int, callback=None):
    """x_0 (shard_size, 3, R, R) in model range by the settings' sampler along `steps`, from the noise of (seed, shard):
    the same for every run, so that runs are compared on the same noise. UserError when it is not finite."""

    sampling, resolution = settings["sampling"], settings["resolution"]
    generator = torch.Generator(device).manual_seed(derive_seed(SAMPLE, settings["seed"], shard))
    with torch.inference_mode():
        x_N = torch.randn((sampling["shard_size"], 3, resolution, resolution), generator=generator, device=device)
        epsilon = mode_epsilon(process, predict, settings["process"]["objective"])
        options = {name: sampling[name] for name in SAMPLER_OPTIONS.get(sampling["sampler"], ())}
        x_0 = SAMPLERS[sampling["sampler"]](process, epsilon, x_N, steps, generator, callback, **options)
    if not x_0.isfinite().all():
        raise UserError(
            f"shard {shard} of {settings['run']}: samples are not finite; try more steps or another sampler"
        )
    return x_0
