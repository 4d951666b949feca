"""How much work each job is: images to read, steps to train, networks to evaluate."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blurdiff.config.settings import Settings
from blurdiff.data import sources
from blurdiff.data.lsun_facts import LSUN_IMAGES, lsun_name
from blurdiff.diffusion.samplers import evaluations
from blurdiff.errors import UserError
from blurdiff.plan import counts
from blurdiff.plan.graph import Job
from blurdiff.runtime.files import read_json
from blurdiff.runtime.locks import lock_holder

DIMENSIONS = {"inception": 2048, "efficientnet-lite0": 1280}  # of the features
QUICK = {"all", "table", "drawn_table", "figure", "animation", "audit", "page"}


class Work(NamedTuple):
    """So many units of one kind, of a run's settings, a data set's name or a number of dimensions.

    train (an image through a step), sample (an image through the network once), features, preprocess, synthesize (an
    image), distance (a Fréchet distance).
    """

    kind: str
    of: Any
    amount: float


@dataclass
class Dataset:
    """A data set: its section of the config and the number of its images, None while nobody knows."""

    section: dict
    n_images: int | None
    known_from: str
    n_read: int = 0  # records that an unfinished preprocessing has done
    holder: str | None = None  # the process that is at it


@dataclass
class Facts:
    """What work depends on: the config, its runs' settings and the iterations that are left of each, its data sets."""

    config: dict
    runs: dict[tuple[str, str], Settings]
    left: dict[tuple[str, str], int]
    datasets: dict[str, Dataset]


def datasets_of(config: dict, used: Iterable[str], given: dict[str, int]) -> dict[str, Dataset]:
    """The data sets of a config's runs. `given` are numbers of images, by name, "" for all that are not here."""
    used = list(dict.fromkeys(used))
    for name in given:
        if name and name not in used:
            raise UserError(f"--n-images: no run has a data set named {name!r}; there is {', '.join(used)}")
    found = {}
    for name in used:
        folder = Path(config["results"], "data", name)
        number, known_from = _count(config["datasets"][name], folder / "manifest.json", given.get(name, given.get("")))
        limit = config["datasets"][name]["max_images"]
        number = min(number, limit) if number and limit else number
        found[name] = Dataset(config["datasets"][name], number, known_from, *read_already(folder / "images.npy"))
    return found


def _count(section: dict, manifest: Path, given: int | None) -> tuple[int | None, str]:
    """(number of images, how it is known)."""
    if given is not None:
        return given, "--n-images"
    name, path = sources.source_of(section)
    if sources.SOURCES[name].drawn:
        return section["n_images"], "synthetic"
    if sources.SOURCES[name].is_there(path):
        with closing(sources.open_reader(name, path)) as reader:
            return reader.identify()["entries"], path
    if lsun_name(path) in LSUN_IMAGES:
        return LSUN_IMAGES[lsun_name(path)], f"{path} is not there yet; LSUN's number"
    try:
        return int(read_json(manifest)["n_used"]), str(manifest)
    except (UserError, KeyError, TypeError, ValueError):
        return None, f"{path} is not there; --n-images tells how many images"


def read_already(images: Path) -> tuple[int, str | None]:
    """(records that an unfinished preprocessing has read, who is at it), from the journal beside its output."""
    folder = images.with_name(f".{images.name}.partial")
    try:
        return int(read_json(folder / "journal.json")["position"]["records"]), lock_holder(folder)
    except (UserError, KeyError, TypeError, ValueError):
        return 0, lock_holder(folder)


def work_of(job: Job, facts: Facts) -> list[Work]:
    """The work of a job that has to run; none for rules that WORK does not know."""
    return WORK[job.rule](facts, **job.wildcards) if job.rule in WORK and not job.done else []


def flops_of_work(work: Work, resolution: int) -> int:
    """The operations of networks in it; of everything else, 0."""
    if work.kind == "features":
        return int(work.amount * counts.feature_flops(work.of, resolution))
    if work.kind not in ("train", "sample"):
        return 0
    network = counts.count_network(resolution, work.of["network"])
    return int(work.amount * (network.training if work.kind == "train" else network.forward))


def synthesize(facts: Facts, dataset: str) -> list[Work]:
    return [Work("synthesize", dataset, facts.datasets[dataset].section["n_images"])]


def preprocess(facts: Facts, dataset: str, part: str | None = None) -> list[Work]:
    found = facts.datasets[dataset]
    total, read = found.n_images or 0, found.n_read
    if part is not None:
        total //= found.section["parts"]
        read, _ = read_already(Path(facts.config["results"], "data", dataset, "parts", f"{part}.npy"))
    return [Work("preprocess", dataset, max(0, total - read))]


def train(facts: Facts, run: str, seed: str) -> list[Work]:
    settings = facts.runs[run, seed]
    return [Work("train", settings, facts.left[run, seed] * settings["training"]["batch_size"])]


def sample(facts: Facts, run: str, seed: str, shard: str) -> list[Work]:
    settings, sampling = facts.runs[run, seed], facts.runs[run, seed]["sampling"]
    return [Work("sample", settings, sampling["shard_size"] * evaluations(sampling["sampler"], sampling["n_steps"]))]


def reference(facts: Facts, dataset: str) -> list[Work]:
    n, evaluation = facts.datasets[dataset].n_images or 0, facts.config["evaluation"]
    floors = evaluation["floor_repeats"] if n >= 2 * facts.config["sampling"]["n_samples"] else 0
    return compare(facts, n, floors)


def evaluate(facts: Facts, run: str, seed: str) -> list[Work]:
    return compare(facts, facts.config["sampling"]["n_samples"], 1)


def compare(facts: Facts, n_images: int, n_distances: int) -> list[Work]:
    network = facts.config["evaluation"]["network"]
    return [Work("features", network, n_images), Work("distance", DIMENSIONS[network], n_distances)]


def sampler_study(facts: Facts, run: str, seed: str) -> list[Work]:
    study, settings = facts.config["sampler_study"], facts.runs[run, seed]
    chosen = [
        evaluations(choice.get("sampler", settings["sampling"]["sampler"]), n)
        for choice in study["samplers"]
        for n in study["n_steps"]
    ]
    drawn = Work("sample", settings, sum(chosen) * study["n_samples"])
    return [drawn, *compare(facts, len(chosen) * study["n_samples"], len(chosen))]


WORK: dict[str, Callable[..., list[Work]]] = {
    "synthesize": synthesize,
    "preprocess": preprocess,
    "preprocess_part": preprocess,
    "train": train,
    "sample": sample,
    "reference": reference,
    "evaluate": evaluate,
    "sampler_study": sampler_study,
    **dict.fromkeys(("join_parts", "gather"), lambda facts, **wildcards: []),  # seconds
}
