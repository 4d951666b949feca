"""What a store holds, and which of it the runs of a config need. Reads no tensor, so that it needs no torch."""

import contextlib
import json
import math
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import safetensors

from blurdiff.config.keys import files_of
from blurdiff.config.made import settings_in
from blurdiff.config.runs import trained_runs
from blurdiff.config.schema import config_schema
from blurdiff.config.settings import ProcessConfig, with_keys
from blurdiff.data import sources
from blurdiff.errors import UserError
from blurdiff.runtime.files import read_json
from blurdiff.runtime.locks import lock_holder
from blurdiff.store import store

REMOVING = ".removing-"  # a model that is being deleted has this before its name
NO_TABLE = ("blur", "heat", None)  # values of process.power and process.f_table that are not the path of a file
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_DIGEST = rf"[0-9a-f]{{{store.DIGEST_LENGTH}}}"
_KNOWN = re.compile(
    rf"settings\.json|lock|(checkpoint-\d+-{_DIGEST}\.pt)|(model-\d+-{_DIGEST}\.safetensors)|(history-\d+-{_DIGEST}\.csv)"
    r"|\.(settings|checkpoint-\d+|model-\d+|history-\d+)\.[a-z0-9_]{8}\.(json|pt|safetensors|csv)"
)


@dataclass
class StoredModel:
    """One model's folder in a store. `trained` and `checkpoints` are iterations by file, ascending."""

    folder: Path
    value: dict  # what was fingerprinted, see store.fingerprinted
    trained: dict[int, Path]
    checkpoints: dict[int, Path]
    files: dict[Path, os.stat_result]
    unknown: list[str]  # names of files that no version of blurdiff writes
    holder: str | None  # who trains it now
    label: str | None = None  # of the data set, as a finished model remembers it
    parameters: int | None = None
    damaged: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return self.folder.name

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return total_bytes(self.files)

    @property
    def freed(self) -> int:
        """Bytes that deleting it gives back: those of files that have no other hard link, in results for example."""
        return freed_bytes(self.files)

    @property
    def state(self) -> str:
        """In words: damaged, being trained, complete, or partial."""
        if self.damaged:
            return f"damaged: {', '.join(self.damaged)}"
        if self.holder:
            return f"being trained by {self.holder}"
        longest, newest = max(self.trained, default=0), max(self.checkpoints, default=0)
        if not longest:
            return "partial"
        return "complete" if newest <= longest else "complete, and a longer training begun"


@dataclass
class Contents:
    """A store: its models, what is there beside them, and what an interrupted deletion left."""

    path: Path
    models: list[StoredModel]
    unknown: list[tuple[Path, str]]  # what is not recognised, and why
    leftovers: list[Path]


def read_store(path: str | Path, verify: bool = False) -> Contents:
    """All that a store holds; with `verify` every file's content is compared with the digest in its name.

    Raises UserError when there is no such store or it cannot be read.
    """
    models = Path(path) / "models"
    try:
        entries = sorted(models.iterdir())
    except FileNotFoundError as error:
        text = "training makes it; is this the folder in which Snakemake runs? --store names another"
        raise UserError(f"{path}: no store is there ({text})") from error
    except OSError as error:
        raise UserError(f"cannot read {models}: {error.strerror}") from error
    contents = Contents(Path(path), [], [], [])
    for entry in entries:
        if entry.name.startswith(REMOVING):
            contents.leftovers.append(entry)
            continue
        found = read_model(entry, verify)
        if isinstance(found, StoredModel):
            contents.models.append(found)
        else:
            contents.unknown.append((entry, found))
    return contents


def read_model(folder: Path, verify: bool = False) -> StoredModel | str:
    """The model in `folder`, or why that is none."""
    if not folder.is_dir() or folder.is_symlink() or not _FINGERPRINT.fullmatch(folder.name):
        return "is no model's folder"
    try:
        value = read_json(folder / "settings.json")
    except UserError:
        return "has no readable settings.json"
    if not isinstance(value, dict) or store.fingerprint(value) != folder.name:
        return "has a settings.json that its name does not fit"
    if not isinstance(value.get("format"), int) or value["format"] > store.FORMAT:
        return f"is of format {value.get('format')}, which this version does not know"
    files, unknown = {}, []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # a trainer has replaced it meanwhile
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and _KNOWN.fullmatch(path.name):
                files[path] = status
            else:
                unknown.append(path.name)
    trained, histories = store.find(folder, "model", ".safetensors"), store.find(folder, "history", ".csv")
    checkpoints = store.find(folder, "checkpoint", ".pt")
    model = StoredModel(folder, value, trained, checkpoints, files, unknown, lock_holder(folder))
    for iteration, path in list(trained.items()):
        if iteration not in histories:  # the history is written first: a model without it was tampered with
            model.damaged.append(f"history of iteration {iteration} is missing")
        header = header_of(path)
        if header:
            model.parameters, model.label = header
        else:
            model.damaged.append(path.name)
    for path in [*trained.values(), *histories.values(), *checkpoints.values()] if verify else ():
        with contextlib.suppress(FileNotFoundError):
            if path.name not in model.damaged and not store.intact(path):
                model.damaged.append(path.name)
    return model


