"""Preprocessed images: the memory-mapped array, the order in which training sees it, and the range of pixel values."""

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blurdiff.data.manifest import read_manifest
from blurdiff.errors import UserError

if TYPE_CHECKING:
    import torch

# (scale, shift): what a pixel p in 0..255 becomes is p / scale + shift.
RANGES = {"unit": (255.0, 0.0), "symmetric": (127.5, -1.0)}


def open_images(path: str | os.PathLike, resolution: int | None = None) -> np.ndarray:
    """Map images.npy: uint8 (n, R, R, 3), read-only, read from the disk as it is used.

    Raises UserError when the file is missing, not an npy file, truncated, of another type or shape, of another
    resolution than `resolution` (if given), or at odds with the manifest beside it (if there is one).
    """
    path = Path(path)
    again = "run the preprocess stage again"
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise ValueError(f"npy format {version}")
            shape, fortran_order, dtype = read_header[version](file)
            offset = file.tell()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {again}") from error
    except ValueError as error:
        raise UserError(f"{path} is not an npy array ({error}); {again}") from error
    if dtype != np.uint8 or fortran_order or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or 0 in shape:
        raise UserError(f"{path} holds {dtype} {shape}, not images, uint8 (n, R, R, 3); {again}")
    if resolution is not None and shape[1] != resolution:
        raise UserError(f"{path} holds images of {shape[1]} x {shape[1]}, not {resolution} x {resolution}; {again}")
    if size != offset + int(np.prod(shape, dtype=object)):
        raise UserError(f"{path} has {size:,} bytes, which does not fit its shape {shape}: truncated? {again}")
    manifest_path = path.with_name("manifest.json")
    if manifest_path.exists():
        manifest = read_manifest(manifest_path)
        if (manifest.n_used, manifest.resolution) != (shape[0], shape[1]):
            raise UserError(f"{manifest_path} does not describe {path}, which holds {shape}; {again}")
    return np.memmap(path, np.uint8, "r", offset, shape)


@lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `n` images in an epoch (a read-only permutation of 0..n-1): a function of (seed, epoch) alone."""
    order = np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(n)
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
