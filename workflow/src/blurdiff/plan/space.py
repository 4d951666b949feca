"""Disk and memory that a config needs, in bytes, from shapes and types alone."""

import os
import shutil
from pathlib import Path

from blurdiff.data.lsun_facts import LSUN_ARCHIVES, lsun_name
from blurdiff.plan import counts
from blurdiff.plan.jobs import DIMENSIONS, Dataset, how_many_shards, run_folder, trained_runs
from blurdiff.plan.progress import Progress

PAGE = 4096  # of an LMDB: a record that is not small has pages of its own


def disk(config: dict, datasets: dict[str, Dataset], models: list[Progress]) -> dict[str, dict]:
    """What is written, by place: {"bytes": in the end, "there": of that already}.

    Files' headers and everything below a megabyte (tables, figures, logs) are left out; a store on another file system
    than the results costs a second copy of each model.
    """
    results, pixels = Path(config["results"]), 3 * config["resolution"] ** 2
    rows: dict[str, dict] = {}

    def add(what: str, n_bytes: float, paths: list[Path]) -> None:
        there = sum(size_of(path) for path in paths)
        row = rows.setdefault(what, {"bytes": 0, "there": 0})
        row["bytes"] += max(int(n_bytes), there)
        row["there"] += there

    for name, dataset in datasets.items():
        folder = Path(dataset.section["lmdb"] or results / "data" / f"{name}_lmdb")
        scenes = lsun_name(folder)
        if dataset.section["synthetic"]:
            add("LMDBs", drawn_bytes(dataset.section), [folder])
        elif scenes in LSUN_ARCHIVES and not (folder / "data.mdb").is_file():
            add("LMDBs", LSUN_ARCHIVES[scenes][0], [])
            add(
                "their zips, until they are unpacked",
                LSUN_ARCHIVES[scenes][0],
                [folder.with_name(f"{folder.name}.zip")],
            )
        add("images.npy", pixels * (dataset.n_images or 0), [results / "data" / name / "images.npy"])
    by_run = {f"{settings['run']} seed {settings['seed']}": settings for settings in trained_runs(config)}
    to_come = [0]
    for model in models:
        n, training = parameters_of(by_run[model.runs[0]]), by_run[model.runs[0]]["training"]
        folder = Path(config["store"]) / "models" / (model.fingerprint or "none")
        add("store: models", 4 * n, list(folder.glob("model-*")))
        # Of network, average and Adam's two moments. The last two are kept, and a third is there while it is written.
        kept = 0 if model.finished else min(2, -(-model.iterations // training["checkpoint_every"]))
        add("store: checkpoints", kept * 16 * n, list(folder.glob("checkpoint-*")))
        to_come.append(0 if model.finished else 16 * n)
    if max(to_come):
        add("store: one checkpoint while it is written", max(to_come), [])
    dimension = DIMENSIONS[config["evaluation"]["network"]]
    sampling = config["sampling"]
    for settings in trained_runs(config):
        folder, n_shards = run_folder(config, settings), how_many_shards(config)
        strips = 2 * 4 * pixels * sampling["n_snapshots"] * sampling["n_strip"]
        shards = [folder / "shards" / f"{shard}.npz" for shard in range(n_shards)]
        add("samples", n_shards * (sampling["shard_size"] * pixels + strips), shards)
        add("samples", sampling["n_samples"] * pixels + strips, [folder / "samples.npz", folder / "strips.npz"])
        add("statistics", 8 * dimension * (dimension + 1), [folder / "statistics.npz"])
    for name in dict.fromkeys(settings["dataset"] for settings in trained_runs(config)):
        kept = min(sampling["n_samples"], datasets[name].n_images or 0)
        n_bytes = 8 * dimension * (dimension + 1) + 4 * kept * dimension
        add("statistics", n_bytes, [results / "reference" / name / "statistics.npz"])
    return rows


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files; 0 when it is not there."""
    try:
        return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def free_space(path: str | Path) -> int:
    """Bytes free where `path` is or will be."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def device_of(path: str | Path) -> int:
    """The number of the file system on which `path` is or will be."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return os.stat(path).st_dev


def drawn_bytes(section: dict) -> float:
    """Size of a synthetic set's LMDB, from its first sixteen images."""
    from blurdiff.data.scenes import draw_files

    values = draw_files(section["synthetic"], section["seed"], range(16))
    return section["n_images"] * sum(PAGE * -(-(len(value) + 16) // PAGE) for value in values) / len(values)


def parameters_of(settings: dict) -> int:
    return counts.count_network(settings["resolution"], settings["network"]).parameters


def training_memory(settings: dict) -> dict[str, int]:
    """Bytes that a training of these settings needs on each device, by what they hold."""
    training = settings["training"]
    batch = training["micro_batch_size"] or training["batch_size"] // (training["gpus"] * training["nodes"])
    return counts.training_memory(
        settings["resolution"], settings["network"], batch, training["precision"], training["device"]
    )


def images_on_device(settings: dict, dataset: Dataset) -> int:
    """Bytes of the images that a training may keep on the GPU, beside `training_memory`; 0 on a CPU."""
    training = settings["training"]
    if training["device"] == "cpu" or training["data_on_device"] is False:
        return 0
    return 3 * settings["resolution"] ** 2 * (dataset.n_images or 0)


def evaluation_memory(config: dict, datasets: dict[str, Dataset]) -> int:
    """Bytes of the largest arrays of the stages reference and evaluate: features, their float64 copies, covariances."""
    d, n = DIMENSIONS[config["evaluation"]["network"]], config["sampling"]["n_samples"]
    covariances = 6 * 8 * d * d
    largest = max((dataset.n_images or 0 for dataset in datasets.values()), default=0)
    reference = config["evaluation"]["floor_repeats"] * min(n, largest) * d * 4 + 2 * 8 * min(n, largest) * d
    return covariances + max(reference, n * d * (4 + 8 + 8))
