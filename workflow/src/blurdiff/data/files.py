"""Pictures that are files with names: in a folder and all folders below it, or in a zip, which is not unpacked.

Their order is that of the names' bytes (UTF-8, `/` between folders): the same on every file system, and in a zip the
same as in the folder that it was made of. What is a picture is told by the end of its name (SUFFIXES). Names that begin
with a dot are left out, as is what lies in folders of such names: other programs put their own things there.
"""

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

from blurdiff.data.lsun import CorruptRecord
from blurdiff.data.sources import Record
from blurdiff.errors import UserError
from blurdiff.runtime.text import shown

# How Pillow calls files of the formats that lsun.FORMATS names.
SUFFIXES = (
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg",
    ".jpf", ".jpg", ".jpx", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
MAX_BYTES = 1 << 30  # of an image file; nothing that lsun.MAX_PIXELS lets through is larger
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?/)")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature; lengths of the name and of the extra field behind it


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture, by its name alone."""
    return name.lower().endswith(SUFFIXES) and not _HIDDEN.search(name)


class Files:
    """What a folder and a zip have in common; a Reader (see `sources`). Subclasses say how to `scan` and to `read`."""

    note = ""

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._found: list[Record] = []  # until `identify`, which finds one at least

    def scan(self) -> Iterator[Record]:
        """All files, in any order; what a record's `place` holds changes whenever the file does."""
        raise NotImplementedError

    def read(self, record: Record) -> bytes:
        """The bytes of a file."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise UserError unless the path is there."""
        if not os.path.exists(self.path):
            raise UserError(f"{self.path} is missing; correct the path")

    def changed(self, found: list[Record]) -> int:
        """When it was changed last, in nanoseconds."""
        return os.stat(self.path).st_mtime_ns

    def identify(self) -> dict:
        """Find the pictures. The digest is of all names and places, so that it tells any other state from this one."""
        self.check()
        found: list[Record] = []
        others: list[str] = []  # the first few
        n_others = 0
        for record in self.scan():
            if is_picture(record.key):
                found.append(record)
            elif not _HIDDEN.search(record.key):
                n_others, others = n_others + 1, sorted([*others, record.key])[:3]
        found.sort(key=lambda record: as_bytes(record.key))
        twice = next((one.key for one, other in pairwise(found) if one.key == other.key), None)
        if twice is not None:
            raise UserError(f"{self.path}: {shown(twice)} stands there twice; make it again without one of them")
        few = ", ".join(map(shown, others)) + (", …" if n_others > len(others) else "")
        if not found:
            held = f"but {n_others:,} other files ({few})" if n_others else "and nothing else either"
            raise UserError(
                f"{self.path} holds no pictures (names that end in {', '.join(SUFFIXES)}), {held}; correct the path"
            )
        if others:
            self.note = f"{self.path}: left out, as their names do not end as a picture's: {few} ({n_others:,} in all)"
        digest = hashlib.sha256()
        for record in found:
            digest.update(as_bytes(f"{record.key}\0{record.place}\n"))
        self._found = found
        return {"entries": len(found), "mtime_ns": self.changed(found), "digest": digest.hexdigest()}

    def records(self, start: int, stop: int, after: str | None = None) -> Iterator[Record]:
        """Those that `identify` found last."""
        if not self._found:
            self.identify()
        return iter(self._found[start:stop])

    def close(self) -> None:
        """Close what is open: nothing."""


class Folder(Files):
    """A folder. Links are followed, to folders too; a record's place is (bytes, time of the last change)."""

    def check(self) -> None:
        if not os.path.isdir(self.path):
            is_file = os.path.exists(self.path)
            raise UserError(f"{self.path} is {'a file, not a folder' if is_file else 'missing'}; correct the path")

    def changed(self, found: list[Record]) -> int:
        return max(time for _, (_, time) in found)

    def scan(self) -> Iterator[Record]:
        waiting: list[tuple[str, frozenset]] = [("", frozenset())]  # (folder, it and those above it)
        try:
            while waiting:
                inside, above = waiting.pop()
                here = os.stat(os.path.join(self.path, inside))
                if (here.st_dev, here.st_ino) in above:
                    raise UserError(f"{self.path}: {shown(inside)} is a link to a folder that it lies in; remove it")
                above |= {(here.st_dev, here.st_ino)}
                with os.scandir(os.path.join(self.path, inside)) as entries:
                    for entry in entries:
                        name = f"{inside}/{entry.name}".lstrip("/")
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir():
                            waiting.append((name, above))
                        elif entry.is_file():
                            status = entry.stat()
                            yield Record(name, (status.st_size, status.st_mtime_ns))
                        elif entry.is_symlink():  # to nothing: a record that cannot be read
                            yield Record(name, (0, 0))
        except OSError as error:
            raise unreadable(error.filename or self.path, error) from error

    def read(self, record: Record) -> bytes:
        path = os.path.join(self.path, record.key)
        if record.place[0] > MAX_BYTES:
            raise CorruptRecord(f"too large: {record.place[0]:,} bytes")
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            if os.path.islink(path):
                raise CorruptRecord("a link to a file that is not there") from error
            raise UserError(f"{shown(path)} is gone; the folder was changed while it was read: run again") from error
        except OSError as error:
            raise unreadable(path, error) from error


