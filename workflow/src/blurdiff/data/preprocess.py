"""From an LSUN-format LMDB to images.npy, uint8 (n, R, R, 3), and its manifest.

Each record is decoded to RGB and squashed to R x R without cropping, by Pillow's bilinear filter: bit for bit what
torchvision's Resize((R, R)) gives for the decoded image. The order is that of the LMDB's keys. A record that does not
decode is left out and named in the manifest; more than --max-corrupt-fraction of them is an error. The result does not
depend on the number of workers, and memory stays constant. Both files appear complete or not at all.
"""

import argparse
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cache, partial
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from blurdiff.data import lsun
from blurdiff.data.parallel import available_cores, ordered_map, progress
from blurdiff.errors import UserError
from blurdiff.files import atomic_path, write_json

CHUNK_RECORDS = 64
CHUNK_BYTES = 1 << 22


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--lmdb", required=True, help="folder of the LMDB (it holds data.mdb)")
    parser.add_argument("--resolution", required=True, type=int, metavar="R", help="side of the squared images, pixels")
    parser.add_argument("--max-images", type=int, metavar="N", help="read the first N keys only (default: all)")
    parser.add_argument(
        "--max-corrupt-fraction",
        type=float,
        default=0.001,
        metavar="F",
        help="give up when more than this fraction of the records does not decode (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--label", help="name of the data set in tables and figures (default: the folder's name)")
    parser.add_argument("--synthetic", action="store_true", help="record that the images are drawn, not photographed")
    parser.add_argument("--output", required=True, metavar="NPY", help="the array to write")
    parser.add_argument("--manifest", required=True, metavar="JSON", help="the manifest to write")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    manifest = preprocess(
        arguments.lmdb,
        arguments.output,
        arguments.manifest,
        resolution=arguments.resolution,
        max_images=arguments.max_images,
        max_corrupt_fraction=arguments.max_corrupt_fraction,
        workers=arguments.workers,
        label=arguments.label,
        synthetic=arguments.synthetic,
    )
    print(f"{arguments.output}: {manifest['n_used']:,} images, {len(manifest['skipped'])} records skipped")


def preprocess(
    source: str | os.PathLike,
    output: str | os.PathLike,
    manifest_path: str | os.PathLike,
    *,
    resolution: int,
    max_images: int | None = None,
    max_corrupt_fraction: float = 0.001,
    workers: int | None = None,
    label: str | None = None,
    synthetic: bool = False,
) -> dict:
    """Write `output` (uint8 (n_used, R, R, 3), order of the keys), then its manifest; returns the manifest.

    The manifest: source, label, synthetic, resolution, n_keys (records in the LMDB), max_images, n_used, skipped (a
    list of {key, reason}), sha256 (of the array's bytes in C order, without the npy header). n_used + len(skipped) is
    the number of records read, min(n_keys, max_images).
    Raises UserError for a bad LMDB or key (see `lsun`), too many bad records, a full disk, a dead worker.
    """
    workers = available_cores() if workers is None else workers
    for name, value in {"resolution": resolution, "max-images": max_images, "workers": workers}.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} must be 1 or more, not {value}")
    if not 0 <= max_corrupt_fraction <= 1:
        raise UserError(f"--max-corrupt-fraction must be between 0 and 1, not {max_corrupt_fraction}")

    with lsun.open_lmdb(source) as environment, atomic_path(output) as temporary:
        n_keys = lsun.count_entries(environment)
        n = min(n_keys, max_images or n_keys)
        need, free = n * resolution**2 * 3, shutil.disk_usage(temporary.parent).free
        if need > free:
            raise UserError(f"{output} needs {need / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB free; make room")
        size = max(1, min(CHUNK_RECORDS, CHUNK_BYTES // (resolution**2 * 3)))
        chunks = _chunks(lsun.iterate_keys(environment, n), size)
        read = partial(read_images, os.fspath(source), resolution)
        check = partial(_check_skipped, source, n, max_corrupt_fraction)
        with closing(ordered_map(read, chunks, min(workers, -(-n // size)))) as results:
            n_used, skipped, sha256 = _write_array(temporary, results, n, resolution, check)
        if n_used == 0:
            raise UserError(f"{source}: no record decodes (the first: {_describe(skipped[0])}); fetch it again")
    # After the array: a manifest that is there describes an array that is complete.
    manifest = {
        "source": os.fspath(source),
        "label": label or Path(source).name,
        "synthetic": synthetic,
        "resolution": resolution,
        "n_keys": n_keys,
        "max_images": max_images,
        "n_used": n_used,
        "skipped": skipped,
        "sha256": sha256,
    }
    write_json(manifest_path, manifest)
    return manifest


def squash(image: Image.Image, resolution: int) -> Image.Image:
    """The image as resolution x resolution pixels: what torchvision's Resize((R, R)) gives for a PIL image."""
    if image.size == (resolution, resolution):
        return image
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR)


def read_images(path: str, resolution: int, keys: list[bytes]) -> tuple[np.ndarray, list[dict]]:
    """Decode and squash the records of `keys`: uint8 (n, R, R, 3) of those that decode, {key, reason} of the others."""
    environment = _environment(path)
    images, skipped = np.empty((len(keys), resolution, resolution, 3), np.uint8), []
    n = 0
    for key in keys:
        try:
            images[n] = squash(lsun.decode_image(lsun.read_value(environment, key)), resolution)
            n += 1
        except lsun.CorruptRecord as reason:
            skipped.append({"key": key.decode(), "reason": str(reason)})
        except MemoryError as error:
            # Not a skipped record: which images are used must not depend on the memory that happened to be free.
            raise UserError(f"{path}: not enough memory to decode key {key.decode()}; use fewer --workers") from error
    return images[:n], skipped


@cache
def _environment(path: str) -> lmdb.Environment:
    """The LMDB, opened once in each worker process."""
    return lsun.open_lmdb(path)


def _chunks(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    keys = iter(keys)
    while chunk := list(islice(keys, size)):
        yield chunk


def _write_array(path: Path, results: Iterable, n: int, resolution: int, check) -> tuple[int, list[dict], str]:
    """Write the images of `results` as one npy file; returns their number, the skipped records and the SHA-256.

    How many there are is known at the end only. The header is written for `n` and then again: numpy leaves room in it
    for the first axis to change.
    """
    n_used, skipped, digest = 0, [], hashlib.sha256()
    with open(path, "wb") as file, progress(n, "images", "preprocess") as advance:
        _write_header(file, n, resolution)
        start = file.tell()
        for images, bad in results:
            file.write(images.data)
            digest.update(images.data)
            n_used += len(images)
            skipped += bad
            check(skipped)
            advance(len(images) + len(bad))
        file.seek(0)
        _write_header(file, n_used, resolution)
        if file.tell() != start:
            raise RuntimeError("numpy wrote headers of different lengths")
    return n_used, skipped, digest.hexdigest()


def _write_header(file, n: int, resolution: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, resolution, resolution, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _check_skipped(source: str | os.PathLike, n: int, max_fraction: float, skipped: list[dict]) -> None:
    """Raise UserError as soon as more than the allowed fraction of all `n` records is bad."""
    if len(skipped) > max_fraction * n:
        raise UserError(
            f"{source}: {len(skipped)} of {n:,} records do not decode, more than --max-corrupt-fraction "
            f"{max_fraction:g} allows (the first: {_describe(skipped[0])}); fetch it again, or raise the fraction"
        )


def _describe(record: dict) -> str:
    return f"key {record['key']}: {record['reason']}"
