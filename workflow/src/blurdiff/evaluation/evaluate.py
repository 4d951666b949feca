"""Fréchet distance of a run's samples to the statistics of the real images."""

import os

import numpy as np

from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.evaluation import features
from blurdiff.evaluation.features import INCEPTION_INPUT_SIZE, KERNEL_METRICS, METRICS, FeatureNetwork
from blurdiff.evaluation.frechet import frechet_distance, kernel_distance, moments
from blurdiff.evaluation.records import Evaluation, Reference, read_reference, write_evaluation, write_reference
from blurdiff.runtime import arrays
from blurdiff.runtime.devices import pick_device
from blurdiff.runtime.files import atomic_path


def evaluate(
    settings: Settings,
    samples_path: str | os.PathLike,
    reference_path: str | os.PathLike,
    output: str | os.PathLike,
    statistics: str | os.PathLike,
    *,
    network: str,
    weights: str | os.PathLike | None = None,
    features_path: str | os.PathLike | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Write `output` (fid.json), `statistics` (the samples' moments) and, if given, `features_path` (float32 (n, d)).

    What is None of the last three is taken from the settings' evaluation section. Raises UserError when samples,
    reference, network and settings do not go together, or a number is out of range.
    """
    chosen = {"batch_size": batch_size, "threads": threads, "device": device}
    chosen = {name: settings.evaluation[name] if value is None else value for name, value in chosen.items()}
    for name in ("batch_size", "threads"):
        if chosen[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more, not {chosen[name]}")
    samples = read_samples(samples_path, settings.sampling.n_samples, settings.resolution)
    reference = read_reference(reference_path)
    check_reference(reference, reference_path, network, settings.resolution)
    described = describe_run(settings)
    extractor = features.load_network(network, weights, pick_device(chosen["device"], chosen["threads"]))
    check_features(reference, reference_path, extractor)

    found = np.concatenate(list(features.extract(extractor, samples, chosen["batch_size"], samples_path)))
    evaluation = compare(found, reference, extractor, described)
    if features_path:
        with atomic_path(features_path) as temporary, open(temporary, "wb") as file:
            np.save(file, found)
    own = moments(found)
    identity = {key: getattr(evaluation, key) for key in ("metric", "network", "weights_sha256", "input_size")}
    write_reference(statistics, Reference(own.mu, own.sigma, own.n, **identity))
    write_evaluation(output, evaluation)
    return evaluation


def read_samples(path: str | os.PathLike, n_samples: int, resolution: int) -> np.ndarray:
    """The samples, uint8 (n_samples, resolution, resolution, 3); UserError when the file holds anything else."""
    samples = arrays.read_samples(path, resolution)
    if len(samples) != n_samples:
        raise UserError(
            f"{path} holds {len(samples):,} samples, the settings say sampling.n_samples: {n_samples:,};"
            " a distance depends on the count: gather the samples again"
        )
    return samples


def check_reference(reference: Reference, path: str | os.PathLike, network: str, resolution: int) -> None:
    """Raise UserError unless the reference is of this network and resolution. Cheap, so done first.

    A file of pytorch-fid itself says neither; it is taken for statistics of inception.
    """
    made_with = reference.network or "inception"
    if made_with != network:
        raise UserError(
            f"{path} holds features of {made_with}, not of {network}; make the reference with the same network"
        )
    if reference.resolution not in (None, resolution):
        raise UserError(
            f"{path} is of images of {reference.resolution} pixels, not {resolution}; make the reference anew"
        )


def check_features(reference: Reference, path: str | os.PathLike, network: FeatureNetwork) -> None:
    """Raise UserError unless the reference's features have the network's dimension, weights and input size."""
    found = {
        "dimension": len(reference.mu),
        "weights_sha256": reference.weights_sha256 or network.weights_sha256,
        "input_size": reference.input_size or INCEPTION_INPUT_SIZE,
    }
    for key, value in found.items():
        if value != getattr(network, key):
            raise UserError(
                f"{path}: {key} of {network.name} is {value}, but {getattr(network, key)} here; make the reference anew"
            )


def compare(
    found: np.ndarray, reference: Reference, network: FeatureNetwork, described: dict | None = None
) -> Evaluation:
    """The evaluation of samples by their features (n, d), of the run `described`."""
    own = moments(found)
    floor = np.asarray(() if reference.floor is None else reference.floor, np.float64)
    floor = floor[np.isfinite(floor)]
    known = reference.features is not None and min(len(reference.features), len(found)) >= 2
    return Evaluation(
        metric=METRICS[network.name],
        value=frechet_distance(own.mu, own.sigma, reference.mu, reference.sigma),
        n_samples=own.n,
        n_reference=reference.n,
        floor_mean=float(floor.mean()) if len(floor) else None,
        floor_std=float(floor.std(ddof=1)) if len(floor) > 1 else None,
        floor_n=reference.floor_n,
        floor_repeats=len(floor),
        kernel_metric=KERNEL_METRICS[network.name],
        kernel_value=kernel_distance(found, reference.features) if known else None,
        network=network.name,
        weights_sha256=network.weights_sha256,
        input_size=network.input_size,
        run=described,
    )


def describe_run(settings: Settings) -> dict:
    """What the table must know of a run, from its settings; UserError (of the settings) when a key is missing."""
    process, sampling = settings.process, settings.sampling
    return (
        {key: settings[key] for key in ("run", "dataset", "label", "synthetic")}
        | {
            key: process[key]
            for key in ("family", "prediction", "loss", "f_type", "f_N", "direction", "mode_order", "basis")
        }
        | {
            "seed": settings.seed,
            "iterations": settings.training.iterations,
            "n_steps": settings.n_steps,
            "sampler": sampling.sampler,
            "resolution": settings.resolution,
        }
    )
