"""Statistics of a data set's real images: what samples are compared with, and the number that real images get."""

import hashlib
import os
from collections.abc import Iterable, Iterator

import numpy as np

from blurdiff.data.manifest import read_manifest
from blurdiff.errors import UserError
from blurdiff.evaluation import features
from blurdiff.evaluation.frechet import Moments, accumulate, frechet_distance, moments, remove
from blurdiff.evaluation.records import Reference, write_reference
from blurdiff.runtime.arrays import open_images
from blurdiff.runtime.devices import pick_device


def make_reference(
    images_path: str | os.PathLike,
    manifest_path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    network: str,
    weights: str | os.PathLike | None = None,
    n_samples: int,
    repeats: int = 3,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
    threads: int = 1,
) -> Reference:
    """Write `output`, the statistics of the images with a floor of `n_samples` images, and return them.

    Raises UserError for a number out of range, images that are not those of the manifest, wrong weights, no device.
    """
    numbers = {"n-samples": (n_samples, 2), "repeats": (repeats, 1), "seed": (seed, 0),
               "batch-size": (batch_size, 1), "threads": (threads, 1)}  # fmt: skip
    for name, (value, least) in numbers.items():
        if value < least:
            raise UserError(f"--{name} must be {least} or more, not {value}")
    images = open_images(images_path)
    if len(images) < 2:
        raise UserError(f"{images_path} holds 1 image; a covariance needs at least 2: use more images")
    sha256 = check_manifest(images, images_path, manifest_path)
    extractor = features.load_network(network, weights, pick_device(device, threads))

    subsets = draw_subsets(len(images), n_samples, repeats, seed)
    kept = np.empty((*subsets.shape, extractor.dimension), np.float32)
    whole = accumulate(keep(features.extract(extractor, images, batch_size, images_path), subsets, kept))
    reference = Reference(
        mu=whole.mu,
        sigma=whole.sigma,
        n=whole.n,
        floor=floor_distances(whole, kept, n_samples),
        floor_n=n_samples,
        features=kept[0],
        metric=features.METRICS[network],
        network=network,
        weights_sha256=extractor.weights_sha256,
        input_size=extractor.input_size,
        resolution=images.shape[1],
        images_sha256=sha256,
    )
    write_reference(output, reference)
    return reference


def check_manifest(images: np.ndarray, path: str | os.PathLike, manifest_path: str | os.PathLike) -> str:
    """The SHA-256 of the images, which their manifest must confirm: the reference is of these and no others."""
    recorded = read_manifest(manifest_path).sha256
    digest = hashlib.sha256()
    step = max(1, (1 << 24) // images[0].nbytes)
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]))
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
    for rows in kept:
        part = moments(rows)
        others = remove(whole, part)
        distances.append(frechet_distance(part.mu, part.sigma, others.mu, others.sigma))
    return np.array(distances)
