"""What each optimisation is worth: ours beside ours with one thing taken away; results are the same but for rounding.

A thing is taken away in the row's own process, before anything of ours is loaded there: the code that is timed has no
switches for it.
"""

from functools import partial
from pathlib import Path

from blurdiff.benchmark import features, frechet, preprocessing, sampling, training
from blurdiff.benchmark.rows import Row, Work
from blurdiff.config.settings import Settings, with_keys

OURS = "ours"
N_DRAWN, N_RECORDS = 64, 4096  # of the LMDB that is preprocessed


def prepare(folder: str, quick: bool, on_gpu: bool, workers: int) -> None:
    """Write what the rows read."""
    features.prepare_images(folder, _n_images(quick, on_gpu))
    preprocessing.prepare(folder, 4 if quick else N_DRAWN, 64 if quick else N_RECORDS, ["WEBP"], workers)


def _n_images(quick: bool, on_gpu: bool) -> int:
    return 4 if quick else 2000 if on_gpu else 100


def stages(settings: Settings, quick: bool, folder: Path, workers: int = 1) -> list[list[Row]]:
    """The rows of each kind of work; `prepare` has written `folder`."""
    on_gpu = settings["training"]["device"] == "cuda"
    own, walked = settings["training"], settings["sampling"]

    def of_training(**keys) -> dict:
        return {"settings": with_keys(settings, "training", **keys)}

    def of_sampling(**keys) -> dict:
        return {"settings": with_keys(settings, "sampling", **keys), "n_walked": 2 if quick else 10}

    train, sample = partial(_row, training.fast), partial(_row, sampling.ours, unit="evaluations/s")
    if on_gpu:
        compiled = {"compile": True, "precision": "bf16"}
        steps = [
            train(OURS, of_training(**compiled)),
            train("without CUDA graphs", of_training(**compiled), no_cuda_graphs),
            train("without torch.compile", of_training(**compiled | {"compile": False})),
            train("without bf16", of_training(**compiled | {"precision": "fp32"})),
            train("without channels last", of_training(**compiled), no_channels_last),
            train("without fused Adam", of_training(**compiled), no_fused_adam),
            train("images read ahead, not resident", of_training(**compiled, data_on_device=False)),
        ]
        walks = [
            sample(OURS, of_sampling(**compiled)),
            sample("without CUDA graphs", of_sampling(**compiled), no_cuda_graphs),
            sample("without torch.compile", of_sampling(**compiled | {"compile": False})),
            sample("without bf16", of_sampling(**compiled | {"precision": "fp32"})),
            sample("without channels last", of_sampling(**compiled), no_channels_last),
        ]
    else:
        steps = [
            train(OURS, of_training()),
            train("without kept memory", of_training(), no_kept_memory),
            train("channels last", of_training(), channels_last),
        ]
        walks = [
            sample(OURS, of_sampling()),
            sample("without kept memory", of_sampling(), no_kept_memory, tolerance=0.0),
            sample("channels last", of_sampling(), channels_last, tolerance=1e-4),
        ]
    n, batch = _n_images(quick, on_gpu), 2 if quick else 128 if on_gpu else 32
    images = {"folder": str(folder), "n": n, "batch": batch, "network": "efficientnet-lite0", "weights": None}
    extract, close = partial(_row, features.ours), features.TOLERANCE
    found = [
        extract(OURS, images),
        extract("channels first", {**images, "channels_last": False}, tolerance=close),
        extract("batch normalisation apart", images, no_folding, tolerance=close),
    ]
    if not on_gpu:
        found.insert(1, extract("without kept memory", images, no_kept_memory, tolerance=0.0))
    distance = partial(_row, frechet.build, unit="distances/s", on_cpu=True)
    size = {"dimension": 64 if quick else 2048, "ours": True}
    distances = [distance(OURS, size), distance("without Cholesky factors", size, no_cholesky, tolerance=1e-10)]
    preprocess = partial(_row, preprocessing.ours, on_cpu=True)
    lmdb = {"kind": "lmdb", "path": str(preprocessing.data_folder(folder, "WEBP")), "n": 64 if quick else N_RECORDS,
            "workers": workers, "scratch": str(folder)}  # fmt: skip
    preprocessed = [
        preprocess(OURS, lmdb),
        preprocess("without kept memory", lmdb, no_kept_memory_in_workers, tolerance=0.0),
    ]
    return [
        [make(stage="ablation: " + what) for make in rows]
        for what, rows in (
            (f"training step, batch {own['batch_size']}", steps),
            (f"sampling, batch {walked['shard_size']}", walks),
            (features.EFFICIENTNET, found),
            ("Fréchet distance", distances),
            ("preprocessing, WEBP", preprocessed),
        )
    ]


def _row(build, name: str, arguments: dict, take_away=None, unit: str = "images/s", **keywords):
    """A Row but for the name of its stage."""
    wrapped = {"take_away": take_away, "build": build, "arguments": arguments}
    options = {"unit": unit, "images_per_item": 1.0 if unit == "images/s" else None, **keywords}
    return partial(Row, implementation=name, build=changed, arguments=wrapped, baseline=OURS, **options)


def changed(device, threads: int, take_away, build, arguments: dict) -> Work:
    """The work of `build` in this process, which `take_away` has changed for good."""
    if take_away:
        take_away()
    return build(device, threads, **arguments)


def no_kept_memory() -> None:
    from blurdiff.runtime import devices

    devices.keep_freed_memory = lambda: False


def no_kept_memory_in_workers() -> None:
    from blurdiff.runtime import parallel

    parallel._start = parallel._follow_parent


def no_channels_last() -> None:
    import torch

    _set_memory_format(torch.contiguous_format)


def channels_last() -> None:
    import torch

    _set_memory_format(torch.channels_last)


def _set_memory_format(layout) -> None:
    from blurdiff.runtime import devices

    devices.memory_format = lambda device: layout


def no_cuda_graphs() -> None:
    import torch

    compile_function = torch.compile

    def without(function, *, options: dict, **keywords):
        return compile_function(function, options=options | {"triton.cudagraphs": False}, **keywords)

    torch.compile = without


def no_fused_adam() -> None:
    import torch

    adam = torch.optim.Adam
    torch.optim.Adam = lambda parameters, *, fused, **keywords: adam(parameters, **keywords)


def no_folding() -> None:
    from blurdiff.evaluation import features as own

    own.fold = lambda network: None


def no_cholesky() -> None:
    """As with a covariance that has none."""
    import numpy as np

    def refuse(_):
        raise np.linalg.LinAlgError

    np.linalg.cholesky = refuse