class Zip(Files):
    """A zip as EDM's and StyleGAN's dataset tools write it, or any other that is not encrypted.

    Each file is taken out by itself, by the position that the zip's directory names: a record's place is (position,
    bytes in the zip, bytes, CRC-32, method). The directory takes about 1 kB of memory a file while it is read.
    """

    _state: tuple | None = None

    def check(self) -> None:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}; correct the path") from error
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{self.path} is a folder, not a zip; correct the path")
        if self._state not in (None, (status.st_size, status.st_mtime_ns)):
            raise UserError(f"{self.path} was changed while it was read; run again")
        self._state = (status.st_size, status.st_mtime_ns)

    def scan(self) -> Iterator[Record]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
            if any(entry.header_offset < 0 for entry in entries):
                raise zipfile.BadZipFile("its beginning is missing")
        except OSError as error:
            raise unreadable(self.path, error) from error
        except Exception as error:  # zipfile raises almost anything on damaged directories
            raise UserError(f"{self.path} is no whole zip ({error}); copy or fetch it again") from error
        for entry in entries:
            name = name_of(entry)
            if entry.is_dir():
                continue
            if is_picture(name) and entry.flag_bits & 1:
                raise UserError(f"{self.path}: {shown(name)} is encrypted; make the zip again without a password")
            if is_picture(name) and entry.compress_type not in METHODS:
                raise UserError(
                    f"{self.path}: {shown(name)} is compressed by method {entry.compress_type}; make the zip again,"
                    " stored or deflated"
                )
            place = entry.header_offset, entry.compress_size, entry.file_size, entry.CRC, entry.compress_type
            yield Record(name, place)

    def read(self, record: Record) -> bytes:
        position, packed_size, size, crc, method = record.place
        if size > MAX_BYTES:
            raise CorruptRecord(f"too large: {size:,} bytes")
        signature, *lengths = _LOCAL_HEADER.unpack(self._bytes(_LOCAL_HEADER.size, position))
        if signature != b"PK\3\4":
            raise CorruptRecord("its header in the zip is damaged")
        value = self._bytes(packed_size, position + _LOCAL_HEADER.size + sum(lengths))
        if method == zipfile.ZIP_DEFLATED:
            try:
                value = zlib.decompressobj(-zlib.MAX_WBITS).decompress(value, size + 1)
            except zlib.error as error:
                raise CorruptRecord("its compressed bytes in the zip are damaged") from error
        if len(value) != size or zlib.crc32(value) != crc:
            raise CorruptRecord("its bytes are not those of which the zip has the checksum")
        return value

    def _bytes(self, size: int, position: int) -> bytes:
        try:
            value = os.pread(self._descriptor, size, position)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if len(value) < size:
            raise CorruptRecord("the zip ends within it")
        return value

    @cached_property
    def _descriptor(self) -> int:
        return os.open(self.path, os.O_RDONLY)

    def close(self) -> None:
        if "_descriptor" in self.__dict__:
            os.close(self.__dict__.pop("_descriptor"))


def name_of(entry: zipfile.ZipInfo) -> str:
    """A file's name in a zip. Some programs write UTF-8 and do not say so, which zipfile takes for code page 437."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


def as_bytes(name: str) -> bytes:
    """A name as Linux has it."""
    return name.encode("utf-8", "surrogateescape")


def unreadable(path: str, error: OSError) -> UserError:
    """What to say of it."""
    return UserError(f"cannot read {shown(path)}: {error.strerror or error}; check its permissions and its disk")
