"""What a store holds, and which of it the runs of a config need. Reads no tensor, so that it needs no torch."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import stat
import struct
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from blurdiff.config.runs import is_forward_only, resolve_runs
from blurdiff.config.schema import complete, config_schema
from blurdiff.errors import UserError
from blurdiff.runtime import text
from blurdiff.runtime.files import read_json
from blurdiff.store import store

REMOVING = ".removing-"  # a model that is being deleted has this before its name
HEADLINE = ("family", "f_type", "f_N", "direction", "objective")  # what names a model in a table
RIGHT = "seed,pixels,parameters,iterations,checkpoint,size"
NO_TABLE = ("blur", "heat", None)  # values of process.power and process.f_table that are not the path of a file
CHOICES = ("process", "network", "training")  # the sections of the settings that determine the weights
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
        header = safetensors_header(path)
        if header is None:
            model.damaged.append(path.name)
            continue
        shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
        model.parameters = sum(map(math.prod, shapes))
        with contextlib.suppress(ValueError, AttributeError):
            model.label = json.loads(header.get("__metadata__", {}).get("settings", "{}")).get("label")
    for path in [*trained.values(), *histories.values(), *checkpoints.values()] if verify else ():
        with contextlib.suppress(FileNotFoundError):
            if path.name not in model.damaged and not store.intact(path):
                model.damaged.append(path.name)
    return model


def safetensors_header(path: Path) -> dict | None:
    """The JSON header of a safetensors file; None when it is damaged or the file is not as long as it says."""
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(min(length, 100_000_000)))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            return header if os.fstat(file.fileno()).st_size == 8 + length + max(ends, default=0) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def lock_holder(folder: Path) -> str | None:
    """Who holds the folder's lock ("process 12 on host since …"), None when nobody does.

    The lock is tried for a moment only, and shared, so that two who look do not see one another.
    """
    try:
        file = open(folder / "lock", encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return file.read().strip() or "another process"
    return None


def total_bytes(files: dict[Path, os.stat_result]) -> int:
    """Bytes of these files."""
    return sum(status.st_size for status in files.values())


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
    forward_only = {run["name"] for run in config["runs"] if is_forward_only(config, run)}
    digests = {dataset: images_digest(config, dataset) for dataset in config["datasets"]}
    needs = []
    for settings in resolve_runs(config):
        if settings["run"] in forward_only:
            continue
        digest = digests[settings["dataset"]]
        unknown = () if digest else ("images_sha256",)
        process = dict(settings["process"])
        for key in ("power", "f_table"):
            if process[key] not in NO_TABLE and not Path(process[key]).is_file():
                process[key] = None
                unknown += (f"process.{key}",)
        value = store.fingerprinted({**settings, "process": process}, digest or "")
        iterations = settings["training"]["iterations"]
        words = [settings[key] for key in ("run", "dataset", "label", "seed")]
        needs.append(Need(name, *words, iterations, value, unknown))
    return needs


@cache
def _first_key(kind: str, seed: int) -> bytes:
    """The key of a synthetic set's first image."""
    from blurdiff.data.scenes import draw_files

    return hashlib.sha1(draw_files(kind, seed, range(1))[0]).hexdigest().encode()


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
    source = part["lmdb"] or str(folder / f"{dataset}_lmdb")
    expected = {"resolution": config["resolution"], "max_images": part["max_images"]}
    if part["synthetic"]:
        expected["n_keys"] = part["n_images"]
    if not isinstance(manifest, dict) or any(manifest.get(key) != value for key, value in expected.items()):
        return None
    if os.path.normpath(str(manifest.get("source"))) != os.path.normpath(source):
        return None
    data = Path(source) / "data.mdb"
    if data.is_file() and data.stat().st_mtime > path.stat().st_mtime:
        return None
    if part["synthetic"] and not _is_drawn(Path(source), part):
        return None
    return manifest.get("sha256")


def _is_drawn(source: Path, part: dict) -> bool:
    """Whether a synthetic LMDB is that of the config's kind and seed: it holds the first image that these give."""
    import lmdb

    from blurdiff.data import lsun

    try:
        with lsun.open_lmdb(source) as environment, environment.begin() as transaction:
            return transaction.get(_first_key(part["synthetic"], part["seed"])) is not None
    except (UserError, lmdb.Error):
        return False


def settings_of(value: dict) -> dict[str, dict]:
    """Process, network and training of a stored model, with the defaults that its settings.json does not hold."""
    properties = config_schema()["properties"]
    return {part: complete({}, properties[part], "defaults") | value.get(part, {}) for part in CHOICES}


