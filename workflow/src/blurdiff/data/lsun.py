"""LSUN's LMDBs: one folder with a data.mdb, keys of 40 hex digits, values that are encoded image files.

LMDB maps the file into memory, so a data.mdb that is shorter than it should be kills the reading process with SIGBUS,
which cannot be caught. The file's own header is therefore checked before LMDB sees the file.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from blurdiff.data import lmdb_header
from blurdiff.data.lsun_facts import download_hint
from blurdiff.data.sources import Record
from blurdiff.errors import UserError

MAX_PIXELS = 64_000_000
# Raster formats only: Pillow would run Ghostscript on an EPS file.
FORMATS = ("WEBP", "JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

WHITE_IS_ZERO = 0  # TIFF's PhotometricInterpretation

_KEY = re.compile(rb"[0-9a-fA-F]{40}")


class CorruptRecord(ValueError):
    """A value that is not a readable image; the message is the reason, the same in every run."""


def check_lmdb(path: str | os.PathLike) -> None:
    """Raise UserError unless `path` is a folder with an LMDB file that is as long as its own header says.

    Reads two pages of the file and maps nothing; does not look for entries (`open_lmdb` does).
    """
    path, data = Path(path), Path(path) / "data.mdb"
    if not path.exists():
        raise UserError(f"{path}: no such folder; {download_hint(path)}, or correct the path")
    if not path.is_dir():
        raise UserError(f"{path} is a file, not the folder that holds data.mdb; unzip it, or give the folder")
    if not data.is_file():
        raise UserError(f"{path} holds no data.mdb, so it is not an LMDB; {download_hint(path)}, or correct the path")
    try:
        size, metas = data.stat().st_size, lmdb_header.read_metas(data)
    except OSError as error:
        raise UserError(f"cannot read {data}: {error.strerror or error}; check its permissions and its disk") from error
    if size == 0:
        raise UserError(f"{data} is empty (0 bytes): the download or the copy failed; fetch it again")
    if metas[0] is None:
        raise UserError(f"{data} is not an LMDB file (its header is not LMDB's); {download_hint(path)}")
    expected = max(lmdb_header.newest(metas).last_page + 1, 2) * metas[0].page_size
    if size < expected:
        raise UserError(
            f"{data} is truncated: {size:,} bytes, but its header names {expected:,}; fetch or copy it again"
        )
    if metas[1] is None:
        raise UserError(f"{data} is damaged (the second page of its header is not LMDB's); fetch or copy it again")


def open_lmdb(path: str | os.PathLike) -> lmdb.Environment:
    """Open an LSUN-format LMDB for reading, without writing a lock file beside it.

    LMDB opens a path once a process, and a forked child cannot use what its parent opened: open it lazily in every
    worker process, and close it (`with open_lmdb(…) as environment`) before it is opened again.
    Raises UserError when it is missing, not an LMDB, truncated, damaged or without entries.
    """
    check_lmdb(path)
    try:
        environment = lmdb.open(
            os.fspath(path), subdir=True, readonly=True, create=False, lock=False, readahead=False, max_readers=1
        )
    except lmdb.Error as error:
        raise UserError(f"cannot open {path} as an LMDB: {error}; fetch or copy it again") from error
    if environment.stat()["entries"] == 0:
        environment.close()
        raise UserError(f"{path} is an LMDB without entries; {download_hint(path)}, or correct the path")
    return environment


class Lmdb:
    """An LSUN-format LMDB as the preprocessing reads it: a Reader (see `sources`), whose records are its keys."""

    note = ""

    def __init__(self, path: str | os.PathLike):
        self.path = path

    @cached_property
    def environment(self) -> lmdb.Environment:
        """The LMDB, opened once in a process."""
        return open_lmdb(self.path)

    def check(self) -> None:
        check_lmdb(self.path)

    def identify(self) -> dict:
        """Size and time of its file, transaction, last page, entries; all from its header (no scan)."""
        last_page, entries = self.environment.info()["last_pgno"], self.environment.stat()["entries"]
        return {**lmdb_header.state(self.path), "last_page": last_page, "entries": entries}

    def records(self, start: int, stop: int, after: str | None = None) -> Iterator[Record]:
        """In the order of the LMDB (bytewise), in constant memory.

        Without `after` it takes a walk over all that come before. UserError at the first key that is not 40 hex
        digits, or when the file's inner structure is damaged or `after` is not in it.
        """
        try:
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                if after is not None and not cursor.set_key(after.encode()):
                    raise UserError(f"{self.path} has no key {after}; it was changed while it was read")
                keys = cursor.iternext(keys=True, values=False)  # from where the cursor stands
                first = start if after is None else 1
                for key in islice(keys, first, first + stop - start):
                    if not _KEY.fullmatch(key):
                        raise UserError(
                            f"{self.path}: key {repr(key[:60])[1:]} is not 40 hex digits, as LSUN's are; "
                            "give an LSUN-format LMDB"
                        )
                    yield Record(key.decode())
        except lmdb.Error as error:
            raise UserError(f"{self.path} is damaged: {error}; fetch or copy it again") from error

    def read(self, record: Record) -> bytes:
        """The encoded image file under a key; UserError when there is none or the LMDB is damaged."""
        try:
            with self.environment.begin() as transaction:
                value = transaction.get(record.key.encode())
        except lmdb.Error as error:
            raise UserError(f"{self.path} is damaged at key {record.key}: {error}; fetch it again") from error
        if value is None:
            raise UserError(f"{self.path} has no key {record.key}; it was changed while it was read: run again")
        return value

    def close(self) -> None:
        if "environment" in self.__dict__:
            self.__dict__.pop("environment").close()


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings from Pillow on metadata, nor on large images (`decode_image` checks them). Once around many: slow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_image(value: bytes) -> Image.Image:
    """Decode an image file to RGB, as `Image.open(…).convert("RGB")` does (torchvision's LSUN class does the same).

    So palettes and CMYK convert as Pillow converts them, transparency is dropped, an animation gives its first frame,
    and an orientation in EXIF is ignored. One channel of more than 8 bits is scaled, where Pillow would clip it at 255
    (`to_rgb`). Raises CorruptRecord for a value that is empty, truncated or no image, for one that does not say which
    value is white, and for one whose header claims more than 64 megapixels (before anything is decoded); MemoryError
    is passed on. Pillow's warnings are left to the caller (`quiet`).
    """
    if not value:
        raise CorruptRecord("empty value")
    try:
        image = Image.open(io.BytesIO(value), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise CorruptRecord(f"too large: {width} x {height} pixels")
        image.load()
        return to_rgb(image)
    except (CorruptRecord, MemoryError):
        raise
    except UnidentifiedImageError as error:
        # Pillow's own message holds a memory address.
        raise CorruptRecord("not an image in a known format, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise CorruptRecord("too large: more pixels than Pillow opens") from error
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        raise CorruptRecord(" ".join(f"{type(error).__name__}: {error}".split())) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as RGB of 8 bits; CorruptRecord where its numbers have no known white.

    Grey of 9 to 16 bits is scaled: 2^bits − 1 is white. Pillow opens it in a mode I;16 (a PPM in mode I, scaled to 16
    bits); of its other modes, I is made of signed or 32-bit numbers and F of floating-point ones, which say nothing of
    their range.
    """
    if image.mode == "RGB":
        return image  # convert would copy it
    if image.mode[0] not in "IF":
        return image.convert("RGB")
    if not (image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM")):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise CorruptRecord(f"{kind} values (mode {image.mode}), whose range is not known; save it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})  # of a TIFF, whose 12 bits Pillow leaves as they are, as it does a black 1
    white = 2 ** tags[BITSPERSAMPLE][0] - 1 if BITSPERSAMPLE in tags else 65535
    grey = (np.asarray(image).astype(np.uint32) * 255 + white // 2) // white
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
