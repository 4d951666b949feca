"""Disk and memory that a config needs, in bytes, from shapes and types alone."""

import os
import shutil
from pathlib import Path

from blurdiff.data import sources
from blurdiff.data.lsun_facts import LSUN_ARCHIVES, lsun_name
from blurdiff.data.scenes import draw_files
from blurdiff.plan import counts
from blurdiff.plan.progress import Progress
from blurdiff.plan.work import DIMENSIONS, Facts

PAGE = 4096  # of an LMDB: a record that is not small has pages of its own


def disk(facts: Facts, models: list[Progress]) -> dict[str, dict]:
    """What is written, by kind: {"bytes": in the end, "there": of that already}.

    Files' headers and everything below a megabyte (tables, figures, logs) are left out; a store on another file system
    than the results costs a second copy of each model, and so does every run but the first of those that share one.
    """
    config, rows = facts.config, dict[str, dict]()
    results, pixels, sampling = Path(config["results"]), 3 * config["resolution"] ** 2, config["sampling"]

    def add(what: str, n_bytes: float, paths: list[Path]) -> None:
        there = sum(map(size_of, paths))
        row = rows.setdefault(what, {"bytes": 0, "there": 0})
        row["bytes"] += max(int(n_bytes), there)
        row["there"] += there

    for name, dataset in facts.datasets.items():
        source, path = sources.source_of(dataset.section, str(results / "data" / f"{name}_lmdb"))
        folder = Path(path)
        if sources.SOURCES[source].drawn:
            add("LMDBs", drawn_bytes(dataset.section), [folder])
        elif lsun_name(folder) in LSUN_ARCHIVES and not sources.SOURCES[source].is_there(path):
            zipped, _ = LSUN_ARCHIVES[lsun_name(folder)]
            add("LMDBs", zipped, [])
            add("their zips, until they are unpacked", zipped, [folder.with_name(f"{folder.name}.zip")])
        add("images.npy", pixels * (dataset.n_images or 0), [results / "data" / name / "images.npy"])
    by_run = {f"{run} seed {seed}": settings for (run, seed), settings in facts.runs.items()}
    for model in models:
        settings, folder = by_run[model.runs[0]], Path(config["store"], "models", model.fingerprint or "none")
        n = counts.count_network(settings["resolution"], settings["network"]).parameters
        add("store: models", 4 * n, list(folder.glob("model-*")))
        # Of network, average and Adam's two moments. The last two are kept, and a third is there while it is written.
        kept = 0 if model.finished else min(2, -(-model.iterations // settings["training"]["checkpoint_every"]))
        add("store: checkpoints", kept * 16 * n, list(folder.glob("checkpoint-*")))
        if not model.finished:
            row = rows.setdefault("store: one checkpoint while it is written", {"bytes": 0, "there": 0})
            row["bytes"] = max(row["bytes"], 16 * n)
    dimension, n_shards = (
        DIMENSIONS[config["evaluation"]["network"]],
        -(-sampling["n_samples"] // sampling["shard_size"]),
    )
    moments, strips = 8 * dimension * (dimension + 1), 2 * 4 * pixels * sampling["n_snapshots"] * sampling["n_strip"]
    for run, seed in facts.runs:
        folder = results / "runs" / run / f"seed{seed}"
        shards = [folder / "shards" / f"{shard}.npz" for shard in range(n_shards)]
        add("samples", n_shards * (sampling["shard_size"] * pixels + strips), shards)
        add("samples", sampling["n_samples"] * pixels + strips, [folder / "samples.npz", folder / "strips.npz"])
        add("statistics", moments, [folder / "statistics.npz"])
    for name in dict.fromkeys(settings["dataset"] for settings in facts.runs.values()):
        kept = min(sampling["n_samples"], facts.datasets[name].n_images or 0)
        add("statistics", moments + 4 * kept * dimension, [results / "reference" / name / "statistics.npz"])
    return rows


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files; 0 when it is not there."""
    try:
        return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def drawn_bytes(section: dict) -> float:
    """Size of a synthetic set's LMDB, from its first sixteen images."""
    values = draw_files(section["synthetic"], section["seed"], range(16))
    return section["n_images"] * sum(PAGE * -(-(len(value) + 16) // PAGE) for value in values) / len(values)


def free(config: dict) -> dict[str, int]:
    """Bytes free where results and store are or will be; one entry when they share a file system."""
    found = {}
    for place in (config["store"], config["results"]):
        path = Path(place).absolute()
        while not path.exists():
            path = path.parent
        found[os.stat(path).st_dev] = (str(Path(place)), shutil.disk_usage(path).free)
    return dict(found.values())


def trainings(facts: Facts) -> list[dict]:
    """What trainings need on each device, each distinct kind once: `bytes` by what they hold, and `images` that a GPU
    may keep beside them."""
    found: dict[str, dict] = {}
    for settings in facts.runs.values():
        training, resolution = settings["training"], settings["resolution"]
        batch = training["micro_batch_size"] or training["batch_size"] // (training["gpus"] * training["nodes"])
        entry = {key: training[key] for key in ("device", "precision", "batch_size")}
        kind = repr([settings["network"], batch, entry])
        if kind not in found:
            needed = counts.training_memory(
                resolution, settings["network"], batch, training["precision"], training["device"]
            )
            found[kind] = {**entry, "bytes": needed, "images": 0}
        if training["device"] != "cpu" and training["data_on_device"] is not False:
            images = 3 * resolution**2 * (facts.datasets[settings["dataset"]].n_images or 0)
            found[kind]["images"] = max(images, found[kind]["images"])
    return list(found.values())


def evaluation_memory(facts: Facts) -> int:
    """Bytes of the largest arrays of the stages reference and evaluate: features, their float64 copies, covariances."""
    evaluation, n = facts.config["evaluation"], facts.config["sampling"]["n_samples"]
    d, real = DIMENSIONS[evaluation["network"]], max((d.n_images or 0 for d in facts.datasets.values()), default=0)
    reference = evaluation["floor_repeats"] * min(n, real) * d * 4 + 2 * 8 * min(n, real) * d
    return 6 * 8 * d * d + max(reference, n * d * (4 + 8 + 8))
