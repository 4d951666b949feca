"""The LMDB in a downloaded zip, taken out safely.

Of an archive only the one data.mdb is ever written, under a name that we choose. An archive that holds anything a
careless program would write elsewhere (a path that leads out, a link) is refused as a whole.
"""

import errno
import hashlib
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from blurdiff.data.lsun import check_lmdb
from blurdiff.errors import UserError
from blurdiff.runtime.files import atomic_folder, check_room
from blurdiff.runtime.parallel import progress
from blurdiff.runtime.text import size

CHUNK = 1 << 20  # bytes
# No deflate stream is shorter than a 1032nd of what it holds.
DEFLATE_LIMIT = 1032


class BadArchive(ValueError):
    """An archive that must not be used; the message is the reason."""


def unpack_lmdb(path: Path, folder: Path) -> None:
    """Extract the only data.mdb of the zip `path` to the new `folder`, which appears complete or not at all.

    Raises BadArchive when the file is no zip, is damaged or cut short, holds what it should not (see `data_member`) or
    no readable LMDB; UserError when the disk is too small or cannot be written, or `folder` is there already.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile raises almost anything on damaged directories
        raise BadArchive(f"it is no whole zip file ({error})") from error
    with archive:
        member = data_member(archive)
        check_room(folder, path.parent, member.file_size, f"{size(member.file_size)} unpacked")
        with atomic_folder(folder) as temporary:
            with open(temporary / "data.mdb", "wb") as file, progress(member.file_size, "B", "unpack") as advance:
                for piece in _pieces(archive, member):
                    file.write(piece)
                    advance(len(piece))
            try:
                check_lmdb(temporary)
            except UserError as error:
                raise BadArchive(str(error).replace(str(temporary / "data.mdb"), f"{member.filename} in it")) from error


def data_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The entry data.mdb of a zip, in whichever folder it stands.

    Raises BadArchive unless there is exactly one, and for any entry with an absolute path or one that leads out, that
    is a link or a special file, is encrypted, stands there twice, or claims more than its compressed bytes can hold.
    """
    names = set()
    for entry in archive.infolist():
        name = entry.orig_filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        kind = stat.S_IFMT(entry.external_attr >> 16)
        shown = repr(entry.orig_filename[:80])
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
            raise BadArchive(f"its entry {shown} leads out of the folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadArchive(f"its entry {shown} is a link or a special file")
        if entry.flag_bits & 1:
            raise BadArchive(f"its entry {shown} is encrypted")
        if parts in names:
            raise BadArchive(f"its entry {shown} stands there twice")
        if entry.file_size > DEFLATE_LIMIT * (entry.compress_size + 1):
            raise BadArchive(f"its entry {shown} claims {entry.file_size:,} bytes in {entry.compress_size:,}")
        names.add(parts)
    found = [entry for entry in archive.infolist() if PurePosixPath(entry.filename).name == "data.mdb"]
    if len(found) != 1 or found[0].is_dir():
        raise BadArchive("it holds no data.mdb" if not found else f"it holds {len(found)} of data.mdb, not one")
    return found[0]


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of an entry, piece by piece; raises BadArchive when it is not what the directory says."""
    left = member.file_size
    try:
        with archive.open(member) as source:
            # zipfile stops at the size that the directory names, and checks the CRC there.
            while piece := source.read(CHUNK):
                left -= len(piece)
                yield piece
        if left:
            raise EOFError(f"{left:,} bytes are missing")
    except Exception as error:
        # Damaged, it makes zipfile seek to impossible places; any other OSError is the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UserError(f"cannot read {archive.filename}: {error.strerror or error}") from error
        raise BadArchive(f"{member.filename} in it is damaged ({error})") from error


def check_digest(path: Path, digest: str | None) -> None:
    """Raise BadArchive unless the file has this digest (MD5 or SHA-256, by its length); None is not checked."""
    if digest is None:
        return
    name, found = ("MD5", hashlib.md5(usedforsecurity=False)) if len(digest) == 32 else ("SHA-256", hashlib.sha256())
    with open(path, "rb") as file, progress(path.stat().st_size, "B", "checksum") as advance:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            advance(len(chunk))
    if found.hexdigest() != digest:
        raise BadArchive(f"its {name} is {found.hexdigest()}, not {digest}")
