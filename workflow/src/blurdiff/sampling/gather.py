"""Put shards of samples together: samples.npz (arr_0, uint8 NHWC, as ADM's evaluations read it) and strips.npz.

The shards must be whole and of one size; of the last one only as many images are taken as are wanted. strips.npz holds
`timesteps`, `x` and `x0` of the first shard.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blurdiff.errors import UserError
from blurdiff.runtime.arrays import check_images, read_npz

STRIPS = {"timesteps": "strip_timesteps", "x": "strip_x", "x0": "strip_x0"}  # in strips.npz and in a shard
AGAIN = "delete it and run again"


def gather(shards: Sequence[str | Path], n_samples: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first `n_samples` images of the shards, uint8 (n_samples, R, R, 3), and the arrays of strips.npz.

    Raises UserError when a shard is damaged, is of another shape than the first, or all hold too few images.
    """
    images, strips = [], {}
    for number, path in enumerate(shards):
        arrays = read_npz(path, ("arr_0", *STRIPS.values()), AGAIN)
        images.append(check_images(arrays["arr_0"], path, None, AGAIN))
        if images[-1].shape != images[0].shape:
            raise UserError(f"{path}: arr_0 has the shape {images[-1].shape}, that of {shards[0]} {images[0].shape}")
        if number == 0:
            strips = {name: arrays[own] for name, own in STRIPS.items()}
    samples = np.concatenate(images)
    if len(samples) < n_samples:
        raise UserError(f"{len(shards)} shards hold {len(samples)} samples, {n_samples} are wanted")
    return samples[:n_samples], strips