def header_of(path: Path) -> tuple[int, str | None] | None:
    """(parameters, label of the data set) of a safetensors file; None when it is damaged, or longer or shorter than its
    header says."""
    try:
        with safetensors.safe_open(path, "np") as file:
            settings = json.loads((file.metadata() or {}).get("settings", "{}"))
            label = settings.get("label") if isinstance(settings, dict) else None
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys()), label  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError):
        return None


def total_bytes(files: dict[Path, os.stat_result]) -> int:
    """Bytes of these files."""
    return sum(status.st_size for status in files.values())


def folder_size(path: Path) -> int:
    """Bytes of all files below."""
    return sum(file.lstat().st_size for file in Path(path).rglob("*") if not file.is_dir())


def freed_bytes(files: dict[Path, os.stat_result]) -> int:
    """Bytes that deleting these files gives back."""
    return sum(status.st_size for status in files.values() if status.st_nlink == 1)


def store_path(given: str | None, configs: dict[str, dict]) -> Path:
    """The store to look at, `given` or that of the configs; says so of a config that has another one.

    Raises UserError when configs name several and none is given.
    """
    stores = {config["store"] for config in configs.values()} or {config_schema()["properties"]["store"]["default"]}
    if not given and len(stores) > 1:
        raise UserError(f"the configs have several stores ({', '.join(sorted(stores))}); choose one by --store")
    path = Path(given or stores.pop())
    for name, config in configs.items():
        if os.path.realpath(config["store"]) != os.path.realpath(path):
            print(f"note: {name} has another store, {config['store']}; what it needs is looked for in {path}",
                  file=sys.stderr)  # fmt: skip
    return path


@dataclass
class Need:
    """A run and seed of a config, as the store sees it. `unknown` names what its fingerprint would need in addition."""

    config: str
    run: str
    dataset: str
    label: str
    seed: int
    iterations: int
    value: dict
    unknown: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.run} seed {self.seed}"

    @property
    def record(self) -> dict:
        """What JSON says of it."""
        return {key: getattr(self, key) for key in ("config", "run", "seed", "iterations", "unknown")}

    def fits(self, model: StoredModel) -> bool:
        """Whether the model is what the run would train; what is unknown may be anything."""
        if not self.unknown:
            return store.fingerprint(self.value) == model.fingerprint
        tables = [key.removeprefix("process.") for key in self.unknown if key.startswith("process.")]
        if any(model.value.get("process", {}).get(key) in NO_TABLE for key in tables):
            return False
        return _without(self.value, self.unknown) == _without(model.value, self.unknown)


def _without(value: dict, keys: tuple[str, ...]) -> dict:
    process = {key: item for key, item in value.get("process", {}).items() if f"process.{key}" not in keys}
    return {key: item for key, item in value.items() if key not in keys} | {"process": process}


def needs_of(config: dict, name: str) -> list[Need]:
    """What the trained runs of a complete config need of a store, in their order."""
    digests = {dataset: images_digest(config, dataset) for dataset in config["datasets"]}
    needs = []
    for settings in trained_runs(config):
        digest = digests[settings["dataset"]]
        unknown: tuple[str, ...] = () if digest else ("images_sha256",)
        for key, path in files_of(settings.process).items():
            if not Path(path).is_file():
                settings = with_keys(settings, "process", **{key: getattr(ProcessConfig, key)})
                unknown += (f"process.{key}",)
        value = store.fingerprinted(settings, digest or "")
        words = (name, settings.run, settings.dataset, settings.label)
        needs.append(Need(*words, settings.seed, settings.training.iterations, value, unknown))
    return needs


def images_digest(config: dict, dataset: str) -> str | None:
    """The SHA-256 of a data set's images, from their manifest; None when that is absent or not of this config.

    A manifest may have been written for an earlier state of the config. Where that can be seen the digest is unknown:
    better a model too many in the store than one too few.
    """
    part = config["datasets"][dataset]
    folder = Path(config["results"]) / "data"
    path = folder / dataset / "manifest.json"
    try:
        manifest = read_json(path)
    except UserError:
        return None
    name, source = sources.source_of(part, str(folder / f"{dataset}_lmdb"))
    expected = {"resolution": config["resolution"], "max_images": part["max_images"], "crop": part["crop"]}
    if part["synthetic"]:
        expected["n_keys"] = part["n_images"]
    if not isinstance(manifest, dict) or any(manifest.get(key) != value for key, value in expected.items()):
        return None
    if os.path.normpath(str(manifest.get("source"))) != os.path.normpath(source):
        return None
    if sources.SOURCES[name].is_there(source):
        try:
            state = {"entries": manifest.get("n_keys"), **sources.SOURCES[name].state(source)}
        except (UserError, OSError):
            return None
        if state["mtime_ns"] > path.stat().st_mtime_ns or state["entries"] != manifest.get("n_keys"):
            return None
    # Beside what was drawn stands what it is. (Of an LMDB that an earlier version drew, nobody knows.)
    drawn = {key: part[key] for key in ("synthetic", "n_images", "seed")}
    if part["synthetic"] and settings_in(Path(source, "data.mdb")) != drawn:
        return None
    return manifest.get("sha256")


def fitting(model: StoredModel, needs: list[Need]) -> list[Need]:
    """The runs that need the model."""
    return [need for need in needs if need.fits(model)]


def absent(contents: Contents, needs: list[Need]) -> list[Need]:
    """The runs that no model of the store fits."""
    return [need for need in needs if not any(need.fits(model) for model in contents.models)]
