"""The head of an LMDB's file, read without the library: Snakemake asks it whether the file is still the same one.

An LMDB file starts with two meta pages, of which the one with the higher transaction number counts: a page header of
16 bytes (page number, padding, flags, bounds), then magic, version, address and size of the map, two database records
(of which the first begins with the page size), the number of the last page in use, the transaction number.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

_META = struct.Struct("<10xH4x I20x I92x QQ")  # flags; magic; page size; last page, transaction
_MAGIC = 0xBEEFC0DE
_META_FLAG = 0x08


class Meta(NamedTuple):
    """What a meta page says."""

    page_size: int  # bytes
    last_page: int
    transaction: int


def read_metas(data: str | os.PathLike) -> list[Meta | None]:
    """Both meta pages of a data.mdb, None for one that is none (only one entry if that is the first); or OSError."""
    with open(data, "rb") as file:
        metas = [_read_meta(file.read(_META.size))]
        if metas[0] is not None:
            file.seek(metas[0].page_size)
            metas.append(_read_meta(file.read(_META.size)))
    return metas


def newest(metas: list[Meta | None]) -> Meta:
    """The one that counts."""
    return max((meta for meta in metas if meta), key=lambda meta: meta.transaction)


def state(folder: str | os.PathLike) -> dict:
    """What tells an LMDB's file from one that replaces it, of whatever age; OSError if there is none."""
    data = Path(folder) / "data.mdb"
    status, metas = data.stat(), read_metas(data)
    transaction = newest(metas).transaction if metas[0] else None
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "last_transaction": transaction}


def _read_meta(page: bytes) -> Meta | None:
    """What a meta page's first bytes say; None if they are not those of a meta page."""
    if len(page) < _META.size:
        return None
    flags, magic, page_size, last_page, transaction = _META.unpack(page)
    power_of_two = 256 <= page_size <= 1 << 16 and page_size & (page_size - 1) == 0
    if magic != _MAGIC or not flags & _META_FLAG or not power_of_two:
        return None
    return Meta(page_size, last_page, transaction)
