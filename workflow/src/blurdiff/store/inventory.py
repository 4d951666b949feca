"""What a store holds. Reads no tensor, so that it needs no torch."""

import contextlib
import fcntl
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blurdiff.config.schema import completed as complete
from blurdiff.config.schema import config_schema
from blurdiff.errors import UserError
from blurdiff.runtime.files import read_json
from blurdiff.runtime.locks import same_file, sign_lock
from blurdiff.store import store

REMOVING = ".removing-"  # a model that is being deleted has this before its name
HEADLINE = ("family", "f_type", "f_N", "direction", "objective")
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
        model.parameters = sum(_product(shape) for shape in shapes)
        with contextlib.suppress(ValueError, AttributeError):
            model.label = json.loads(header.get("__metadata__", {}).get("settings", "{}")).get("label")
    for path in [*trained.values(), *histories.values(), *checkpoints.values()] if verify else ():
        with contextlib.suppress(FileNotFoundError):
            if path.name not in model.damaged and not store.intact(path):
                model.damaged.append(path.name)
    return model


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


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


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock without waiting for it; gives False when somebody else has it, or the folder is gone."""
    try:
        file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        sign_lock(file)
        yield same_file(file, folder / "lock")


def total_bytes(files: dict[Path, os.stat_result]) -> int:
    """Bytes of these files."""
    return sum(status.st_size for status in files.values())


def freed_bytes(files: dict[Path, os.stat_result]) -> int:
    """Bytes that deleting these files gives back."""
    return sum(status.st_size for status in files.values() if status.st_nlink == 1)


def settings_of(value: dict) -> dict[str, object]:
    """What of a model's settings is not the default, and in any case its blur schedule, by key."""
    properties = config_schema()["properties"]
    chosen = {"f_type": value.get("process", {}).get("f_type", "none")}
    for section in ("process", "network", "training"):
        default = complete({}, properties[section], "defaults")
        part = value.get(section, {})
        chosen |= {key: item for key, item in part.items() if key in default and item != default[key]}
    return chosen


def describe(models: list[StoredModel]) -> tuple[dict, list[str]]:
    """(what all models have in common beyond the defaults, for each in words what it is otherwise)."""
    settings = [settings_of(model.value) for model in models]
    common = dict(settings[0]) if settings else {}
    for other in settings[1:]:
        common = {key: value for key, value in common.items() if key in other and other[key] == value}
    common = {key: value for key, value in common.items() if key not in HEADLINE}
    texts = []
    for own in settings:
        words = [str(own.get("family", "no blur" if own["f_type"] == "none" else own["f_type"]))]
        words += [f"f_N {own['f_N']:g}"] if "f_N" in own else []
        words += [str(own[key]) for key in ("direction", "objective") if key in own]
        words += [f"{key} {show(own[key])}" for key in own if key not in common and key not in HEADLINE]
        texts.append(", ".join(words))
    return common, texts


def show(value: object) -> str:
    """A setting's value in few words; a table's digest is cut."""
    if isinstance(value, float):
        return f"{value:g}"
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else str(value)
