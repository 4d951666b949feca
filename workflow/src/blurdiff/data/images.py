"""Preprocessed images: the order in which training sees them, and the range of their values."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from blurdiff.errors import UserError
from blurdiff.runtime.seeding import ORDER, derive_seed

if TYPE_CHECKING:
    import torch

# (scale, shift): what a pixel p in 0..255 becomes is p / scale + shift.
RANGES = {"unit": (255.0, 0.0), "symmetric": (127.5, -1.0)}


@lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `n` images in an epoch (a read-only permutation of 0..n-1): a function of (seed, epoch) alone."""
    order = np.random.default_rng(derive_seed(ORDER, seed, epoch)).permutation(n)
    order.setflags(write=False)
    return order


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The images of batch `step` (0, 1, …): int64 (batch_size,), a function of its arguments alone.

    The epochs' permutations stand one behind another and batches are cut from them without regard to the borders, so
    every image is used once an epoch and all batches are of one size, also when `batch_size` exceeds `n`.
    """
    position, end, parts = step * batch_size, (step + 1) * batch_size, []
    while position < end:
        epoch, first = divmod(position, n)
        parts.append(epoch_order(n, seed, epoch)[first : first + end - position])
        position += len(parts[-1])
    return np.concatenate(parts)


def to_model_range(images: "torch.Tensor", range: str) -> "torch.Tensor":
    """uint8 (B, R, R, 3) to contiguous float32 (B, 3, R, R), in [0, 1] (`unit`) or [-1, 1] (`symmetric`)."""
    import torch

    scale, shift = _range(range)
    x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return x / scale + shift


def to_uint8(x: "torch.Tensor", range: str) -> "torch.Tensor":
    """(B, 3, R, R) in model range to contiguous uint8 (B, R, R, 3): rounded to nearest, clamped.

    torchvision's save_image rounds too; its to_pil_image truncates.
    """
    import torch

    scale, shift = _range(range)
    pixels = ((x.float() - shift) * scale).add_(0.5).clamp_(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _range(name: str) -> tuple[float, float]:
    if name not in RANGES:
        raise UserError(f"process.range must be one of {', '.join(RANGES)}, not {name!r}")
    return RANGES[name]
