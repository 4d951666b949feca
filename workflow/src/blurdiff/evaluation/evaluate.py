"""Fréchet distance of a run's samples to the statistics of the real images.

The features are those of the reference: the same network, weights and input size, or the stage refuses. fid.json holds
the distance with its name (FID, or FD-EfficientNet-Lite0), the floor (what as many real images get), the kernel
distance, the counts and the run's settings; statistics.npz holds mean and covariance of the samples' features. Options
that are not given are taken from the evaluation section of the settings.
"""

import os

import numpy as np

from blurdiff.errors import UserError
from blurdiff.evaluation.features import (
    INCEPTION_INPUT_SIZE,
    KERNEL_METRICS,
    METRICS,
    FeatureNetwork,
)
from blurdiff.evaluation.frechet import (
    frechet_distance,
    kernel_distance,
    moments,
)
from blurdiff.runtime import arrays


def read_samples(path: str | os.PathLike, n_samples: int, resolution: int) -> np.ndarray:
    """The samples, uint8 (n_samples, resolution, resolution, 3); UserError when the file holds anything else."""
    samples = arrays.read_samples(path, resolution)
    if len(samples) != n_samples:
        raise UserError(
            f"{path} holds {len(samples):,} samples, the settings say sampling.n_samples: {n_samples:,};"
            " a distance depends on the count: gather the samples again"
        )
    return samples


def check_reference(reference: dict, path: str | os.PathLike, network: str, resolution: int) -> None:
    """Raise UserError unless the reference is of this network and resolution. Cheap, so done first.

    A file of pytorch-fid itself says neither; it is taken for statistics of inception.
    """
    made_with = str(reference.get("network", "inception"))
    if made_with != network:
        raise UserError(
            f"{path} holds features of {made_with}, not of {network}; make the reference with the same network"
        )
    if int(reference.get("resolution", resolution)) != resolution:
        raise UserError(
            f"{path} is of images of {reference['resolution']} pixels, not {resolution}; make the reference anew"
        )


def check_features(reference: dict, path: str | os.PathLike, network: FeatureNetwork) -> None:
    """Raise UserError unless the reference's features have the network's dimension, weights and input size."""
    found = {
        "dimension": len(reference["mu"]),
        "weights_sha256": str(reference.get("weights_sha256", network.weights_sha256)),
        "input_size": int(reference.get("input_size", INCEPTION_INPUT_SIZE)),
    }
    for key, value in found.items():
        if value != getattr(network, key):
            raise UserError(
                f"{path}: {key} of {network.name} is {value}, but {getattr(network, key)} here; make the reference anew"
            )


def compare(features: np.ndarray, reference: dict, network: FeatureNetwork) -> dict:
    """The numbers of fid.json from the samples' features (n, d) and the reference; None for what it lacks."""
    own = moments(features)
    floor = np.asarray(reference.get("floor", ()), np.float64)
    floor = floor[np.isfinite(floor)]
    known = "features" in reference and min(len(reference["features"]), len(features)) >= 2
    return {
        "metric": METRICS[network.name],
        "value": frechet_distance(own.mu, own.sigma, reference["mu"], reference["sigma"]),
        "n_samples": own.n,
        "n_reference": int(reference["n"]) if "n" in reference else None,
        "floor_mean": float(floor.mean()) if len(floor) else None,
        "floor_std": float(floor.std(ddof=1)) if len(floor) > 1 else None,
        "floor_n": int(reference["floor_n"]) if "floor_n" in reference else None,
        "floor_repeats": len(floor),
        "kernel_metric": KERNEL_METRICS[network.name],
        "kernel_value": kernel_distance(features, reference["features"]) if known else None,
        "network": network.name,
        "weights_sha256": network.weights_sha256,
        "input_size": network.input_size,
    }


def describe_run(settings: dict) -> dict:
    """What the table must know of a run, from its settings; UserError (of the settings) when a key is missing."""
    process, sampling = settings["process"], settings["sampling"]
    trained = process["n_timesteps"] - process["skip_last_timestep"]
    return (
        {key: settings[key] for key in ("run", "dataset", "label", "synthetic")}
        | {key: process[key] for key in ("family", "objective", "f_type", "f_N", "direction", "mode_order", "basis")}
        | {
            "seed": settings["seed"],
            "iterations": settings["training"]["iterations"],
            "n_steps": min(sampling["n_steps"] or trained, trained),
            "sampler": sampling["sampler"],
            "resolution": settings["resolution"],
        }
    )
