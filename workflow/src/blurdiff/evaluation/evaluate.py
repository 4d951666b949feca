"""What a run's samples get for every metric, against the statistics of the real images."""

import os
from collections.abc import Iterable

import numpy as np

from blurdiff.config.made import SAMPLES, STRIPS, check_made, deciding
from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.evaluation import features
from blurdiff.evaluation.features import INCEPTION_INPUT_SIZE, FeatureNetwork
from blurdiff.evaluation.measures import Comparison
from blurdiff.evaluation.metrics import FRECHET, METRICS, label
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
    section = settings.evaluation
    batch_size = section.batch_size if batch_size is None else batch_size
    threads = section.threads if threads is None else threads
    for name, value in {"batch-size": batch_size, "threads": threads}.items():
        if value < 1:
            raise UserError(f"--{name} must be 1 or more, not {value}")
    samples = read_samples(samples_path, settings)
    reference = read_reference(reference_path)
    check_reference(reference, reference_path, network, settings.resolution)
    described = describe_run(settings)
    where = pick_device(section.device if device is None else device, threads)
    extractor = features.load_network(network, weights, where)
    check_features(reference, reference_path, extractor)

    found = np.concatenate(list(features.extract(extractor, samples, batch_size, samples_path)))
    comparison = Comparison(found, reference, reference.features, where)
    evaluation = compare(comparison, reference, extractor, described)
    if features_path:
        with atomic_path(features_path) as temporary, open(temporary, "wb") as file:
            np.save(file, found)
    own = comparison.own
    identity = {key: getattr(evaluation, key) for key in ("metric", "network", "weights_sha256", "input_size")}
    write_reference(statistics, Reference(own.mu, own.sigma, own.n, **identity))
    write_evaluation(output, evaluation)
    return evaluation


def read_samples(path: str | os.PathLike, settings: Settings) -> np.ndarray:
    """The samples, uint8 (n_samples, resolution, resolution, 3).

    UserError when the file holds anything else, or was made with other settings.
    """
    samples, made_with = arrays.read_samples(path, settings.resolution)
    check_made(path, made_with, settings, SAMPLES, *STRIPS)
    n_samples = settings.sampling.n_samples
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
    comparison: Comparison,
    reference: Reference,
    network: FeatureNetwork,
    described: dict | None = None,
    names: Iterable[str] = METRICS,
) -> Evaluation:
    """The evaluation of samples of the run `described` by the metrics `names`, the Fréchet distance among them."""
    scores = {}
    for name, score in comparison.scores(names).items():
        floor = reference.floors.get(name, np.empty(0))
        floor = floor[np.isfinite(floor)]
        scores[name] = score._asdict() | {
            "floor_mean": float(floor.mean()) if len(floor) else None,
            "floor_std": float(floor.std(ddof=1)) if len(floor) > 1 else None,
        }
    distance = scores.pop(FRECHET)
    return Evaluation(
        metric=label(FRECHET, network.name),
        value=distance["value"],
        n_samples=len(comparison.samples),
        n_reference=reference.n,
        floor_mean=distance["floor_mean"],
        floor_std=distance["floor_std"],
        floor_n=reference.floor_n,
        floor_repeats=len(reference.floors.get(FRECHET, ())),
        network=network.name,
        weights_sha256=network.weights_sha256,
        input_size=network.input_size,
        run=described,
        others=scores,
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
            "made_with": deciding(settings, *SAMPLES),
        }
    )
