"""An array of images while it is made, so that a killed job goes on where it was.

Beside `images.npy` stands, until it is complete, the folder `.images.npy.partial` with images.npy, journal.json and
lock. Snakemake does not know of it: it deletes the declared outputs of a job that fails. The journal is written after
the images that it speaks of are on the disk, so it holds after a power failure too.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import PIL

from blurdiff.errors import UserError
from blurdiff.runtime import arrays
from blurdiff.runtime.files import atomic_path, fsync, read_json, sync, write_all, write_json
from blurdiff.runtime.locks import waited_for
from blurdiff.runtime.text import say

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
    """The array in its folder, open for reading and writing: `position`, `file`, `digest` of its images.

    `identity` is what the images depend on beside the resolution: the source's state, which records, the crop. A
    journal of another identity, or one that does not fit the file, counts for nothing: then the work starts anew.
    """

    def __init__(self, folder: Path, identity: dict, resolution: int):
        self.folder, self.array, self.journal = folder, folder / "images.npy", folder / "journal.json"
        self.identity = {"format": FORMAT, "pillow": PIL.__version__, "resolution": resolution, **identity}
        self.resolution = resolution
        self.position, self.digest = Position(), hashlib.sha256()
        why_not = self._resume() if self.journal.exists() else ""
        if why_not:
            say(f"{self.array} cannot be gone on with ({why_not}); it is made anew")
        if why_not is not None:
            self._start()
        self._saved, self._lost = time.monotonic(), False

    def _start(self) -> None:
        # Not truncated: the old file may have a finished array for its other name.
        self.journal.unlink(missing_ok=True)
        self.array.unlink(missing_ok=True)
        self.file = open(self.array, "x+b", buffering=0)  # noqa: SIM115
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
            file = open(self.array, "r+b", buffering=0)  # noqa: SIM115
        except (UserError, AttributeError, KeyError, TypeError) as error:
            return f"{self.journal.name} is damaged: {error}"
        except OSError as error:
            return f"{error.strerror}"
        file.truncate(arrays.offset(position.images, self.resolution))  # the journal does not know what lies behind
        file.seek(arrays.offset(0, self.resolution))
        digest = hashlib.file_digest(file, "sha256")
        if digest.hexdigest() != sha256:
            file.close()
            return "its images are not those that were written"
        self.file, self.digest, self.position = file, digest, position
        return None

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def add(self, images: np.ndarray, skipped: list[dict], last_key: str) -> None:
        """Append what the next records gave: images, and those that gave none."""
        position, pixels = self.position, images.reshape(-1).data
        self.file.seek(arrays.offset(position.images, self.resolution))
        write_all(self.file, pixels)
        self.digest.update(pixels)
        self.position = Position(
            position.records + len(images) + len(skipped),
            position.images + len(images),
            last_key,
            position.skipped + skipped if skipped else position.skipped,
        )

    def save(self, *, now: bool) -> None:
        """Write the journal, the images before it; without `now` only when the last time was some seconds ago."""
        recently = time.monotonic() - self._saved < JOURNAL_SECONDS
        if self.position.records == 0 or (recently and not now) or self._lost:
            return
        self._lost = True  # unless fsync returns: after a failure, a second call may tell nothing of what was lost
        fsync(self.file.fileno())
        self._lost = False
        journal = {"identity": self.identity, "position": asdict(self.position), "sha256": self.digest.hexdigest()}
        write_json(self.journal, {**journal, "check": fingerprint(journal)})
        self._saved = time.monotonic()

    def publish(self, output: Path) -> None:
        """Give the complete array its name. It keeps this one too, where the file system allows."""
        self.file.seek(0)
        write_all(self.file, arrays.header(self.position.images, self.resolution))
        self.file.truncate(arrays.offset(self.position.images, self.resolution))
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


def fingerprint(journal: dict) -> str:
    """SHA-256 of a journal's content."""
    return hashlib.sha256(json.dumps(journal, sort_keys=True).encode()).hexdigest()
