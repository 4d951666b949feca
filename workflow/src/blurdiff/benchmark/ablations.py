"""What each optimisation is worth: ours beside ours with one thing taken away; results are the same but for rounding.

A thing is taken away by the row's arguments, or in its own process: the code that is timed has no switches for it.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

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
    in_both = ["without kept memory", "channels last"]
    in_training, in_features = in_both, ["without kept memory"]
    if bench.on_gpu:
        for section in ("training", "sampling"):
            settings = with_keys(settings, section, compile=True, precision="bf16")
        in_both = ["without CUDA graphs", "without torch.compile", "without bf16", "without channels last"]
        in_training, in_features = [*in_both, "without fused Adam", "images read ahead, not resident"], []
    walked = {"settings": settings, "n_walked": 2 if bench.quick else 10}
    images = {**features.images_of(bench), "network": "efficientnet-lite0"}
    distance = {"dimension": bench.size(64, 2048, 2048)}
    lmdb = {"kind": "lmdb", "path": path, "n": n_records, "scratch": str(bench.folder)}
    return [
        _rows(f"training step, batch {settings.training.batch_size}", training.fast, {"settings": settings},
              in_training, section="training"),
        _rows(f"sampling, batch {settings.sampling.shard_size}", sampling.ours, walked, in_both, section="sampling",
              unit="evaluations/s", images_per_item=None),
        _rows(features.EFFICIENTNET, features.ours, images,
              [*in_features, "channels first", "batch normalisation apart"]),
        _rows(frechet.STAGE, frechet.ours, distance, ["without Cholesky factors"], on_cpu=True, unit="distances/s",
              images_per_item=None),
        _rows("preprocessing, WEBP", preprocessing.ours, lmdb, ["without kept memory"], on_cpu=True),
    ]  # fmt: skip


def _rows(
    stage: str, build: Callable, arguments: dict, ablations: Sequence[str], section: str = "",
    images_per_item: float | None = 1.0, **keywords: Any,
) -> list[Row]:  # fmt: skip
    """Ours, and ours after each of `ablations`; the keys that they change are of the settings' `section`, if any."""
    rows = []
    for name in (OURS, *ablations):
        keys = ABLATIONS[name].keys
        changes = {"settings": with_keys(arguments["settings"], section, **keys)} if section else keys
        wrapped = {"name": name, "build": build, "arguments": arguments | changes}
        rows.append(Row(f"ablation: {stage}", name, changed, wrapped, baseline=OURS, images_per_item=images_per_item,
                        tolerance=ABLATIONS[name].tolerance, **keywords))  # fmt: skip
    return rows


def changed(device, threads: int, name: str, build: Callable, arguments: dict) -> Work:
    """The work of `build` in this process, from which what the row's name says is taken away for good."""
    ABLATIONS[name].take_away()
    return build(device, threads, **arguments)


def _everywhere(function: Callable, other: Callable) -> None:
    """Put `other` in the place of a function of ours, in every module that knows it by name."""
    for module in [module for name, module in sys.modules.items() if name.startswith("blurdiff.")]:
        for name, value in list(vars(module).items()):
            if value is function:
                mock.patch.object(module, name, other).start()


def _no_kept_memory() -> None:
    _everywhere(allocator.keep_freed_memory, lambda: False)
    _everywhere(parallel._start, parallel._follow_parent)  # the beginning of each process that preprocesses


def _no_cuda_graphs() -> None:
    compile_function = torch.compile

    def without(function, *, options: dict, **keywords):
        return compile_function(function, options=options | {"triton.cudagraphs": False}, **keywords)

    mock.patch.object(torch, "compile", without).start()


def _no_fused_adam() -> None:
    adam = torch.optim.Adam

    def without(parameters, *, fused: bool, **keywords):
        return adam(parameters, **keywords)

    mock.patch.object(torch.optim, "Adam", without).start()


class Ablation(NamedTuple):
    """What is taken away in the row's process, or which arguments (or keys of the settings) it has instead; and by how
    much its result may differ from ours (None: it is another precision's, or not compared)."""

    take_away: Callable[[], object] = lambda: None
    keys: dict[str, Any] = {}
    tolerance: float | None = None


ABLATIONS = {
    OURS: Ablation(),
    "without kept memory": Ablation(_no_kept_memory, tolerance=0.0),
    "without CUDA graphs": Ablation(_no_cuda_graphs),
    "without torch.compile": Ablation(keys={"compile": False}),
    "without bf16": Ablation(keys={"precision": "fp32"}),
    "without channels last": Ablation(
        partial(_everywhere, devices.memory_format, lambda device: torch.contiguous_format)
    ),
    "channels last": Ablation(
        partial(_everywhere, devices.memory_format, lambda device: torch.channels_last), tolerance=1e-4
    ),
    "without fused Adam": Ablation(_no_fused_adam),
    "images read ahead, not resident": Ablation(keys={"data_on_device": False}),
    "channels first": Ablation(keys={"channels_last": False}, tolerance=features.TOLERANCE),
    "batch normalisation apart": Ablation(
        partial(_everywhere, features.own.fold, lambda network: None), tolerance=features.TOLERANCE
    ),
    # As with a covariance that has none.
    "without Cholesky factors": Ablation(
        mock.patch.object(np.linalg, "cholesky", side_effect=np.linalg.LinAlgError).start, tolerance=1e-10
    ),
}
