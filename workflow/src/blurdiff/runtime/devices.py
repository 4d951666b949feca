"""Where and how precisely to compute, as the config says."""

import contextlib
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from blurdiff.errors import UserError
from blurdiff.runtime.allocator import keep_freed_memory
from blurdiff.runtime.gpus import claim

CUDNN: Any = torch.backends.cudnn  # whose types do not know its `conv`


def pick_device(name: str, threads: int) -> torch.device:
    """The device "cpu", or for "cuda" one GPU, with `threads` CPU threads for torch; UserError when there is no GPU.

    Of several GPUs a process takes one that no other job of this pipeline has, and keeps it: Snakemake's `gpu` resource
    counts jobs but does not say which GPU is whose. A process that computes on the CPU keeps its freed memory; on a GPU
    float32 is float32 (`exact_convolutions`).
    """
    torch.set_num_threads(threads)
    if name == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("device: cuda is wanted, but PyTorch sees no GPU here; set device to cpu, or fix the driver")
    index = _own_gpu()
    torch.cuda.set_device(index)
    exact_convolutions()
    return torch.device("cuda", index)


def exact_convolutions() -> None:
    """Convolutions of this process in full float32 on a GPU. PyTorch's default is TF32, whose mantissa of 10 bits is
    too coarse for features that agree to 1e-5, and not what `precision: fp32` says. (Matrix products are float32.)
    """
    CUDNN.conv.fp32_precision = "ieee"


@cache  # once a process
def _own_gpu() -> int:
    # CUDA_VISIBLE_DEVICES numbers GPUs anew in every process; their UUIDs stay.
    names = [str(torch.cuda.get_device_properties(k).uuid) for k in range(torch.cuda.device_count())]
    try:
        return claim(names, Path(tempfile.gettempdir()) / f"blurdiff-gpus-{os.getuid()}")
    except OSError:  # nowhere to write locks: then only the processes of one training keep apart
        return int(os.environ.get("LOCAL_RANK", 0))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 autocast for "bf16", nothing for "fp32"; meant for the network alone."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout of images that convolutions like best: channels last on a GPU, plain on a CPU (narrow networks)."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
