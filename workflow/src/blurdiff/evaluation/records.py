"""What the evaluation writes: fid.json, an Evaluation, and statistics.npz, a Reference; one reader and writer each."""

import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from blurdiff.errors import UserError
from blurdiff.runtime.arrays import read_npz, write_npz
from blurdiff.runtime.files import read_json, write_json

# Of study.csv: one row for each sampler, grid and number of steps.
STUDY_COLUMNS = (
    "run", "dataset", "label", "seed", "f_type", "f_N", "direction", "sampler", "grid", "eta",
    "noise_free_steps", "n_steps", "evaluations", "n_samples", "metric", "value", "floor", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """fid.json: the distance of a run's samples to a reference, and other metrics; None for what is not known."""

    metric: str  # the Fréchet distance, under its name: FID, or FD-EfficientNet-Lite0
    value: float
    n_samples: int
    n_reference: int | None
    floor_mean: float | None  # what as many real images get: mean and deviation over the repeats
    floor_std: float | None
    floor_n: int | None  # images in a subset of the floor
    floor_repeats: int | None
    network: str
    weights_sha256: str
    input_size: int | None  # pixels
    run: dict | None  # what a table must know of the run
    # By the other names of METRICS: value, error (its standard error), floor_mean, floor_std, each a number or None.
    others: dict[str, dict[str, float | None]]


NEEDED = ("value", "n_samples", "metric", "network", "weights_sha256", "others")


def read_evaluation(path: str | os.PathLike) -> Evaluation:
    """One fid.json; UserError when it is missing or damaged, or lacks its run or another key that it must have."""
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("run"), dict):
        raise UserError(f"{path}: is not an evaluation with its run; give the fid.json that the stage evaluate writes")
    for key in NEEDED:
        if key not in found:
            raise UserError(f"{path}: {key} is missing; evaluate the run again")
    known: dict[str, Any] = {one.name: found.get(one.name) for one in fields(Evaluation)}
    return Evaluation(**known)


def write_evaluation(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Write fid.json, atomically."""
    write_json(path, asdict(evaluation))


FLOOR = "floor."  # statistics.npz has an array of this name and a metric's


@dataclass(frozen=True)
class Reference:
    """statistics.npz: moments of features, and of which images and network they are; None for what is not known."""

    mu: np.ndarray  # float64 (d,)
    sigma: np.ndarray  # float64 (d, d), unbiased
    n: int | None = None  # images
    floors: dict[str, np.ndarray] = field(default_factory=dict)  # by metric, float64 (repeats,); {} of too few images
    floor_n: int | None = None  # images in a subset of the floor
    features: np.ndarray | None = None  # float32 (m, d), of m ≤ floor_n images in none of these subsets
    metric: str | None = None
    network: str | None = None
    weights_sha256: str | None = None
    input_size: int | None = None  # pixels
    resolution: int | None = None  # pixels
    images_sha256: str | None = None


def write_reference(path: str | os.PathLike, reference: Reference) -> None:
    """Write statistics.npz, atomically: what is None is left out."""
    arrays = {one.name: getattr(reference, one.name) for one in fields(Reference) if one.name != "floors"}
    arrays |= {f"{FLOOR}{name}": values for name, values in reference.floors.items()}
    write_npz(path, {name: value for name, value in arrays.items() if value is not None})


def read_reference(path: str | os.PathLike) -> Reference:
    """The statistics in a file, which may be pytorch-fid's (mu and sigma alone).

    Raises UserError when the file is missing, damaged, or holds other shapes or values that are not finite.
    """
    arrays = read_npz(path, ("mu", "sigma"), "it is no whole file of statistics: make it again")
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        raise UserError(
            f"{path}: mu {mu.dtype} {mu.shape} and sigma {sigma.dtype} {sigma.shape} are no mean and covariance"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"{path}: mu or sigma is not finite; make it again")
    found = {one.name: arrays[one.name] for one in fields(Reference) if one.name in arrays}
    single = {name: value.item() for name, value in found.items() if value.ndim == 0}
    floors = {name.removeprefix(FLOOR): value for name, value in arrays.items() if name.startswith(FLOOR)}
    moments = {"mu": mu.astype(np.float64), "sigma": sigma.astype(np.float64)}
    return Reference(**{**found, **single, **moments, "floors": floors})
