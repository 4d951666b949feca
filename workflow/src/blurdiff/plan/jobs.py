"""The jobs of a config, as the rules of the workflow define them, and how much work each is."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from blurdiff.config.checks import lsun_name
from blurdiff.config.runs import is_forward_only, resolve_runs
from blurdiff.errors import UserError
from blurdiff.runtime.files import read_json
from blurdiff.runtime.locks import lock_holder
from blurdiff.store import listing, store

# Images in LSUN's training sets that the paper uses. (The zips' sizes stand in checks.)
LSUN_IMAGES = {"bedroom_train": 3_033_042, "church_outdoor_train": 126_227}
DIMENSIONS = {"inception": 2048, "efficientnet-lite0": 1280}  # of the features
DATA_WORKERS = 16  # `threads` of the rules synthesize and preprocess
ADAPTIVE_EVALUATIONS = 100  # of the network by ode-adaptive, whose number depends on the model; a guess


class Work(NamedTuple):
    """So many units of one kind. A unit costs the same in all jobs of a kind: `of` says what it is measured on.

    train (an image through a step), sample (an image through the network and a step of the sampler), features,
    preprocess, synthesize (an image), distance (a Fréchet distance).
    """

    kind: str
    of: str  # the number of the run in trained_runs, the name of the data set, or the dimension of the features
    amount: float


@dataclass
class Job:
    """One job. What it is made from stands before it in the list of jobs."""

    rule: str
    name: str
    outputs: list[Path]
    sources: list["Job"]
    device: str = "cpu"
    threads: int = 1
    gpus: int = 0
    work: list[Work] = field(default_factory=list)
    torch: bool = True  # whether its process loads PyTorch, which takes seconds
    done: bool = False


@dataclass
class Dataset:
    """A data set: its section of the config and the number of its images, None while nobody knows."""

    name: str
    section: dict
    n_images: int | None
    how_known: str
    n_read: int = 0  # records that an unfinished preprocessing has done
    holder: str | None = None  # the process that is at it


def datasets_of(config: dict, given: dict[str, int]) -> dict[str, Dataset]:
    """The data sets of a config's runs. `given` are numbers of images, by name, "" for all others."""
    used = dict.fromkeys(run["dataset"] for run in config["runs"])
    for name in given:
        if name and name not in used:
            raise UserError(f"--n-images: no run has a data set named {name!r}; there is {', '.join(used)}")
    found = {name: _dataset(config, name, given.get(name, given.get(""))) for name in used}
    for name, dataset in found.items():
        dataset.n_read, dataset.holder = read_already(Path(config["results"]) / "data" / name / "images.npy")
    return found


def read_already(images: Path) -> tuple[int, str | None]:
    """(records that an unfinished preprocessing has read, who is at it), from the journal beside its output."""
    folder = images.with_name(f".{images.name}.partial")
    try:
        return int(read_json(folder / "journal.json")["position"]["records"]), lock_holder(folder)
    except (UserError, KeyError, TypeError, ValueError):
        return 0, lock_holder(folder)


def _dataset(config: dict, name: str, given: int | None) -> Dataset:
    section = config["datasets"][name]
    folder = Path(section["lmdb"] or "")
    manifest = Path(config["results"]) / "data" / name / "manifest.json"
    scenes = lsun_name(folder)
    limit = section["max_images"] or 10**12
    if given is not None:
        return Dataset(name, section, min(given, limit), "--n-images")
    if section["synthetic"]:
        return Dataset(name, section, min(section["n_images"], limit), "synthetic")
    if (folder / "data.mdb").is_file():
        from blurdiff.data import lsun

        with lsun.open_lmdb(folder) as environment:
            return Dataset(name, section, min(lsun.count_entries(environment), limit), str(folder))
    if scenes in LSUN_IMAGES:
        return Dataset(name, section, min(LSUN_IMAGES[scenes], limit), f"{folder} is not there yet; LSUN's number")
    try:
        return Dataset(name, section, int(read_json(manifest)["n_used"]), str(manifest))
    except (UserError, KeyError, TypeError, ValueError):
        return Dataset(name, section, None, f"{folder} is not there; --n-images tells how many images")


