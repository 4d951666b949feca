"""Put shards of samples together: samples.npz (arr_0, uint8 NHWC, as ADM's evaluations read it) and strips.npz."""

import json
import os
from collections.abc import Sequence

import numpy as np

from blurdiff.config.made import STRIPS, compare
from blurdiff.errors import UserError
from blurdiff.runtime.arrays import made_with, read_npz, write_npz


def gather(
    shards: Sequence[str | os.PathLike], n_samples: int, output: str | os.PathLike, strips: str | os.PathLike
) -> None:
    """Write the first `n_samples` images of the shards, in order, to `output`, and the first one's way to `strips`.

    Raises UserError when a shard is damaged or holds something else, or they hold too few images.
    """
    images, made, first = [], [], read_shard(shards[0])
    for number, path in enumerate(shards):
        shard = read_shard(path) if number else first
        images.append(shard["arr_0"])
        made.append(made_with(shard))
    for path, array in zip(shards, images, strict=True):
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise UserError(f"{path}: arr_0 is {array.dtype} {array.shape}, not images, uint8 (n, R, R, 3)")
        if array.shape != images[0].shape:
            raise UserError(f"{path}: arr_0 has the shape {array.shape}, that of {shards[0]} {images[0].shape}")
    for path, each in zip(shards[1:], made[1:], strict=True):
        compare(path, each, made[0], *STRIPS)
    samples = np.concatenate(images)
    if len(samples) < n_samples:
        raise UserError(f"{len(shards)} shards hold {len(samples)} samples, {n_samples} are wanted")
    carried = {"made_with": json.dumps(made[0])} if made[0] else {}
    write_npz(output, {"arr_0": samples[:n_samples], **carried})
    strip = {"timesteps": first["strip_timesteps"], "x": first["strip_x"], "x0": first["strip_x0"]}
    write_npz(strips, strip | carried)


def read_shard(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a shard; UserError when the file is damaged or is no shard."""
    names = ("arr_0", "strip_timesteps", "strip_x", "strip_x0")
    return read_npz(path, names, "it is no whole shard of samples: delete it and run again")
