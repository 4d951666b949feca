"""The store: trained models, checkpoints and histories, in a folder a fingerprint of the settings that made them.

`STORE/models/FINGERPRINT/` holds settings.json (what was fingerprinted), lock, checkpoint-ITERATION-DIGEST.pt (the last
two), and for every finished length of training model-ITERATION-DIGEST.safetensors and history-ITERATION-DIGEST.csv.
DIGEST is the start of the file's SHA-256: a file that does not match its name is damaged. Snakemake deletes declared
outputs of a job that fails; the store is not declared anywhere, so nothing that was computed is lost.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from blurdiff.config.keys import digests_of, made_by
from blurdiff.config.settings import Settings
from blurdiff.errors import UserError
from blurdiff.runtime.files import atomic_path, sha256_file, write_json
from blurdiff.runtime.locks import same_file, sign_lock, wait_for_lock

FORMAT = 2  # to be raised when the same settings would give other weights
DIGEST_LENGTH = 16


def fingerprinted(settings: Settings, images_sha256: str) -> dict:
    """What determines a run's weights: of each section what differs from the defaults; so a new key orphans nothing.

    Tables count by their content, not by their path. The number of iterations is in the file names instead: a longer
    training goes on from a shorter one, unless the learning rate falls towards the last.
    """
    return {
        "format": FORMAT,
        "images_sha256": images_sha256,
        "resolution": settings.resolution,
        "process": made_by(settings.process) | digests_of(settings.process),
        "network": made_by(settings.network),
        "training": made_by(settings.training, *(() if ends_at_iterations(settings) else ("iterations",))),
        "seed": settings.seed,
    }


def ends_at_iterations(settings: Settings) -> bool:
    """Whether the number of iterations decides the weights on the way there too."""
    return settings.training.learning_rate_schedule != "constant"


def fingerprint(value: dict) -> str:
    """16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_folder(store: Path, settings: Settings, images_sha256: str) -> Path:
    """The folder of a run's model in the store, made with its settings.json if it is new."""
    value = fingerprinted(settings, images_sha256)
    folder = Path(store) / "models" / fingerprint(value)
    if not (folder / "settings.json").exists():
        write_json(folder / "settings.json", value)
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when its process ends, however it ends.

    While another process has it, this one says who and waits: two runs may share a model (they may differ in sampling
    alone), and a trainer may outlive the Snakemake that started it. UserError when the lock cannot be written, or the
    file system has none.
    """
    try:
        file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (held open for as long as the lock)
    except OSError as error:
        raise UserError(f"cannot write {folder / 'lock'}: {error.strerror}") from error
    with file:
        try:
            wait_for_lock(file, f"{folder} is being trained")
        except OSError as error:
            raise UserError(
                f"cannot lock {file.name}: {error.strerror}; put the store (key `store`) on a file system with flock"
            ) from error
        if not same_file(file, folder / "lock"):
            raise UserError(f"{folder} was removed from the store meanwhile (blurdiff store prune); run again")
        sign_lock(file)
        yield


def write_with_digest(folder: Path, stem: str, suffix: str, save: Callable[[Path], object]) -> None:
    """Write a file through `save(path)` as `stem-DIGEST.suffix`, atomically; it replaces those of any other DIGEST."""
    final = None

    def name(written: Path) -> Path:
        nonlocal final
        final = folder / f"{stem}-{sha256_file(written)[:DIGEST_LENGTH]}{suffix}"
        return final

    with atomic_path(folder / f"{stem}{suffix}", rename_to=name) as temporary:
        save(temporary)
    for other in folder.glob(f"{stem}-*{suffix}"):
        if other != final:
            other.unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left half-written; only for the holder of the lock."""
    for path in folder.glob(".*"):
        path.unlink(missing_ok=True)


def find(folder: Path, kind: str, suffix: str) -> dict[int, Path]:
    """The folder's files `kind-ITERATION-DIGEST.suffix` by iteration, ascending."""
    pattern = re.compile(rf"{kind}-(\d+)-[0-9a-f]{{{DIGEST_LENGTH}}}{re.escape(suffix)}")
    found = {int(m[1]): path for path in folder.glob(f"{kind}-*{suffix}") if (m := pattern.fullmatch(path.name))}
    return dict(sorted(found.items()))


def intact(path: Path) -> bool:
    """Whether a file's content matches the digest in its name."""
    return sha256_file(path)[:DIGEST_LENGTH] == path.stem.rsplit("-", 1)[1]


def publish(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, with the time of now: what was made from an older `target` is outdated.

    A hard link, unless another one exists already: runs that share a model must not share its time, or publishing it
    for one would make outdated what the others made from it. Then, and where file systems have no links, a copy. Only
    for the holder of the lock.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    others = source.stat().st_nlink - 1 - (target.exists() and os.path.samefile(source, target))
    with atomic_path(target) as temporary:
        temporary.unlink()
        with contextlib.suppress(OSError):
            if not others:
                os.link(source, temporary)
        if not temporary.exists():
            shutil.copyfile(source, temporary)
        os.utime(temporary)
