"""What each optimisation is worth: ours beside ours with one thing taken away; results are the same but for rounding.

A thing is taken away by the row's settings, or in the row's own process: the code that is timed has no switches for it.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from blurdiff.benchmark import features, frechet, preprocessing, sampling, training
from blurdiff.benchmark.rows import Bench, Row, Work
from blurdiff.config.settings import with_keys
from blurdiff.runtime import allocator, devices, parallel

OURS = "ours"
N_DRAWN, N_RECORDS = 64, 4096  # of the LMDB that is preprocessed


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of each kind of work, and what they read."""
    bench = replace(bench, folder=bench.folder / "ablations")
    bench.folder.mkdir()
    features.prepare_images(bench)
    n_records = 64 if bench.quick else N_RECORDS
    preprocessing.prepare(bench.folder, 4 if bench.quick else N_DRAWN, n_records, ["WEBP"], bench.threads)
    settings, path = bench.settings, preprocessing.data_folder(bench.folder, "WEBP")
    lmdb = {"kind": "lmdb", "path": str(path), "n": n_records, "workers": bench.threads, "scratch": str(bench.folder)}
    images = {**features.images_of(bench), "network": "efficientnet-lite0"}
    distance = {"dimension": bench.size(64, 2048, 2048)}
    close = {"tolerance": features.TOLERANCE}

    def of_training(**keys) -> dict:
        return {"settings": with_keys(settings, "training", **keys)}

    def of_sampling(**keys) -> dict:
        return {"settings": with_keys(settings, "sampling", **keys), "n_walked": 2 if bench.quick else 10}

    if bench.on_gpu:
        best = {"compile": True, "precision": "bf16"}
        in_both = {
            OURS: best,
            "without CUDA graphs": best,
            "without torch.compile": best | {"compile": False},
            "without bf16": best | {"precision": "fp32"},
            "without channels last": best,
        }
        in_training = {**in_both, "without fused Adam": best,
                       "images read ahead, not resident": best | {"data_on_device": False}}  # fmt: skip
        steps = [_row(name, training.fast, of_training(**keys)) for name, keys in in_training.items()]
        walks = [_row(name, sampling.ours, of_sampling(**keys)) for name, keys in in_both.items()]
    else:
        steps = [_row(name, training.fast, of_training()) for name in (OURS, "without kept memory", "channels last")]
        walks = [
            _row(OURS, sampling.ours, of_sampling()),
            _row("without kept memory", sampling.ours, of_sampling(), tolerance=0.0),
            _row("channels last", sampling.ours, of_sampling(), tolerance=1e-4),
        ]
    kept = [] if bench.on_gpu else [_row("without kept memory", features.ours, images, tolerance=0.0)]
    extracted = [
        _row(OURS, features.ours, images),
        *kept,
        _row("channels first", features.ours, {**images, "channels_last": False}, **close),
        _row("batch normalisation apart", features.ours, images, **close),
    ]
    distances = [
        _row(OURS, frechet.ours, distance, on_cpu=True),
        _row("without Cholesky factors", frechet.ours, distance, on_cpu=True, tolerance=1e-10),
    ]
    preprocessed = [
        _row(OURS, preprocessing.ours, lmdb, on_cpu=True),
        _row("without kept memory", preprocessing.ours, lmdb, on_cpu=True, tolerance=0.0),
    ]
    images_each, none_each = {"unit": "images/s", "images_per_item": 1.0}, {"images_per_item": None}
    return [
        [replace(row, stage=f"ablation: {stage}", **of) for row in rows]
        for stage, rows, of in (
            (f"training step, batch {settings.training.batch_size}", steps, images_each),
            (f"sampling, batch {settings.sampling.shard_size}", walks, none_each | {"unit": "evaluations/s"}),
            (features.EFFICIENTNET, extracted, images_each),
            (frechet.STAGE, distances, none_each | {"unit": "distances/s"}),
            ("preprocessing, WEBP", preprocessed, images_each),
        )
    ]


def _row(name: str, build: Callable, arguments: dict, **keywords) -> Row:
    wrapped = {"name": name, "build": build, "arguments": arguments}
    return Row("", name, changed, wrapped, baseline=OURS, **keywords)


def changed(device, threads: int, name: str, build: Callable, arguments: dict) -> Work:
    """The work of `build` in this process, from which what the row's name says is taken away for good."""
    TAKEN_AWAY.get(name, lambda: None)()
    return build(device, threads, **arguments)


def _everywhere(function: Callable, other: Callable) -> None:
    """Put `other` in the place of a function of ours, in every module that knows it by name."""
    for module in [module for name, module in sys.modules.items() if name.startswith("blurdiff.")]:
        for name, value in list(vars(module).items()):
            if value is function:
                setattr(module, name, other)


def _no_kept_memory() -> None:
    _everywhere(allocator.keep_freed_memory, lambda: False)
    _everywhere(parallel._start, parallel._follow_parent)  # the beginning of each process that preprocesses


def _no_cuda_graphs() -> None:
    compile_function = torch.compile

    def without(function, *, options: dict, **keywords):
        return compile_function(function, options=options | {"triton.cudagraphs": False}, **keywords)

    torch.compile = without  # type: ignore[assignment]


def _no_fused_adam() -> None:
    adam = torch.optim.Adam

    def without(parameters, *, fused: bool, **keywords):
        return adam(parameters, **keywords)

    torch.optim.Adam = without  # type: ignore[assignment,misc]


def _no_cholesky() -> None:
    """As with a covariance that has none."""

    def refuse(_):
        raise np.linalg.LinAlgError

    np.linalg.cholesky = refuse  # type: ignore[assignment]


# By the names of rows; the others have settings of their own.
TAKEN_AWAY: dict[str, Callable[[], None]] = {
    "without kept memory": _no_kept_memory,
    "without CUDA graphs": _no_cuda_graphs,
    "without channels last": partial(_everywhere, devices.memory_format, lambda device: torch.contiguous_format),
    "channels last": partial(_everywhere, devices.memory_format, lambda device: torch.channels_last),
    "without fused Adam": _no_fused_adam,
    "batch normalisation apart": partial(_everywhere, features.own.fold, lambda network: None),
    "without Cholesky factors": _no_cholesky,
}
