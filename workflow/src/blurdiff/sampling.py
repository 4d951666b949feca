"""Draw one shard of samples from a model: a fixed number of images with a seed of their own.

The images of shard k depend on the model, the sampling settings and (seed, k), not on how many shards there are or who
makes them. Beside the images (arr_0) a shard keeps the way of its first few: states x_i and predictions x̂_0(x_i).
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", required=True, help="the run's settings: JSON, or the path of a JSON/YAML file")
    parser.add_argument("--model", required=True, help="model.safetensors of the run")
    parser.add_argument("--shard", type=int, required=True, help="which shard, from 0")
    parser.add_argument("--output", required=True, help="shard .npz to make")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")


def run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from blurdiff.config import read_settings
    from blurdiff.files import atomic_path

    arrays = sample_shard(read_settings(arguments.settings), arguments.model, arguments.shard, arguments.threads)
    with atomic_path(arguments.output) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def sample_shard(settings: dict, model_path: str, shard: int, threads: int) -> dict:
    """The arrays of a shard: arr_0 uint8 (shard_size, R, R, 3), strip_timesteps (K,), strip_x and strip_x0 float32
    (K, n_strip, R, R, 3) in the model's range."""
    from blurdiff.data.images import to_uint8
    from blurdiff.diffusion.samplers import step_grid

    sampling = settings["sampling"]
    process, predict, device = load_sampler(settings, model_path, threads)
    start = process.n_timesteps - settings["process"]["skip_last_timestep"]
    steps = step_grid(process, min(sampling["n_steps"], start), sampling["grid"], start=start)
    strip = Strip(process, steps, sampling["n_snapshots"], sampling["n_strip"], sampling["strip_x0"] == "released")
    if sampling["sampler"] == "ode-adaptive":  # chooses its own steps; what it is given, it keeps in memory
        steps = sorted(strip.wanted, reverse=True)
    x_0 = draw(settings, process, predict, device, steps, shard, strip)
    return {"arr_0": to_uint8(x_0, settings["process"]["range"]).cpu().numpy(), **strip.arrays()}


def load_sampler(settings: dict, model_path: str, threads: int) -> tuple:
    """(process, predict, device) of a trained model; predict(x, i) gives the network's output for pixels x (B, C, R, R)
    in chunks of sampling.batch_size, float32."""
    import torch

    from blurdiff import compiling
    from blurdiff.devices import autocast, memory_format, pick_device
    from blurdiff.diffusion.families import build_process
    from blurdiff.training.state import load_model
    from blurdiff.unet import UNet

    sampling, resolution = settings["sampling"], settings["resolution"]
    device = pick_device(sampling["device"], threads)
    layout = memory_format(device)
    process = build_process(settings["process"], resolution).to(device)
    network = UNet(resolution, **settings["network"])
    load_model(model_path, network, settings)
    network = network.to(device, memory_format=layout).eval().requires_grad_(False)
    chunk = min(sampling["batch_size"] or sampling["shard_size"], sampling["shard_size"])

    def plain(x, i):
        with autocast(device, sampling["precision"]):
            return network(x.contiguous(memory_format=layout), i)

    def trial(function):
        with torch.inference_mode():
            if on_gpu:
                torch.compiler.cudagraph_mark_step_begin()
            function(torch.zeros((chunk, 3, resolution, resolution), device=device), torch.ones(chunk, device=device))

    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True  # shapes never change
    compute = plain
    if compiling.wanted(sampling["compile"], device):
        compute = compiling.compile_or_plain(plain, trial, device)

    def predict(x, i):
        output = torch.empty(x.shape, device=device)
        for part, into in zip(x.split(chunk), output.split(chunk), strict=True):
            at = i[: len(part)]
            if compute is not plain:
                # One shape for all, or it would be compiled again: a chunk that is not full is filled with its first.
                missing = chunk - len(part)
                part = torch.cat([part, part[:1].expand(missing, -1, -1, -1)]) if missing else part
                at = at[:1].to(torch.float32).expand(chunk).contiguous()
                if on_gpu:
                    torch.compiler.cudagraph_mark_step_begin()
            # Copied at once: what a CUDA graph returned is overwritten by its next replay.
            into.copy_(compute(part, at)[: len(into)])
        return output

    return process, predict, device


def draw(settings: dict, process, predict, device, steps: list[int], shard: int, callback=None):
    """x_0 (shard_size, 3, R, R) in model range by the settings' sampler along `steps`, from the noise of (seed, shard):
    the same for every run, so that runs are compared on the same noise. UserError when it is not finite."""
    import torch

    from blurdiff.diffusion.objectives import mode_epsilon
    from blurdiff.diffusion.samplers import SAMPLER_OPTIONS, SAMPLERS
    from blurdiff.errors import UserError
    from blurdiff.seeding import SAMPLE, derive_seed

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


class Strip:
    """A sampler's callback that keeps x_i and x̂_0(x_i) of the first images at some timesteps, and shows progress."""

    def __init__(self, process, steps: list[int], n_snapshots: int, n_images: int, noise_only: bool = False):
        import torch
        from tqdm import tqdm

        from blurdiff.diffusion.samplers import apart

        self.process, self.n_images, self.noise_only = process, n_images, noise_only
        last = len(steps) - 1
        # Dense near the image: for most of the way x_i is nearly all noise.
        self.wanted = {steps[last - k] for k in apart(last * torch.linspace(0, 1, n_snapshots) ** 2, last)}
        self.timesteps, self.x, self.x_0 = [], [], []
        interval = 0.5 if sys.stderr.isatty() else 30
        self.bar = tqdm(total=last, unit="step", dynamic_ncols=True, mininterval=interval)

    def __call__(self, i: int, modes, epsilon) -> None:
        import torch

        self.bar.update(1 if i else 0)
        if i not in self.wanted:
            return
        modes = modes[: self.n_images]
        x = self.process.to_pixels(modes)
        x_0 = x
        if epsilon is not None:
            at = torch.tensor([i], device=modes.device)
            x_0 = self.process.to_pixels(self.process.predict_x0(modes, epsilon[: self.n_images], at, self.noise_only))
        self.timesteps.append(i)
        self.x.append(x.permute(0, 2, 3, 1).float().cpu())
        self.x_0.append(x_0.permute(0, 2, 3, 1).float().cpu())
        if i == 0:
            self.bar.close()

    def arrays(self) -> dict:
        """The strip's arrays under the names that a shard's .npz uses."""
        import numpy as np
        import torch

        return {
            "strip_timesteps": np.array(self.timesteps, dtype=np.int64),
            "strip_x": torch.stack(self.x).numpy(),
            "strip_x0": torch.stack(self.x_0).numpy(),
        }
