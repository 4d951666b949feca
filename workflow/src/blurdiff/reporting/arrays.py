"""What figures are drawn from: strips, samples, real images and training histories, read and checked."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from blurdiff.errors import UserError
from blurdiff.runtime.files import check_archive, read_json

LOSSES = ["loss", "loss_q1", "loss_q2", "loss_q3", "loss_q4"]


class Strips(NamedTuple):
    """The way of some samples from noise to image."""

    timesteps: np.ndarray  # int (K,), descending from N to 0
    x: np.ndarray  # float32 (K, n, R, R, 3), the state x_i in pixel space and model range
    x0: np.ndarray  # float32 (K, n, R, R, 3), the prediction of x_0 from x_i


def read_strips(path: str | Path, resolution: int) -> Strips:
    """Read strips.npz; raises UserError when it is unreadable or does not hold strips at `resolution`."""
    arrays = read_npz(path, ("timesteps", "x", "x0"))
    timesteps, x, x0 = arrays["timesteps"], arrays["x"], arrays["x0"]
    expected = (len(timesteps) if timesteps.ndim == 1 else 0, x.shape[1] if x.ndim == 5 else 0, *[resolution] * 2, 3)
    for name, array in (("x", x), ("x0", x0)):
        if array.shape != expected or 0 in expected:
            raise UserError(
                f"{path}: array {name} has shape {array.shape}, not (timesteps, images, {resolution}, {resolution}, 3)"
                f" with timesteps of shape {timesteps.shape}; draw the samples again"
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise UserError(f"{path}: array {name} has values that are not finite numbers; look at the run's training")
    if not np.issubdtype(timesteps.dtype, np.integer) or (np.diff(timesteps) >= 0).any():
        raise UserError(f"{path}: timesteps must be integers that descend from N to 0, not {timesteps.tolist()}")
    return Strips(timesteps, x, x0)


def read_samples(path: str | Path, resolution: int, first: int | None = None) -> np.ndarray:
    """Read samples.npz, or the `first` of it: uint8 (n, R, R, 3); raises UserError when it holds something else."""
    samples = check_images(read_npz(path, ("arr_0",))["arr_0"], path, resolution)
    return samples[:first].copy() if first else samples


def read_images(path: str | Path, resolution: int) -> np.ndarray:
    """Open images.npy as a memory map: uint8 (n, R, R, 3); raises UserError when it holds something else."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file can raise almost anything, a TokenError for one
        raise UserError(f"cannot read {path}: {error}; preprocess the data set again") from error
    if not isinstance(images, np.ndarray):
        raise UserError(f"{path}: is not a .npy array; give a data set's images.npy")
    return check_images(images, path, resolution)


def check_images(images: np.ndarray, path: str | Path, resolution: int) -> np.ndarray:
    """Return `images` when they are uint8 (n ≥ 1, R, R, 3), raise UserError otherwise."""
    if (
        images.ndim != 4
        or images.shape[1:] != (resolution, resolution, 3)
        or images.dtype != np.uint8
        or not len(images)
    ):
        raise UserError(
            f"{path}: holds {images.dtype} {images.shape}, not uint8 (n, {resolution}, {resolution}, 3);"
            " is it of another resolution or stage?"
        )
    return images


def read_count(path: str | Path, settings: Mapping) -> int:
    """How many images a run's data set has, by its manifest.json.

    Raises UserError when the manifest is none, or is of other data than the run's settings say.
    """
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("n_used"), int):
        raise UserError(f"{path}: has no n_used; give the manifest.json that stands beside images.npy")
    for key in ("resolution", "synthetic"):
        if manifest.get(key) != settings[key]:
            raise UserError(
                f"{path}: {key} is {manifest.get(key)}, but {settings[key]} in the settings of run {settings['run']};"
                " preprocess the data set again"
            )
    return manifest["n_used"]


def read_npz(path: str | Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the named arrays of an .npz; raises UserError when it is unreadable, cut short, or lacks one."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"{path}: is a single array, not an .npz archive with {', '.join(names)}")
        with archive:
            check_archive(archive)
            missing = [name for name in names if name not in archive]
            if missing:
                raise UserError(f"{path}: has no array {missing[0]!r}, only {sorted(archive)}; make the file again")
            return {name: archive[name] for name in names}
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise almost anything, a TokenError for one
        raise UserError(f"cannot read {path}: {error}; delete it and make it again") from error


def read_history(path: str | Path, iterations: int) -> pd.DataFrame:
    """Read history.csv; losses are means since the last row, a quartile's is NaN where no timestep fell into it.

    Raises UserError when a column is missing, a number is not one, or the rows end before `iterations`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is not whole")
        history = pd.read_csv(io.StringIO(text))
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"cannot read {path}: {error}; train the run again") from error
    missing = [name for name in ["iteration", *LOSSES] if name not in history]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]!r}; is it a run's history.csv?")
    if history.empty:
        raise UserError(f"{path}: has no rows; train at least training.log_every iterations")
    for name in ["iteration", *LOSSES]:
        if not pd.api.types.is_numeric_dtype(history[name]):
            raise UserError(f"{path}: column {name} has something that is not a number; train the run again")
    broken = ~np.isfinite(history[["iteration", "loss"]]).all(axis=1)
    if broken.any():
        raise UserError(f"{path}: row {int(np.argmax(broken)) + 1}: loss or iteration is missing or not finite")
    if history["iteration"].iloc[-1] != iterations:
        raise UserError(
            f"{path}: ends at iteration {history['iteration'].iloc[-1]:g}, but the run has training.iterations"
            f" {iterations}; train the run again"
        )
    return history[["iteration", *LOSSES]]
