"""An array of images while it is made, so that a killed job goes on where it was.

Beside `images.npy` stands, until it is complete, the folder `.images.npy.partial` with images.npy, journal.json and
lock. Snakemake does not know of it: it deletes the declared outputs of a job that fails. The journal is written after
the images that it speaks of are on the disk, so it holds after a power failure too.
"""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import PIL

from blurdiff.errors import UserError
from blurdiff.runtime import arrays
from blurdiff.runtime.files import atomic_path, fsync, read_json, sync, write_json
from blurdiff.runtime.locks import waited_for
from blurdiff.runtime.waiting import waiting_for

FORMAT = 2  # to be raised when the same source and settings would give other images
JOURNAL_SECONDS = 5.0


@dataclass
class Position:
    """How far the work is: `records` of the source are read, and the file begins with the `images` made of them."""

    records: int = 0
    images: int = 0
    last_key: str | None = None
    skipped: list[dict] = field(default_factory=list)


class Unfinished:
    """The array in its folder, open for reading and writing: `position`, `descriptor`, `digest` of its images.

    `identity` is what the images depend on beside the resolution: the source's state, which records, the crop. A
    journal of another identity, or one that does not fit the file, counts for nothing: then the work starts anew.
    """

    def __init__(self, folder: Path, identity: dict, resolution: int):
        self.folder, self.array, self.journal = folder, folder / "images.npy", folder / "journal.json"
        self.identity = {"format": FORMAT, "pillow": PIL.__version__, "resolution": resolution, **identity}
        self.resolution = resolution
        self.position, self.digest = Position(), hashlib.sha256()
        self._buffer = bytearray()
        why_not = self._resume() if self.journal.exists() else ""
        if why_not:
            print(f"{self.array} cannot be gone on with ({why_not}); it is made anew", file=sys.stderr, flush=True)
        if why_not is not None:
            self._start()
        self._saved, self._lost = time.monotonic(), False

    def _start(self) -> None:
        # Not truncated: the old file may have a finished array for its other name.
        self.journal.unlink(missing_ok=True)
        self.array.unlink(missing_ok=True)
        self.descriptor = os.open(self.array, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        sync(self.folder.parent)

    def _resume(self) -> str | None:
        """Take up what the journal says; returns why that is impossible, None if it is not."""
        try:
            journal = read_json(self.journal)
            if journal.pop("check") != fingerprint(journal):
                return f"{self.journal.name} is damaged"
            if journal["identity"] != self.identity:
                return "the source, the resolution, the crop, the choice of records or Pillow is another"
            position, sha256 = Position(**journal["position"]), journal["sha256"]
            descriptor = os.open(self.array, os.O_RDWR)
        except (UserError, AttributeError, KeyError, TypeError) as error:
            return f"{self.journal.name} is damaged: {error}"
        except OSError as error:
            return f"{error.strerror}"
        # Workers of a dead process may still be about to write (see `open_to_write`).
        with waiting_for(f"processes of an interrupted run, which may still write {self.array}"):
            lock(descriptor, fcntl.LOCK_EX)
        lock(descriptor, fcntl.LOCK_UN)
        digest, end = hashlib.sha256(), arrays.offset(position.images, self.resolution)
        try:
            for chunk in arrays.read_chunks(descriptor, arrays.offset(0, self.resolution), end):
                digest.update(chunk)
            if digest.hexdigest() != sha256:
                raise EOFError("its images are not those that were written")
            os.ftruncate(descriptor, end)
        except EOFError as error:
            os.close(descriptor)
            return str(error)
        self.descriptor, self.digest, self.position = descriptor, digest, position
        return None

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def place(self, n_records: int, n_images: int, last_key: str, skipped: list[dict]) -> None:
        """Count the next `n_records`, whose images a worker has written behind the `position.records`-th place.

        They move forward to close the gap that skipped records leave; what they move over is not in use.
        """
        position, size = self.position, self.resolution**2 * 3
        written = arrays.offset(position.records, self.resolution)
        target = arrays.offset(position.images, self.resolution)
        if len(self._buffer) < n_images * size:
            self._buffer = bytearray(n_images * size)
        images = memoryview(self._buffer)[: n_images * size]
        arrays.read_at(self.descriptor, images, written)
        if target != written:
            arrays.write_at(self.descriptor, images, target)
        self.digest.update(images)
        self.position = Position(
            position.records + n_records,
            position.images + n_images,
            last_key,
            position.skipped + skipped if skipped else position.skipped,
        )

    def save(self, *, now: bool) -> None:
        """Write the journal, the images before it; without `now` only when the last time was some seconds ago."""
        recently = time.monotonic() - self._saved < JOURNAL_SECONDS
        if self.position.records == 0 or (recently and not now) or self._lost:
            return
        self._lost = True  # unless fsync returns: after a failure, a second call may tell nothing of what was lost
        fsync(self.descriptor)
        self._lost = False
        journal = {"identity": self.identity, "position": asdict(self.position), "sha256": self.digest.hexdigest()}
        write_json(self.journal, {**journal, "check": fingerprint(journal)})
        self._saved = time.monotonic()

    def publish(self, output: Path) -> None:
        """Give the complete array its name. It keeps this one too, where the file system allows."""
        arrays.write_at(self.descriptor, arrays.header(self.position.images, self.resolution), 0)
        os.ftruncate(self.descriptor, arrays.offset(self.position.images, self.resolution))
        with atomic_path(output) as temporary:
            temporary.unlink()
            try:
                os.link(self.array, temporary)
            except OSError:
                os.replace(self.array, temporary)

    def forget(self) -> None:
        """Delete the journal: nothing is unfinished, and `held` removes the rest."""
        self.journal.unlink(missing_ok=True)


@contextlib.contextmanager
def held(output: Path) -> Iterator[tuple[Path, bool]]:
    """Hold the folder of the unfinished `output`, made if needed; gives it and whether another process had it before.

    One process at a time has it; the others say who that is and wait. Without a journal in it, it is removed in the
    end. UserError when it cannot be written.
    """
    folder = output.with_name(f".{output.name}.partial")
    with waited_for(folder / "lock", f"{output} is being made", f"makes {output}") as waited:
        try:
            yield folder, waited
        finally:
            if not (folder / "journal.json").exists():
                _remove(folder)


def _remove(folder: Path) -> None:
    """Delete the folder, the lock last; whoever waits for that makes a new one."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name != "lock":
                path.unlink()
        (folder / "lock").unlink()
        folder.rmdir()


def open_to_write(path: str) -> int:
    """Open the array in a worker process, and say by a shared lock that this process may still write to it.

    A worker may outlive its killed parent for a moment. Whoever goes on with the work waits for that lock.
    """
    descriptor = os.open(path, os.O_RDWR)
    lock(descriptor, fcntl.LOCK_SH)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # another process may have gone on before the lock was there
    return descriptor


def fingerprint(journal: dict) -> str:
    """SHA-256 of a journal's content."""
    return hashlib.sha256(json.dumps(journal, sort_keys=True).encode()).hexdigest()


def lock(descriptor: int, kind: int) -> None:
    """Lock a file; where the file system has no locks, do without."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, kind)
