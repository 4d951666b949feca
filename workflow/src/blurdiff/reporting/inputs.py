"""What figures are drawn from: strips, samples, real images and training histories, read and checked."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from blurdiff.config import made
from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.reporting.figures import INPUTS, function
from blurdiff.runtime import arrays
from blurdiff.runtime.files import read_json

LOSSES = ["loss", "loss_q1", "loss_q2", "loss_q3", "loss_q4"]
FIRST_SAMPLES = 64  # grids show the first few; ten thousand samples of every run would fill the memory


class Strips(NamedTuple):
    """The way of some samples from noise to image."""

    timesteps: np.ndarray  # int (K,), descending from N to 0
    x: np.ndarray  # float32 (K, n, R, R, 3), the state x_i in pixel space and model range
    x0: np.ndarray  # float32 (K, n, R, R, 3), the prediction of x_0 from x_i


def read_inputs(
    names: Sequence[str], paths: Mapping[str, Sequence[str]], runs: Sequence[Settings], first: int | None = None
) -> dict[str, list]:
    """{input: what its files hold} for these of INPUTS; of samples only the `first`, if given.

    `paths` has them by input. Raises UserError when there are not as many as runs where it takes one for each, or a
    file is bad.
    """
    check_counts([name for name in names if INPUTS[name].ordered], paths, runs)
    read = {}
    for name in names:
        reader, some = function(INPUTS[name].read), {"first": first} if name == "samples" else {}
        if INPUTS[name].ordered:
            read[name] = [reader(path, run, **some) for path, run in zip(paths[name], runs, strict=True)]
        else:
            read[name] = reader(paths[name], runs)
    return read


def check_counts(names: Sequence[str], paths: Mapping[str, Sequence[str]], runs: Sequence[Mapping]) -> None:
    """Raise UserError unless each of the options `names` has as many paths as there are runs."""
    for name in names:
        if len(paths[name]) != len(runs):
            raise UserError(f"--{name}: {len(paths[name])} paths for {len(runs)} runs in --settings; give one per run")


def read_strips(path: str | Path, settings: Mapping) -> Strips:
    """Read strips.npz; raises UserError when it is unreadable or does not hold strips at the run's resolution."""
    names, resolution = ("timesteps", "x", "x0"), settings["resolution"]
    content = arrays.read_npz(path, names, "sample the run again")
    timesteps, x, x0 = (content[name] for name in names)
    made.check_made(path, arrays.made_with(content), settings, made.SAMPLES)
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


def read_samples(path: str | Path, settings: Mapping, first: int | None = None) -> np.ndarray:
    """Read samples.npz, or the `first` of it: uint8 (n, R, R, 3); raises UserError when it holds something else."""
    samples, made_with = arrays.read_samples(path, settings["resolution"])
    made.check_made(path, made_with, settings, made.SAMPLES, *made.STRIPS)
    return samples[:first].copy() if first else samples


def read_drawn(path: str | Path, settings: Mapping) -> np.ndarray:
    """Read samplers.npz: uint8 (rows of samplers.csv, n, R, R, 3)."""
    return arrays.read_npz(path, ("images",), "delete it and run again")["images"]


def read_images(path: str | Path, settings: Mapping) -> np.ndarray:
    """Open images.npy as a memory map: uint8 (n, R, R, 3); raises UserError when it holds something else."""
    return arrays.open_images(path, settings["resolution"])


def read_counts(paths: Sequence[str], runs: Sequence[Mapping]) -> list[int]:
    """How many images each run's data set has, by its manifest.json; nothing when no paths are given."""
    check_counts(["manifests"] * bool(paths), {"manifests": paths}, runs)
    return [read_count(path, run) for path, run in zip(paths, runs, strict=False)]


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


def read_history(path: str | Path, settings: Settings) -> pd.DataFrame:
    """Read history.csv; losses are means since the last row, a quartile's is NaN where no timestep fell into it.

    Raises UserError when a column is missing, a number is not one, or the rows end before the training does.
    """
    made.check_model_beside(path, settings)
    iterations = settings["training"]["iterations"]
    history = read_csv(path, "train the run again")
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


def read_csv(path: str | Path, advice: str) -> pd.DataFrame:
    """The table of a CSV file that ends in a whole line; UserError with `advice` when it is none. Runs may be called
    NA or None, so that only an empty field and nan are no value."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is not whole")
        return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=["", "nan"])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"cannot read {path}: {error}; {advice}") from error