def trained_runs(config: dict) -> list[dict]:
    """The resolved settings of the runs that are trained, one a run and seed."""
    shown = {run["name"] for run in config["runs"] if is_forward_only(config, run)}
    return [settings for settings in resolve_runs(config) if settings["run"] not in shown]


def evaluations(sampler: str, n_steps: int) -> int:
    """How often a sampler evaluates the network for each image."""
    return {"ode-heun": 2 * n_steps - 1, "ode-adaptive": ADAPTIVE_EVALUATIONS}.get(sampler, n_steps)


def run_folder(config: dict, settings: dict) -> Path:
    """Where the workflow puts what it makes of a run and seed."""
    return Path(config["results"]) / "runs" / settings["run"] / f"seed{settings['seed']}"


def how_many_shards(config: dict) -> int:
    return -(-config["sampling"]["n_samples"] // config["sampling"]["shard_size"])


def jobs_of(config: dict, datasets: dict[str, Dataset]) -> list[Job]:
    """All jobs but those that draw figures and tables and the audit's (seconds each), sources first."""
    results, evaluation = Path(config["results"]), config["evaluation"]
    jobs: list[Job] = []

    def add(*arguments, **options) -> Job:
        jobs.append(Job(*arguments, **options))
        return jobs[-1]

    images, references = {}, {}
    downloads: dict[str, Job] = {}
    distance = str(DIMENSIONS[evaluation["network"]])
    on_evaluation = where(evaluation)
    for name, dataset in datasets.items():
        section, sources, made = dataset.section, [], results / "data" / name
        if section["synthetic"]:
            work = [Work("synthesize", name, section["n_images"])]
            lmdb = [results / "data" / f"{name}_lmdb" / "data.mdb"]
            sources = [add("synthesize", name, lmdb, [], threads=DATA_WORKERS, work=work, torch=False)]
        elif section["download"] and (section["lmdb"] in downloads or not Path(section["lmdb"], "data.mdb").exists()):
            if section["lmdb"] not in downloads:
                lmdb = [Path(section["lmdb"], "data.mdb")]
                downloads[section["lmdb"]] = add(f"download_{name}", name, lmdb, [], torch=False)
            sources = [downloads[section["lmdb"]]]
        n_parts = section["parts"]
        if n_parts > 1:
            parts = []
            for part in range(n_parts):
                outputs = [made / "parts" / f"{part}.{suffix}" for suffix in ("npy", "json")]
                left = max(0, (dataset.n_images or 0) // n_parts - read_already(outputs[0])[0])
                options = {"threads": DATA_WORKERS, "work": [Work("preprocess", name, left)], "torch": False}
                parts.append(add("preprocess_part", f"{name} part {part}", outputs, sources, **options))
            sources, work = parts, []
        else:
            work = [Work("preprocess", name, max(0, (dataset.n_images or 0) - dataset.n_read))]
        outputs = [made / file for file in ("images.npy", "manifest.json")]
        rule, threads = ("join_parts", 1) if n_parts > 1 else ("preprocess", DATA_WORKERS)
        images[name] = add(rule, name, outputs, sources, threads=threads, work=work, torch=False)
        if n_parts > 1 and all(path.exists() for path in outputs):
            for part in parts:  # temporary, deleted when they are joined
                part.outputs = []
    for name in dict.fromkeys(settings["dataset"] for settings in trained_runs(config)):
        n = datasets[name].n_images or 0
        floors = evaluation["floor_repeats"] if n >= 2 * config["sampling"]["n_samples"] else 0
        work = [Work("features", "", n), Work("distance", distance, floors)]
        outputs = [results / "reference" / name / "statistics.npz"]
        references[name] = add("reference", name, outputs, [images[name]], **on_evaluation, work=work)
    for number, settings in enumerate(trained_runs(config)):
        dataset = settings["dataset"]
        jobs += _jobs_of_run(config, settings, str(number), images[dataset], references[dataset])
    return jobs


def _jobs_of_run(config: dict, settings: dict, number: str, images: Job, reference: Job) -> Iterator[Job]:
    folder, name = run_folder(config, settings), f"{settings['run']} seed {settings['seed']}"
    training, sampling, evaluation = settings["training"], settings["sampling"], settings["evaluation"]
    distance = str(DIMENSIONS[evaluation["network"]])
    outputs = [folder / "model.safetensors", folder / "history.csv"]
    work = [Work("train", number, training["iterations"] * training["batch_size"])]
    train = Job("train", name, outputs, [images], **where(training), work=work)
    yield train
    shards = []
    work = [Work("sample", number, sampling["shard_size"] * evaluations(sampling["sampler"], sampling["n_steps"]))]
    for shard in range(how_many_shards(config)):
        outputs = [folder / "shards" / f"{shard}.npz"]
        shards.append(Job("sample", f"{name} shard {shard}", outputs, [train], **where(sampling), work=work))
    yield from shards
    outputs = [folder / "samples.npz", folder / "strips.npz"]
    gather = Job("gather", name, outputs, shards, torch=False)
    yield gather
    work = [Work("features", "", sampling["n_samples"]), Work("distance", distance, 1)]
    outputs = [folder / "fid.json", folder / "statistics.npz"]
    yield Job("evaluate", name, outputs, [gather, reference], **where(evaluation), work=work)
    study = config["sampler_study"]
    if settings["run"] in study["runs"] and settings["seed"] == config["seeds"][0]:
        per_image = sum(
            evaluations(choice.get("sampler", sampling["sampler"]), n)
            for choice in study["samplers"]
            for n in study["n_steps"]
        )
        combinations = len(study["samplers"]) * len(study["n_steps"])
        work = [
            Work("sample", number, per_image * study["n_samples"]),
            Work("features", "", combinations * study["n_samples"]),
            Work("distance", distance, combinations),
        ]
        outputs = [folder / "samplers.csv"]
        yield Job("sampler_study", name, outputs, [train, reference], **where(sampling), work=work)


def where(section: dict) -> dict:
    """Device, threads and number of GPUs of a section's jobs."""
    gpus = section.get("gpus", 1) * section.get("nodes", 1) if section["device"] == "cuda" else 0
    return {"device": section["device"], "threads": section["threads"], "gpus": gpus}


def mark_done(jobs: list[Job], trained: dict[int, dict]) -> None:
    """Find out which jobs' outputs are there, whole: no older than what they are made from, which is done as well.

    Of a training, given with its settings by id in `trained`, the model itself says what it was trained for. Of the
    others Snakemake knows more: it compares the settings with those that made a file.
    """
    made: dict[int, float] = {}
    for job in jobs:
        try:
            times = [os.stat(path).st_mtime for path in job.outputs] or [0.0]
        except OSError:
            continue
        current = all(id(source) in made and made[id(source)] <= min(times) for source in job.sources)
        if current and (id(job) not in trained or is_model_of(job.outputs[0], trained[id(job)])):
            made[id(job)], job.done = max(times), True


def is_model_of(path: Path, settings: dict) -> bool:
    """Whether a model.safetensors says that it was trained with these settings, so far as they decide the weights."""
    header = listing.safetensors_header(path) or {}
    try:
        own = json.loads(header["__metadata__"]["settings"])
        pairs = [(own[key], settings[key]) for key in ("seed", "resolution", "process", "network")]
        keys = settings["training"].keys() - (set(store.NOT_FINGERPRINTED) - {"iterations"})
        pairs += [(own["training"][key], settings["training"][key]) for key in keys]
    except (KeyError, TypeError, ValueError):
        return False
    return all(a == b for a, b in pairs)
