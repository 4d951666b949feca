"""Where and how precisely to compute, as the config says."""

import contextlib

import torch

from blurdiff.errors import UserError


def pick_device(name: str, threads: int) -> torch.device:
    """The device "cpu" or "cuda", with `threads` CPU threads for torch; UserError when there is no GPU."""
    torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda is wanted, but PyTorch sees no GPU here; set the section's device to cpu, or fix the driver"
        )
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 autocast for "bf16", nothing for "fp32"; meant for the network alone."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout of images that convolutions like best: channels last on a GPU, plain on a CPU (narrow networks)."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
