"""Put shards of samples together: samples.npz (arr_0, uint8 NHWC, as ADM's evaluations read it) and strips.npz.

The shards must be whole and of one size; of the last one only as many images are taken as are wanted. strips.npz holds
`timesteps`, `x` and `x0` of the first shard.
"""

import argparse

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", nargs="+", required=True, help="shard .npz files, in order, from shard 0")
    parser.add_argument("--n-samples", type=int, required=True, help="how many images to keep in all")
    parser.add_argument("--output", required=True, help="samples.npz to make")
    parser.add_argument("--strips", required=True, help="strips.npz to make")


def run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from blurdiff.runtime.files import atomic_path
    from blurdiff.sampling.gather import read_shard

    images = [read_shard(path)["arr_0"] for path in arguments.shards]
    for path, array in zip(arguments.shards, images, strict=True):
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise UserError(f"{path}: arr_0 is {array.dtype} {array.shape}, not images, uint8 (n, R, R, 3)")
        if array.shape != images[0].shape:
            raise UserError(
                f"{path}: arr_0 has the shape {array.shape}, that of {arguments.shards[0]} {images[0].shape}"
            )
    samples = np.concatenate(images)
    if len(samples) < arguments.n_samples:
        raise UserError(f"{len(arguments.shards)} shards hold {len(samples)} samples, {arguments.n_samples} are wanted")
    first = read_shard(arguments.shards[0])
    with atomic_path(arguments.output) as temporary, open(temporary, "wb") as file:
        np.savez(file, arr_0=samples[: arguments.n_samples])
    with atomic_path(arguments.strips) as temporary, open(temporary, "wb") as file:
        np.savez(file, timesteps=first["strip_timesteps"], x=first["strip_x"], x0=first["strip_x0"])
