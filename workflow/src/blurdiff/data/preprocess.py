"""From an LSUN-format LMDB to images.npy, uint8 (n, R, R, 3), and its manifest."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache, partial
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from blurdiff.data import lsun, unfinished
from blurdiff.data.manifest import Manifest, read_manifest, write_manifest
from blurdiff.errors import UserError
from blurdiff.runtime import arrays
from blurdiff.runtime.parallel import WorkerDied, available_cores, ordered_map, progress
from blurdiff.runtime.signals import StopSignals

CHUNK_RECORDS = 64
CHUNK_BYTES = 1 << 22


class Interrupted(UserError):
    """A signal came; the message tells what is kept."""


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
    part: tuple[int, int] | None = None,
) -> Manifest:
    """Write `output` (uint8 (n_used, R, R, 3), order of the keys), then its manifest; returns the manifest.

    In the manifest n_used + len(skipped) is the number of records read, min(n_keys, max_images). With `part` (k, n),
    `output` holds the k-th of n equal parts of those records, and the manifest says so: n_used, skipped and sha256 are
    the part's, and part, parts and lmdb stand beside them.

    What an earlier call of the same LMDB, resolution, max_images and part has done is not done again, however it ended
    (see `unfinished`). Raises UserError for a bad LMDB or key (see `lsun`), too many bad records, a full disk, a dead
    worker; Interrupted on SIGTERM, SIGINT and SIGUSR1.
    """
    workers = available_cores() if workers is None else workers
    k, parts = part or (0, 1)
    for name, value in {"resolution": resolution, "max-images": max_images, "workers": workers, "parts": parts}.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} must be 1 or more, not {value}")
    if not 0 <= k < parts:
        raise UserError(f"--part must be between 0 and {parts - 1} (--parts {parts}), not {k}")
    if not 0 <= max_corrupt_fraction <= 1:
        raise UserError(f"--max-corrupt-fraction must be between 0 and 1, not {max_corrupt_fraction}")
    output, manifest_path = Path(output), Path(manifest_path)

    lsun.check_lmdb(source)
    with unfinished.held(output) as (folder, waited), lsun.open_lmdb(source) as environment:
        state = lsun.identify(environment)
        n_keys = state["entries"]
        n_all = min(n_keys, max_images or n_keys)
        start, stop = k * n_all // parts, (k + 1) * n_all // parts
        known = {
            "source": os.fspath(source),
            "label": label or Path(source).name,
            "synthetic": synthetic,
            "resolution": resolution,
            "n_keys": n_keys,
            "max_images": max_images,
        }
        of_part = {"part": k, "parts": parts, "lmdb": state} if part else {}
        if waited and (manifest := _made_meanwhile(output, manifest_path, known | of_part, state)):
            say(f"{output} has been made meanwhile")
            return manifest
        check = partial(check_skipped, source, n_all, max_corrupt_fraction)
        work = unfinished.Unfinished(folder, {"lmdb": state, "records": [start, stop]}, resolution)
        with closing(work):
            check_room(output, folder, (stop - start - work.position.images) * resolution**2 * 3)
            _read_records(environment, work, start, stop, os.fspath(source), workers, check)
            if lsun.identify(environment) != state:
                raise UserError(f"{source} was changed while it was read; run again")
            position = work.position
            if position.images == 0 and not part:
                work.forget()
                raise UserError(f"{source}: no record decodes (the first: {describe(position.skipped[0])}); "
                                "fetch it again")  # fmt: skip
            work.publish(output)
            # After the array: a manifest that is there describes an array that is complete.
            made = {"n_used": position.images, "skipped": position.skipped, "sha256": work.digest.hexdigest()}
            manifest = Manifest(**known, **made, **of_part)
            write_manifest(manifest_path, manifest)
            work.forget()
    return manifest


def _made_meanwhile(output: Path, manifest_path: Path, known: dict, state: dict) -> Manifest | None:
    """The manifest that another process wrote while this one waited for it, if it is the one that is wanted here."""
    if not (output.is_file() and manifest_path.is_file()) or manifest_path.stat().st_mtime_ns < state["mtime_ns"]:
        return None
    manifest = read_manifest(manifest_path)
    return manifest if all(getattr(manifest, key) == value for key, value in known.items()) else None


def check_room(output: str | os.PathLike, folder: Path, need: int) -> None:
    """Raise UserError unless the disk of `folder` has room for `need` more bytes, on the way to `output`."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(f"{output} needs {need / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB free; make room")


def _read_records(
    environment: lmdb.Environment,
    work: unfinished.Unfinished,
    start: int,
    stop: int,
    source: str,
    workers: int,
    check,
) -> None:
    """Read the records number `start` to `stop` that are not read yet; the workers write the images themselves."""
    n, done, resolution = stop - start, work.position.records, work.resolution
    if done:
        say(f"going on after record {done:,} of {n:,}: {work.position.images:,} images are there")
    check(work.position.skipped)
    if done == n:
        return
    last_key = work.position.last_key
    keys = lsun.iterate_keys(environment, n - done, start, after=last_key and last_key.encode())
    size = max(1, min(CHUNK_RECORDS, CHUNK_BYTES // (resolution**2 * 3)))
    write = partial(write_images, source, os.fspath(work.array), resolution)
    with (
        StopSignals() as signals,
        progress(n, "images", "preprocess", done) as advance,
        closing(ordered_map(write, _tasks(source, keys, size, done), min(workers, -(-(n - done) // size)))) as results,
    ):
        try:
            for n_records, n_images, last_key, skipped in results:
                work.place(n_records, n_images, last_key, skipped)
                check(work.position.skipped)
                advance(n_records)
                if signals.received:
                    raise _interrupted(signals, work, n)
                work.save(now=False)
            work.save(now=True)
        except (UserError, OSError, EOFError) as error:
            with suppress(UserError, OSError):
                work.save(now=True)
            if isinstance(error, WorkerDied) and signals.received:  # they got the signal too
                raise _interrupted(signals, work, n) from error
            if isinstance(error, WorkerDied):
                lsun.check_lmdb(source)  # was it that?
            if isinstance(error, UserError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot write {work.array}: {reason}; make room and run again: it goes on from record "
                f"{work.position.records:,} of {n:,}"
            ) from error


def _interrupted(signals: StopSignals, work: unfinished.Unfinished, n: int) -> Interrupted:
    return Interrupted(f"stopped by {signals.received} after record {work.position.records:,} of {n:,}; "
                       "the same command goes on from there")  # fmt: skip


def squash(image: Image.Image, resolution: int) -> Image.Image:
    """The image as resolution x resolution pixels: what torchvision's Resize((R, R)) gives for a PIL image."""
    if image.size == (resolution, resolution):
        return image
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR)


def read_images(path: str, resolution: int, keys: list[bytes]) -> tuple[np.ndarray, list[dict]]:
    """Decode and squash the records of `keys`: uint8 (n, R, R, 3) of those that decode, {key, reason} of the others."""
    images, skipped = np.empty((len(keys), resolution, resolution, 3), np.uint8), []
    n = 0
    with lsun.quiet():
        for key, value in zip(keys, lsun.read_values(_environment(path), keys), strict=True):
            try:
                pixels = squash(lsun.decode_image(value), resolution).tobytes()
            except lsun.CorruptRecord as reason:
                skipped.append({"key": key.decode(), "reason": str(reason)})
            except MemoryError as error:
                # Not a skipped record: which images are used must not depend on the memory that happened to be free.
                raise UserError(
                    f"{path}: not enough memory to decode key {key.decode()}; use fewer --workers"
                ) from error
            else:
                images[n] = np.frombuffer(pixels, np.uint8).reshape(images.shape[1:])
                n += 1
    return images[:n], skipped


def write_images(path: str, array: str, resolution: int, task: tuple[int, list[bytes]]) -> tuple[int, int, str, list]:
    """Write the images of a task's records into the file `array`, as image number `task[0]` and following.

    Returns the number of records and images, the last key, and the skipped records: a few bytes, where the images
    themselves would cost the parent a copy through a pipe.
    """
    place, keys = task
    images, skipped = read_images(path, resolution, keys)
    arrays.write_at(_descriptor(array), images.reshape(-1).data, arrays.offset(place, resolution))
    return len(keys), len(images), keys[-1].decode(), skipped


@cache
def _descriptor(array: str) -> int:
    """The unfinished array, opened once in each worker process."""
    return unfinished.open_to_write(array)


@cache
def _environment(path: str) -> lmdb.Environment:
    """The LMDB, opened once in each worker process."""
    return lsun.open_lmdb(path)


def _tasks(source: str, keys: Iterator[bytes], size: int, place: int) -> Iterator[tuple[int, list[bytes]]]:
    """Tasks: as many keys as `size`, and where their images go if no record before them is skipped."""
    while True:
        lsun.check_lmdb(source)  # a file that is truncated while it is mapped kills its readers, without a word
        if not (chunk := list(islice(keys, size))):
            return
        yield place, chunk
        place += len(chunk)


def check_skipped(source: str | os.PathLike, n: int, max_fraction: float, skipped: list[dict]) -> None:
    """Raise UserError as soon as more than the allowed fraction of all `n` records is bad."""
    if len(skipped) > max_fraction * n:
        raise UserError(
            f"{source}: {len(skipped)} of {n:,} records do not decode, more than --max-corrupt-fraction "
            f"{max_fraction:g} allows (the first: {describe(skipped[0])}); fetch it again, or raise the fraction"
        )


def describe(record: dict) -> str:
    """A skipped record in words."""
    return f"key {record['key']}: {record['reason']}"


def say(text: str) -> None:
    """A line for the log."""
    print(f"preprocess: {text}", file=sys.stderr, flush=True)
