"""Every kind of data set by its name: which class reads it, and which file or folder must be there.

To add one, write a class like those of files.py, an entry of SOURCES, and a key of DatasetConfig marked as a `source`.
The preprocessing, its command, the workflow's rules, `blurdiff plan` and the checks of a config take all they need from
here. Snakemake reads this file too, so it imports next to nothing.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple, Protocol

from blurdiff.config import settings
from blurdiff.config.keys import check_names
from blurdiff.data import lmdb_header
from blurdiff.data.lsun_facts import how_to_get


def _state_of_file(path: str) -> dict:
    status = os.stat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _state_of_folder(path: str) -> dict:
    with closing(open_reader("folder", path)) as reader:
        return reader.identify()


class Source(NamedTuple):
    """A kind of data set."""

    reader: str  # "module:class" of blurdiff.data: a Reader
    option: str  # of `blurdiff preprocess`, which takes the path
    help: str  # what the path is
    inside: str = ""  # the file in a folder that must be there; without it, the path itself must be
    is_folder: bool = False  # the path is a folder of files of any name, whose own time tells nothing of theirs
    drawn: bool = False  # the workflow makes it, and the key says what to draw
    # Of the path: what tells its files from others in their place, with `mtime_ns`, the last change; OSError or
    # UserError if they cannot be read.
    state: Callable[[str], dict] = _state_of_file

    def file(self, path: str) -> str:
        """What must be there, and what the workflow's rules take as their input."""
        return os.path.join(path, self.inside) if self.inside else path

    def is_there(self, path: str) -> bool:
        """Whether it is."""
        return (os.path.isdir if self.is_folder else os.path.isfile)(self.file(path))


LMDB = Source(
    "lsun:Lmdb", "lmdb", "folder with an LSUN-format LMDB (data.mdb)", inside="data.mdb", state=lmdb_header.state
)
SOURCES = {
    "synthetic": LMDB._replace(drawn=True),
    "lmdb": LMDB,
    "folder": Source("files:Folder", "folder", "folder of pictures", is_folder=True, state=_state_of_folder),
    "zip": Source("files:Zip", "zip", "zip of pictures"),
}
check_names(SOURCES, settings.SOURCES, "data.sources.SOURCES")


class Record(NamedTuple):
    """One encoded picture of a data set."""

    key: str  # what manifests and messages call it
    place: tuple = ()  # what its reader needs to find it


class Reader(Protocol):
    """What the preprocessing asks of a data set.

    It is made of a path, in the parent process and again in each worker, where only `read` and `close` are called; it
    opens nothing before it must. Whatever cannot be read as a whole raises UserError, one line with the remedy.
    """

    note: str  # for the log: what of the path is no record; complete after `identify`

    def check(self) -> None:
        """Raise UserError unless the path is what it should be and as it was; quick, since it is called often."""

    def identify(self) -> dict:
        """What tells this state from another: `entries`, the number of records; `mtime_ns`, the last change; more."""

    def records(self, start: int, stop: int, after: str | None = None) -> Iterator[Record]:
        """The records number `start` to `stop` in an order that no file system decides; `after` is the key before."""

    def read(self, record: Record) -> bytes:
        """The image file of a record; CorruptRecord (see `lsun`) when that record alone cannot be read."""

    def close(self) -> None:
        """Close what is open."""


def open_reader(name: str, path: str | os.PathLike) -> Reader:
    """The reader of the data set at `path`, which is of the kind `name` of SOURCES; imported only now."""
    module, _, attribute = SOURCES[name].reader.partition(":")
    return getattr(importlib.import_module(module if "." in module else f"blurdiff.data.{module}"), attribute)(path)


def source_of(dataset: Mapping, drawn: str = "") -> tuple[str, str]:
    """(name in SOURCES, path) of a data set of a complete config; `drawn` is the path of what the workflow draws."""
    [name] = given(dataset)
    return name, drawn if SOURCES[name].drawn else os.path.normpath(dataset[name])


def given(dataset: Mapping) -> list[str]:
    """The sources that a data set of a config names; exactly one, if the config has been checked."""
    return [name for name in SOURCES if dataset[name]]


def missing(dataset: Mapping, name: str) -> str:
    """What is missing of the data set called `name`, and how to get it; empty if nothing is, or if it is drawn."""
    key, path = source_of(dataset)
    source = SOURCES[key]
    if source.drawn or source.is_there(path):
        return ""
    file = source.file(path)
    what = f"{file} is no {source.help}" if os.path.exists(file) else f"{file} is missing"
    hint = how_to_get(path, name) if key == "lmdb" else f"give a {source.help}"
    for other, kind in SOURCES.items():
        if other != key and not kind.drawn and kind.is_there(path):
            hint += f", or write {other}: {path}"
    return f"datasets.{name}.{key}: {what}; {hint}"
