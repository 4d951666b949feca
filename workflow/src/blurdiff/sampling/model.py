"""A trained model, loaded and ready to be asked for ε̄ at any timestep."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from blurdiff.config.settings import Settings
from blurdiff.diffusion.denoiser import Denoiser
from blurdiff.diffusion.families import build_process
from blurdiff.network.model_file import load_model
from blurdiff.network.unet import UNet
from blurdiff.runtime import compiling
from blurdiff.runtime.devices import memory_format, pick_device


def load_denoiser(settings: Settings, model_path: str | os.PathLike, threads: int) -> Denoiser:
    """The model of a run on the device of its sampling section, with `threads` CPU threads.

    It is asked in chunks of sampling.batch_size images, compiled where the settings or the device want that.
    """
    sampling, resolution = settings.sampling, settings.resolution
    device = pick_device(sampling.device, threads)
    network = UNet(resolution, **settings.network)
    prior = load_model(model_path, network, settings)
    process = build_process(settings.process, resolution, power=prior and prior.power).to(device)
    network.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
    network = network.eval().requires_grad_(False)
    own = settings.process
    denoiser = Denoiser(network, process, own.prediction, own.loss, own.range, sampling.precision, prior)
    chunk = min(sampling.batch_size or sampling.shard_size, sampling.shard_size)
    on_gpu = device.type == "cuda"

    def trial(function: Callable) -> None:
        with torch.inference_mode():
            if on_gpu:
                torch.compiler.cudagraph_mark_step_begin()
            function(torch.zeros((chunk, 3, resolution, resolution), device=device), torch.ones(chunk, device=device))

    if on_gpu:
        torch.backends.cudnn.benchmark = True  # shapes never change
    plain = denoiser.predict
    compute: Callable = plain
    if compiling.wanted(sampling.compile, device):
        compute = compiling.compile_or_plain(plain, trial, device)

    def in_chunks(x: Tensor, i: Tensor) -> Tensor:
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

    denoiser.evaluate = in_chunks
    return denoiser