def describe(models: list[StoredModel]) -> tuple[dict, list[str]]:
    """(what all models have in common beyond the defaults, for each in words what it is otherwise)."""
    default = settings_of({})
    chosen = []
    for model in models:
        parts = settings_of(model.value)
        other = {key: item for part in CHOICES for key, item in parts[part].items()
                 if key in default[part] and item != default[part][key]}  # fmt: skip
        chosen.append({"f_type": parts["process"]["f_type"]} | other)
    common = {
        key: item
        for key, item in (chosen[0] if chosen else {}).items()
        if key not in HEADLINE and all(key in other and other[key] == item for other in chosen)
    }
    texts = []
    for own in chosen:
        words = [str(own.get("family", "no blur" if own["f_type"] == "none" else own["f_type"]))]
        words += [f"f_N {own['f_N']:g}"] if "f_N" in own else []
        words += [str(own[key]) for key in ("direction", "objective") if key in own]
        words += [f"{key} {_short(own[key])}" for key in own if key not in common and key not in HEADLINE]
        texts.append(", ".join(words))
    return common, texts


def _short(value: object) -> str:
    """A setting's value in few words; a table's digest is cut."""
    if isinstance(value, float):
        return f"{value:g}"
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else str(value)


def fitting(model: StoredModel, needs: list[Need]) -> list[Need]:
    """The runs that need the model."""
    return [need for need in needs if need.fits(model)]


def absent(contents: Contents, needs: list[Need]) -> list[Need]:
    """The runs that no model of the store fits."""
    return [need for need in needs if not any(need.fits(model) for model in contents.models)]


def record(model: StoredModel, needs: list[Need]) -> dict:
    """All that is shown of a model: an entry of the JSON, and the source of a line of the table."""
    users = fitting(model, needs)
    return {
        "fingerprint": model.fingerprint, "folder": str(model.folder), "label": model.label,
        "settings": model.value, "parameters": model.parameters, "trained": list(model.trained),
        "checkpoints": list(model.checkpoints), "bytes": model.size, "bytes_freed": model.freed,
        "state": model.state, "holder": model.holder, "damaged": model.damaged, "unknown_files": model.unknown,
        "needed_by": [need.record for need in users],
    }  # fmt: skip


def table_of(models: list[StoredModel], needs: list[Need] | None) -> str:
    """A line for each model, below a line with what all have in common; with `needs` also which runs need it."""
    common, texts = describe(models)
    rows = [["fingerprint", "data set", "what", *RIGHT.split(","), "state"] + ["needed by"] * (needs is not None)]
    for model, what in zip(models, texts, strict=True):
        one, users = record(model, needs or []), fitting(model, needs or [])
        label = one["label"] or next((need.label for need in users if not need.unknown), None)
        top = {key: entry.get("default") for key, entry in config_schema()["properties"].items()} | one["settings"]
        also = f"; also holds {', '.join(one['unknown_files'])}" if one["unknown_files"] else ""
        row = [one["fingerprint"], label or f"images {str(top.get('images_sha256'))[:8]}…", what, top.get("seed"),
               top["resolution"], f"{one['parameters']:,}" if one["parameters"] else "-",
               ", ".join(map(str, one["trained"])) or "-", max(one["checkpoints"], default="-"),
               text.size(one["bytes"]), one["state"] + also]  # fmt: skip
        if needs is not None:
            row.append(", ".join(dict.fromkeys(need.name + " (?)" * bool(need.unknown) for need in users)) or "none")
        rows.append(row)
    above = ", ".join(f"{key} {_short(value)}" for key, value in common.items())
    return (f"in all: {above}\n" if above else "") + text.table(rows, RIGHT)


def print_list(contents: Contents, needs: list[Need]) -> None:
    """The store, for people."""
    print(f"{contents.path}: {count(len(contents.models))}, {text.size(sum(m.size for m in contents.models))}")
    if contents.models:
        print(table_of(contents.models, needs or None))
    for need in absent(contents, needs):
        print(f"not in the store: {need.name} of {need.config} ({need.iterations:,} iterations)")
    print_unknown(contents, needs)
    for path, why in contents.unknown:
        print(f"not recognised: {path} {why}")
    for path in contents.leftovers:
        print(f"left by an interrupted prune: {path}, {text.size(folder_size(path))}; the next prune removes it")


def print_unknown(contents: Contents, needs: list[Need]) -> None:
    """Say of which runs the fingerprint is unknown, and why."""
    for need in needs:
        if need.unknown and any(need.fits(model) for model in contents.models):
            what = ", ".join("the images" if key == "images_sha256" else key for key in need.unknown)
            why = f" (no manifest of {need.dataset} that fits {need.config})" * ("images_sha256" in need.unknown)
            print(f"(?) {need.name}: {what} unknown{why}; every model that is otherwise the same counts as needed")


def as_json(contents: Contents, needs: list[Need]) -> dict:
    """The store, for programs."""
    return {
        "store": str(contents.path),
        "models": [record(model, needs) for model in contents.models],
        "absent": [need.record for need in absent(contents, needs)],
        "not_recognised": [{"path": str(path), "why": why} for path, why in contents.unknown],
        "leftovers": [str(path) for path in contents.leftovers],
    }


def folder_size(path: Path) -> int:
    """Bytes of all files below."""
    return sum(file.lstat().st_size for file in Path(path).rglob("*") if not file.is_dir())


def count(n: int) -> str:
    """`1 model`, `2 models`."""
    return f"{n:,} model{'s' * (n != 1)}"
