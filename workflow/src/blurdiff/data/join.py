"""Parts of a data set, each made by `blurdiff preprocess --part`, to one images.npy and its manifest."""

import hashlib
import os
from dataclasses import replace
from typing import Any

from blurdiff.data.manifest import OF_PARTS, Manifest, read_manifest, write_manifest
from blurdiff.data.preprocess import check_skipped, describe
from blurdiff.errors import UserError
from blurdiff.runtime import arrays
from blurdiff.runtime.files import atomic_path, check_room
from blurdiff.runtime.parallel import progress

# What the parts of an array differ in.
OF_ONE_PART: dict[str, Any] = {"part": None, "n_used": 0, "skipped": [], "sha256": None}


def join(
    parts: list[str | os.PathLike],
    manifests: list[str | os.PathLike],
    output: str | os.PathLike,
    manifest_path: str | os.PathLike,
    max_corrupt_fraction: float = 0.001,
) -> Manifest:
    """Write `output` and its manifest (see `preprocess`) from all parts, in order; returns the manifest.

    Raises UserError when a part is missing, damaged or of another source or settings, or when too many records are bad.
    """
    described = [read_manifest(path, "n_used", "resolution", "sha256") for path in manifests]
    _check_parts(described, parts, manifests)
    first = described[0]
    skipped = [record for each in described for record in each.skipped]
    n_used, resolution = sum(each.n_used for each in described), first.resolution
    check_skipped(first.source, n_used + len(skipped), max_corrupt_fraction, skipped)
    if n_used == 0:
        raise UserError(
            f"{first.source}: no record decodes (the first: {describe(skipped[0])}); correct the path, or get it again"
        )
    digest = hashlib.sha256()
    with atomic_path(output) as temporary, open(temporary, "wb") as file:
        check_room(output, temporary.parent, n_used * resolution**2 * 3)
        file.write(arrays.header(n_used, resolution))
        with progress(n_used, "images", "join parts") as advance:
            for path, each in zip(parts, described, strict=True):
                _append(file, digest, path, each)
                advance(each.n_used)
    made: dict[str, Any] = {"n_used": n_used, "skipped": skipped, "sha256": digest.hexdigest()}
    manifest = replace(first, **made | dict.fromkeys(OF_PARTS))
    write_manifest(manifest_path, manifest)
    return manifest


def _check_parts(described: list[Manifest], parts: list, manifests: list) -> None:
    """The manifests are those of all parts of one array, in order."""
    if len(parts) != len(manifests):
        raise UserError(f"--parts names {len(parts)} files and --manifests {len(manifests)}; give one of each a part")
    for number, (each, path) in enumerate(zip(described, manifests, strict=True)):
        if (each.part, each.parts) != (number, len(parts)):
            raise UserError(f"{path} is not of part {number} of {len(parts)}; give all parts in order")
        if replace(each, **OF_ONE_PART) != replace(described[0], **OF_ONE_PART):
            raise UserError(f"{path} and {manifests[0]} are of different sources or settings; make the parts again")


def _append(file, digest, path: str | os.PathLike, manifest: Manifest) -> None:
    """Append a part's images to the array; they are those that its manifest names."""
    if manifest.n_used == 0:
        return
    n, own = len(arrays.open_images(path, manifest.resolution)), hashlib.sha256()  # which checks type, shape and size
    if n != manifest.n_used:
        raise UserError(f"{path} holds {n:,} images, its manifest says {manifest.n_used:,}; make this part again")
    with open(path, "rb", buffering=0) as part:
        part.seek(arrays.offset(0, manifest.resolution))
        while chunk := part.read(1 << 22):
            file.write(chunk)
            digest.update(chunk)
            own.update(chunk)
    if own.hexdigest() != manifest.sha256:
        raise UserError(f"{path} is not what its manifest describes (SHA-256 differs): damaged; make this part again")
