"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from blurdiff.errors import UserError
from blurdiff.runtime.text import size

# What the package carries beside its modules: workflow, environments and configs, laid out as in the repository.
PROJECT = Path(__file__).parents[1] / "project"

# What fsync says when data did not reach the disk; anything else means that it is not offered.
LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


def atomic_path(
    path: str | os.PathLike, rename_to: Callable[[Path], Path] | None = None
) -> contextlib.AbstractContextManager[Path]:
    """Give a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    `rename_to`, given the finished temporary file, names another file of the same folder instead of `path`. What a
    killed process left of an earlier attempt at `path` is removed first.

    Raises UserError when the folder cannot be written or the disk is full; `path` is then what it was before.
    """
    return _atomic(Path(path), rename_to or (lambda _: Path(path)), folder=False)


def atomic_folder(path: str | os.PathLike) -> contextlib.AbstractContextManager[Path]:
    """The same for a folder; UserError also when `path` is there already, unless it is an empty folder."""
    _check_free(Path(path))
    return _atomic(Path(path), lambda _: Path(path), folder=True)


@contextlib.contextmanager
def _atomic(path: Path, rename_to: Callable[[Path], Path], folder: bool) -> Iterator[Path]:
    intact = "" if folder else "; what stood there before is intact"
    with _temporary(path, folder) as temporary:
        try:
            yield temporary
            _share(temporary, 0o777 if folder else 0o666)
            for entry in [*(temporary.iterdir() if folder else ()), temporary]:
                sync(entry)
            os.replace(temporary, rename_to(temporary))
            sync(path.parent)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}{intact}") from error
        finally:
            _delete(temporary)


def _check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists already; remove it, or choose another name")


def check_writable(path: str | os.PathLike, folder: bool = False) -> None:
    """Raise UserError, before any work, when `atomic_path`, or with `folder` `atomic_folder`, could not make `path`."""
    path = Path(path)
    if folder:
        _check_free(path)
    elif path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; give the name of a file")
    with _temporary(path, folder) as temporary:
        _delete(temporary)


def check_room(path: str | os.PathLike, folder: str | os.PathLike, n_bytes: float, use: str = "") -> None:
    """UserError unless the disk of `folder` has room for `n_bytes` more, on the way to `path`; `use` says for what."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UserError(
            f"{path} needs {use or size(n_bytes)}, but its disk has {size(free)} free; make room, or choose another"
        )


@contextlib.contextmanager
def _temporary(path: Path, folder: bool) -> Iterator[Path]:
    """Make `.STEM.RANDOM SUFFIX` beside `path` and hold a lock on it, by which others know that its writer lives."""
    # The suffix of a file stays: numpy and matplotlib choose a format by it.
    stem, suffix, make = (path.name, "", tempfile.mkdtemp) if folder else (path.stem, path.suffix, _make_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, stem, suffix)
        while True:
            temporary = Path(make(dir=path.parent, prefix=f".{stem}.", suffix=suffix))
            descriptor = os.open(temporary, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks: then nothing is ever found abandoned
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if temporary.exists():
                break
            os.close(descriptor)  # another writer of `path` took it for abandoned before it was locked
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _make_file(**names: Any) -> str:
    descriptor, name = tempfile.mkstemp(**names)
    os.close(descriptor)
    return name


def _share(path: Path, mode: int) -> None:
    """Give a temporary, which is private, the permissions that the umask leaves; some file systems have fixed ones."""
    with contextlib.suppress(OSError):
        os.chmod(path, mode & ~current_umask())


def _remove_abandoned(folder: Path, stem: str, suffix: str) -> None:
    """Delete temporaries of this name whose writer is dead: those whose lock is free."""
    pattern = re.compile(rf"\.{re.escape(stem)}\.[a-z0-9_]{{8}}{re.escape(suffix)}")
    for name in [name for name in os.listdir(folder) if pattern.fullmatch(name)]:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(folder / name)
            finally:
                os.close(descriptor)


def expand_path(path: str) -> str:
    """A path with `~` and `$VARIABLE` filled in, as a shell does it.

    Raises UserError for a variable that is not set and for a home that nobody has, rather than make a folder `~`.
    """
    for plain, braced in re.findall(r"\$(?:(\w+)|\{([^}]*)\})", path, re.ASCII):
        if (plain or braced) not in os.environ:
            raise UserError(f"{path}: the variable {plain or braced} is not set; set it, or give a path without $")
    full = os.path.expanduser(path)
    if full.startswith("~"):
        raise UserError(f"{path}: {full.split('/')[0]} is nobody's home here; give another path, or ./~")
    return os.path.expandvars(full)


def current_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sync(path: Path) -> None:
    """Force a file's (or a folder's entries') content to the disk; OSError when that fails."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync(descriptor: int) -> None:
    """The same for an open file. A file system that does not offer it (EINVAL, ENOSYS …) has done what it can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in LOST:
            raise


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of `data` to a file that is not buffered; OSError when the disk does not take it."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON file; raises UserError when it is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
