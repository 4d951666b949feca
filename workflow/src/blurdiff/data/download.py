"""Download an LMDB's zip, check it, and unpack its data.mdb into a folder; LSUN's own for a folder with LSUN's name."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from blurdiff.config.checks import ADDRESS, DIGEST
from blurdiff.data.archive import BadArchive, check_digest, unpack_lmdb
from blurdiff.data.fetch import fetch, forget
from blurdiff.data.lsun import check_lmdb
from blurdiff.data.lsun_facts import LSUN_ARCHIVES, lsun_address, lsun_name
from blurdiff.errors import UserError
from blurdiff.runtime import text
from blurdiff.runtime.locks import waited_for


def download_lmdb(
    output: str | os.PathLike, url: str | None, digest: str | None, *, retries: int = 10, keep_archive: bool = False
) -> None:
    """Make the folder `output` with the LMDB of the zip at `url`; None: LSUN's own, by the folder's name.

    Raises UserError for options that cannot be, and as `download` does; KeyboardInterrupt on SIGTERM and SIGINT.
    """
    folder = Path(os.path.normpath(output))
    if folder.name in ("", ".."):
        raise UserError(f"--output {output}: give the name of a folder to make")
    url, digest, size = source_of(folder, url, digest)
    if retries < 0:
        raise UserError(f"--retries must be 0 or more, not {retries}")

    def stop(*_) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        download(folder, url, digest, size=size, retries=retries, keep_archive=keep_archive)
    finally:
        signal.signal(signal.SIGTERM, previous)
    data = folder / "data.mdb"
    print(f"{data}: {text.size(data.stat().st_size)}")


def source_of(folder: Path, url: str | None, digest: str | None) -> tuple[str, str | None, int | None]:
    """(address, digest, size in bytes) of a folder's zip; digest and size are None where they are not known.

    Raises UserError when the address is none, the digest is of no known length, or, without an address, the folder is
    not called as LSUN calls it.
    """
    size = None
    if url is None:
        name = lsun_name(folder)
        if not name:
            raise UserError(f"{folder} is not called as LSUN calls its folders (CATEGORY_train_lmdb); give --url")
        url = lsun_address(name)
        if name in LSUN_ARCHIVES and digest is None:
            size, digest = LSUN_ARCHIVES[name]
    if not ADDRESS.fullmatch(url):
        raise UserError(f"--url {url!r} is no http or https address")
    if digest is not None and not DIGEST.fullmatch(digest):
        raise UserError(f"--digest {digest!r} is neither a SHA-256 (64 hex digits) nor an MD5 (32)")
    return url, digest and digest.lower(), size


def download(
    folder: Path,
    url: str,
    digest: str | None = None,
    *,
    size: int | None = None,
    retries: int = 10,
    keep_archive: bool = False,
) -> None:
    """Make `folder` with the LMDB of the zip at `url`; nothing is done when it is there already.

    `digest` (hex, MD5 or SHA-256) and `size` (bytes) say what the zip must be, if known. Raises UserError for a server
    that does not have it or keeps dropping it, a zip that is not what it should be, and a disk that is too small.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    data, archive = folder / "data.mdb", folder.with_name(f"{folder.name}.zip")
    if data.exists() and not part_of(archive).exists():
        text.say(f"{data} is there already")
        check_lmdb(folder)
        return
    if folder.exists() and not data.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something else than a data.mdb; remove it, or choose another name")
    with part_file(archive) as file:
        part, state = Path(file.name), Path(f"{file.name}.json")
        if data.exists():  # another process has made it, perhaps one that was killed before it could clean up
            forget(file, state)
            check_lmdb(folder)
            return
        by_hand = archive.exists()
        if by_hand:
            text.say(f"using {archive}, which is there already")
        else:
            fetch(url, file, state, size, retries)
        source = archive if by_hand else part
        try:
            check_digest(source, digest)
            unpack_lmdb(source, folder)
        except BadArchive as reason:
            if by_hand:
                raise UserError(f"{archive}: {reason}; delete it, then it is downloaded") from reason
            forget(file, state)
            raise UserError(
                f"{url}: {reason}; what was downloaded is deleted: try again, and if this comes again, the server has"
                " another file"
            ) from reason
        if keep_archive and not by_hand:
            os.replace(part, archive)
            state.unlink()
        else:
            forget(file, state)


def part_of(archive: Path) -> Path:
    """Where a zip lies until its LMDB is unpacked."""
    return Path(f"{archive}.part")


@contextlib.contextmanager
def part_file(archive: Path) -> Iterator[BinaryIO]:
    """Open `ARCHIVE.part` for appending, unbuffered, and hold its lock: one process at a time downloads an archive.

    Others say who that is and wait. A file that is empty in the end is removed. UserError when it cannot be written.
    """
    part = part_of(archive)
    lock = Path(f"{part}.lock")
    with waited_for(lock, f"{archive} is being downloaded", f"downloads {archive}"):
        try:
            file = open(part, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write {part}: {error.strerror or error}") from error
        with file:
            try:
                yield file
            finally:
                if os.fstat(file.fileno()).st_size == 0:
                    part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
