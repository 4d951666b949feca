"""Statistics of a data set's real images: what samples are compared with, and the number that real images get."""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from blurdiff.data.manifest import checked_digest, read_manifest
from blurdiff.errors import UserError
from blurdiff.evaluation import features
from blurdiff.evaluation.frechet import Moments, accumulate, remove
from blurdiff.evaluation.measures import Comparison
from blurdiff.evaluation.metrics import FRECHET, label
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
    sha256 = checked_digest(images, images_path, read_manifest(manifest_path), manifest_path)
    where = pick_device(device, threads)
    extractor = features.load_network(network, weights, where)

    subsets = draw_subsets(len(images), n_samples, repeats, seed)
    kept = np.empty((*subsets.shape, extractor.dimension), np.float32)
    whole = accumulate(keep(features.extract(extractor, images, batch_size, images_path), subsets, kept))
    *floor_samples, real = kept
    reference = Reference(
        mu=whole.mu,
        sigma=whole.sigma,
        n=whole.n,
        floors=floors(whole, floor_samples, real, where),
        floor_n=n_samples,
        features=real,
        metric=label(FRECHET, network),
        network=network,
        weights_sha256=extractor.weights_sha256,
        input_size=extractor.input_size,
        resolution=images.shape[1],
        images_sha256=sha256,
    )
    write_reference(output, reference)
    return reference


def draw_subsets(total: int, n: int, repeats: int, seed: int) -> np.ndarray:
    """Indices int64 (repeats + 1, min(n, total)), rows ascending without repetition.

    The last row is of the images that samples are compared with, the others are samples of the floor: none of them
    among those images, and disjoint where there are enough. With fewer than 2 n images there is the last row alone.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(total)
    rest, real = order[:-n], order[-n:]
    if n * repeats <= len(rest):
        samples = rest[: n * repeats].reshape(repeats, n)
    elif n <= len(rest):
        samples = np.stack([rng.permutation(rest)[:n] for _ in range(repeats)])
    else:
        samples = np.empty((0, len(real)), np.int64)
    return np.sort(np.concatenate([samples, real[None]]), axis=1)


def keep(batches: Iterable[np.ndarray], subsets: np.ndarray, kept: np.ndarray) -> Iterator[np.ndarray]:
    """Pass the batches (b, d) on, copying the rows that `subsets` (repeats, n) names into `kept` (repeats, n, d)."""
    start = 0
    for batch in batches:
        for indices, rows in zip(subsets, kept, strict=True):
            first, last = np.searchsorted(indices, (start, start + len(batch)))
            rows[first:last] = batch[indices[first:last] - start]
        start += len(batch)
        yield batch


def floors(
    whole: Moments, samples: Sequence[np.ndarray], real: np.ndarray, device: torch.device
) -> dict[str, np.ndarray]:
    """What images of the data get as samples (each (n, d)): by metric (repeats,), NaN where it cannot be computed.

    The Fréchet distance is to all other images, of moments `whole` with the samples; the other metrics are against
    `real`. Nothing without samples.
    """
    scores = []
    for rows in samples:
        comparison = Comparison(rows, whole, real, device)
        comparison.whole = remove(whole, comparison.own)
        scores.append(comparison.scores())
    values = {name: [score[name].value for score in scores] for name in (scores[0] if scores else ())}
    return {name: np.array(own, np.float64) for name, own in values.items()}  # of None comes NaN
