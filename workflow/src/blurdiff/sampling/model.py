"""A trained model, loaded and ready to be asked for its output at any timestep."""

import torch

from blurdiff.diffusion.families import build_process
from blurdiff.network.model_file import load_model
from blurdiff.network.unet import UNet
from blurdiff.runtime import compiling
from blurdiff.runtime.devices import autocast, memory_format, pick_device


def load_sampler(settings: dict, model_path: str, threads: int) -> tuple:
    """(process, predict, device) of a trained model; predict(x, i) gives the network's output for pixels x (B, C, R, R)
    in chunks of sampling.batch_size, float32."""

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
