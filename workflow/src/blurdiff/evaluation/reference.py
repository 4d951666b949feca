"""Statistics of a data set's real images: what samples are compared with, and the number that real images get.

One pass over all images gives the mean and covariance of their features. The floor is the Fréchet distance of
--n-samples of the images, drawn at random, to all the others: what a perfect model would get with as many samples. It
is repeated --repeats times, with disjoint subsets when there are enough images.

statistics.npz: mu, sigma, n, floor (repeats,), floor_n, features (those of the first subset, for the kernel distance),
metric, network, weights_sha256, input_size, resolution, images_sha256.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator

import numpy as np

from blurdiff.errors import UserError
from blurdiff.evaluation.frechet import Moments, frechet_distance, moments, remove
from blurdiff.runtime.files import read_json


def check_manifest(images: np.ndarray, path: str | os.PathLike, manifest_path: str | os.PathLike) -> str:
    """The SHA-256 of the images, which their manifest must confirm: the reference is of these and no others."""
    manifest = read_json(manifest_path)
    digest = hashlib.sha256()
    step = max(1, (1 << 24) // images[0].nbytes)
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]))
    recorded = manifest.get("sha256") if isinstance(manifest, dict) else None
    if recorded != digest.hexdigest():
        raise UserError(
            f"{manifest_path}: sha256 is {recorded}, {path} has {digest.hexdigest()}; preprocess the data again"
        )
    return recorded


def draw_subsets(total: int, n: int, repeats: int, seed: int) -> np.ndarray:
    """Indices int64 (repeats, min(n, total)), rows ascending without repetition, disjoint where possible."""
    rng = np.random.default_rng(seed)
    n = min(n, total)
    if n * repeats <= total:
        subsets = rng.permutation(total)[: n * repeats].reshape(repeats, n)
    else:
        subsets = np.stack([rng.permutation(total)[:n] for _ in range(repeats)])
    return np.sort(subsets, axis=1)


def keep(batches: Iterable[np.ndarray], subsets: np.ndarray, kept: np.ndarray) -> Iterator[np.ndarray]:
    """Pass the batches (b, d) on, copying the rows that `subsets` (repeats, n) names into `kept` (repeats, n, d)."""
    start = 0
    for batch in batches:
        for indices, rows in zip(subsets, kept, strict=True):
            first, last = np.searchsorted(indices, (start, start + len(batch)))
            rows[first:last] = batch[indices[first:last] - start]
        start += len(batch)
        yield batch


def floor_distances(whole: Moments, kept: np.ndarray, n: int) -> np.ndarray:
    """Distances (repeats,) of subsets' features (repeats, n, d) to all other images; NaN if these are fewer than n."""
    if whole.n < 2 * n:
        return np.full(len(kept), np.nan)
    distances = []
    for features in kept:
        part = moments(features)
        others = remove(whole, part)
        distances.append(frechet_distance(part.mu, part.sigma, others.mu, others.sigma))
    return np.array(distances)
