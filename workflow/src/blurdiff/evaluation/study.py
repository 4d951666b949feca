"""Fréchet distance against the number of network evaluations, for one trained model and several samplers."""

import csv
import os
import sys
import time
from collections.abc import Iterator

import numpy as np

from blurdiff.config.settings import Settings, with_keys
from blurdiff.data.images import to_uint8
from blurdiff.diffusion.timesteps import step_grid
from blurdiff.evaluation import features
from blurdiff.evaluation.evaluate import check_features, check_reference, compare
from blurdiff.evaluation.measures import Comparison
from blurdiff.evaluation.metrics import FRECHET
from blurdiff.evaluation.records import STUDY_COLUMNS, read_reference
from blurdiff.runtime.arrays import write_npz
from blurdiff.runtime.files import atomic_path
from blurdiff.sampling.model import load_denoiser
from blurdiff.sampling.sample import draw

N_KEPT = 192  # images a row, for the study of failures


class Counter:
    """A network that counts how often it was evaluated on the batch."""

    def __init__(self, predict):
        self.predict, self.calls = predict, 0

    def __call__(self, x, i):
        self.calls += 1
        return self.predict(x, i)


def study(
    settings: Settings,
    model: str | os.PathLike,
    reference_path: str | os.PathLike,
    output: str | os.PathLike,
    drawn: str | os.PathLike,
    *,
    samplers: list[dict],
    n_steps: list[int],
    n_samples: int,
    network: str,
    weights: str | os.PathLike | None = None,
    threads: int = 1,
) -> None:
    """Write `output`, the CSV, from `n_samples` images for each of `samplers` (sections of sampling) and `n_steps`; and
    `drawn`, an .npz whose `images` (rows, n, R, R, 3) uint8 are the first N_KEPT of each row's.

    Raises UserError when model, reference and network do not go together, or a grid has no room for its steps.
    """
    kept: list[np.ndarray] = []
    rows = list(_rows(settings, model, reference_path, samplers, n_steps, n_samples, network, weights, threads, kept))
    write_npz(drawn, {"images": np.stack(kept)})
    with atomic_path(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, STUDY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _rows(
    settings, model, reference_path, samplers, n_steps, n_samples, network, weights, threads, kept
) -> Iterator[dict]:
    """One row after the other, each told on stderr; its first images are added to `kept`."""
    process_settings = settings.process
    reference = read_reference(reference_path)
    check_reference(reference, reference_path, network, settings.resolution)
    batch = min(settings.sampling.batch_size or n_samples, n_samples)
    settings = with_keys(settings, "sampling", shard_size=n_samples, batch_size=batch)
    denoiser = load_denoiser(settings, model, threads)
    extractor = features.load_network(network, weights, denoiser.device)
    check_features(reference, reference_path, extractor)
    counter = denoiser.evaluate = Counter(denoiser.evaluate)
    for choice in samplers:
        for n in n_steps:
            tried = with_keys(settings, "sampling", **choice)
            sampling = tried.sampling
            counter.calls, start = 0, time.perf_counter()
            steps = step_grid(denoiser.process, n, sampling.grid, start=tried.process.last_timestep)
            x_0 = draw(tried, denoiser, steps, shard=0)
            seconds = time.perf_counter() - start
            images = to_uint8(x_0, process_settings.range).cpu().numpy()
            kept.append(images[:N_KEPT])
            batches = features.extract(extractor, images, settings.evaluation.batch_size, model)
            comparison = Comparison(np.concatenate(list(batches)), reference, None)
            result = compare(comparison, reference, extractor, names=[FRECHET])
            # The floor depends on the count: it is given where it is that of as many images.
            same = result.floor_mean is not None and result.floor_n == n_samples
            row = {key: settings[key] for key in ("run", "dataset", "label", "seed")}
            row |= {key: process_settings[key] for key in ("f_type", "f_N", "direction")}
            row |= {key: sampling[key] for key in ("sampler", "grid", "eta", "noise_free_steps")}
            row |= {"n_steps": n, "evaluations": counter.calls, "n_samples": n_samples}
            row |= {"metric": result.metric, "value": f"{result.value:.6g}", "seconds": f"{seconds:.3g}"}
            row["floor"] = f"{result.floor_mean:.6g}" if same else ""
            print(f"{row['run']}: {row['sampler']} ({row['grid']}), {row['evaluations']} evaluations: {row['value']}",
                  file=sys.stderr, flush=True)  # fmt: skip
            yield row
