"""manifest.json: what an array of images is of, where it came from and what was left out; one reader, one writer."""

import hashlib
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from blurdiff.errors import UserError
from blurdiff.runtime.files import read_json, write_json

if TYPE_CHECKING:
    import numpy

OF_PARTS = ("part", "parts", "state")


@dataclass(frozen=True)
class Manifest:
    """Of images.npy, or of a part of it. What a file does not name is empty: None, "", 0 or []."""

    source: str = ""  # path of the LMDB, folder or zip
    label: str | None = None  # the data set's name in tables and figures
    synthetic: bool | None = None
    resolution: int = 0
    crop: str | None = None  # how pictures became square, if not squashed as a whole
    n_keys: int | None = None  # records in the source
    max_images: int | None = None
    n_used: int = 0  # images in the array
    skipped: list[dict] = field(default_factory=list)  # {key, reason} of each record that does not decode
    sha256: str | None = None  # of the array's bytes in C order, without the npy header
    part: int | None = None  # of a part alone: its number, the number of parts, the source's state
    parts: int | None = None
    state: dict | None = None


def read_manifest(path: str | os.PathLike, *needed: str) -> Manifest:
    """The manifest at `path`; UserError when it is missing, is none, or lacks one of the keys `needed`."""
    found = read_json(path)
    known = found if isinstance(found, dict) else {}
    missing = [key for key in needed if known.get(key) is None]
    if missing or not isinstance(found, dict):
        lacks = f"has no {missing[0]}" if missing else "is no JSON object"
        raise UserError(f"{path} {lacks}, so it is no manifest; give the manifest.json that stands beside images.npy")
    names = {one.name for one in fields(Manifest)}
    return Manifest(**{key: value for key, value in found.items() if key in names})


def checked_digest(
    images: "numpy.ndarray", path: str | os.PathLike, manifest: Manifest, manifest_path: str | os.PathLike
) -> str:
    """The SHA-256 of uint8 (n, R, R, 3) read from `path`; UserError unless the manifest has the same."""
    digest = hashlib.sha256()
    step = max(1, (1 << 24) // images[0].nbytes)
    for start in range(0, len(images), step):
        digest.update(images[start : start + step].tobytes())
    if manifest.sha256 != digest.hexdigest():
        raise UserError(
            f"{manifest_path}: sha256 is {manifest.sha256}, {path} has {digest.hexdigest()}; preprocess the data again"
        )
    return digest.hexdigest()


def write_manifest(path: str | os.PathLike, manifest: Manifest) -> None:
    """Write it, atomically; the keys of parts only where it is of a part."""
    left_out = OF_PARTS if manifest.part is None else ()
    write_json(path, {key: value for key, value in asdict(manifest).items() if key not in left_out})
