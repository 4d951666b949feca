"""From the pictures of a data set (see `sources`) to images.npy, uint8 (n, R, R, 3), and its manifest."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from blurdiff.data import lsun, unfinished
from blurdiff.data.manifest import Manifest, read_manifest, write_manifest
from blurdiff.data.sources import Reader, Record, open_reader
from blurdiff.errors import UserError
from blurdiff.runtime import text
from blurdiff.runtime.files import check_room
from blurdiff.runtime.machine import available_cores
from blurdiff.runtime.parallel import WorkerDied, ordered_map, progress
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
    kind: str = "lmdb",
    crop: str | None = None,
    max_images: int | None = None,
    max_corrupt_fraction: float = 0.001,
    workers: int | None = None,
    label: str | None = None,
    synthetic: bool = False,
    part: tuple[int, int] | None = None,
) -> Manifest:
    """Write `output` (uint8 (n_used, R, R, 3), order of the records), then its manifest; returns the manifest.

    `source` is the path of a data set, and `kind` its name in `sources`; for `crop` see `squash`. In the manifest,
    n_used + len(skipped) is the number of records read, min(n_keys, max_images). With `part` (k, n), `output` holds the
    k-th of n equal parts of those records, and the manifest says so: n_used, skipped and sha256 are the part's, and
    part, parts and state stand beside them.

    What an earlier call of the same source, resolution, crop, max_images and part has done is not done again, however
    it ended (see `unfinished`). Raises UserError for a source that cannot be read (see `lsun` and `files`), too many
    bad records, a full disk, a dead worker; Interrupted on SIGTERM, SIGINT and SIGUSR1.
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

    reader = open_reader(kind, source)
    reader.check()
    with unfinished.held(output) as (folder, waited), closing(reader):
        state = reader.identify()
        if reader.note:
            say(reader.note)
        n_keys = state["entries"]
        n_all = min(n_keys, max_images or n_keys)
        start, stop = k * n_all // parts, (k + 1) * n_all // parts
        wanted = Manifest(
            source=os.fspath(source),
            label=label or Path(source).name,
            synthetic=synthetic,
            resolution=resolution,
            crop=crop,
            n_keys=n_keys,
            max_images=max_images,
        )
        if part:
            wanted = replace(wanted, part=k, parts=parts, state=state)
        if waited and (manifest := _made_meanwhile(output, manifest_path, wanted, state)):
            say(f"{output} has been made meanwhile")
            return manifest
        check = partial(check_skipped, source, n_all, max_corrupt_fraction)
        work = unfinished.Unfinished(folder, {"state": state, "records": [start, stop], "crop": crop}, resolution)
        with closing(work):
            check_room(output, folder, (stop - start - work.position.images) * resolution**2 * 3)
            read = partial(read_task, kind, os.fspath(source), resolution, crop)
            _read_records(reader, work, start, stop, read, workers, check)
            if reader.identify() != state:
                raise UserError(f"{source} was changed while it was read; run again")
            position = work.position
            if position.images == 0 and not part:
                work.forget()
                raise UserError(f"{source}: no record decodes (the first: {describe(position.skipped[0])}); "
                                "correct the path, or get it again")  # fmt: skip
            work.publish(output)
            # After the array: a manifest that is there describes an array that is complete.
            digest = work.digest.hexdigest()
            manifest = replace(wanted, n_used=position.images, skipped=position.skipped, sha256=digest)
            write_manifest(manifest_path, manifest)
            work.forget()
    return manifest


def _made_meanwhile(output: Path, manifest_path: Path, wanted: Manifest, state: dict) -> Manifest | None:
    """The manifest that another process wrote while this one waited for it, if it is the one that is wanted here."""
    if not (output.is_file() and manifest_path.is_file()) or manifest_path.stat().st_mtime_ns < state["mtime_ns"]:
        return None
    manifest = read_manifest(manifest_path)
    return manifest if replace(manifest, n_used=0, skipped=[], sha256=None) == wanted else None


def _read_records(
    reader: Reader,
    work: unfinished.Unfinished,
    start: int,
    stop: int,
    read: Callable,
    workers: int,
    check: Callable,
) -> None:
    """Read the records number `start` to `stop` that are not read yet, by `read` in the workers."""
    n, done, resolution = stop - start, work.position.records, work.resolution
    if done:
        say(f"going on after record {done:,} of {n:,}: {work.position.images:,} images are there")
    check(work.position.skipped)
    if done == n:
        return
    records = reader.records(start + done, stop, work.position.last_key)
    size = max(1, min(CHUNK_RECORDS, CHUNK_BYTES // (resolution**2 * 3)))
    with (
        StopSignals() as signals,
        progress(n, "images", "preprocess", done) as advance,
        closing(ordered_map(read, _tasks(reader, records, size), min(workers, -(-(n - done) // size)))) as results,
    ):
        try:
            for images, skipped, last_key in results:
                work.add(images, skipped, last_key)
                check(work.position.skipped)
                advance(len(images) + len(skipped))
                if signals.received:
                    raise _interrupted(signals, work, n)
                work.save(now=False)
            work.save(now=True)
        except (UserError, OSError) as error:
            with suppress(UserError, OSError):
                work.save(now=True)
            if isinstance(error, WorkerDied) and signals.received:  # they got the signal too
                raise _interrupted(signals, work, n) from error
            if isinstance(error, UserError):
                reader.check()  # was it that?
                raise
            raise UserError(
                f"cannot write {work.array}: {error.strerror or error}; make room and run again: it goes on from "
                f"record {work.position.records:,} of {n:,}"
            ) from error


def _interrupted(signals: StopSignals, work: unfinished.Unfinished, n: int) -> Interrupted:
    return Interrupted(f"stopped by {signals.received} after record {work.position.records:,} of {n:,}; "
                       "the same command goes on from there")  # fmt: skip


def squash(image: Image.Image, resolution: int, crop: str | None = None) -> Image.Image:
    """The image as resolution x resolution pixels: what torchvision's Resize((R, R)) gives for a PIL image.

    With `crop` "center", of the largest square in its middle: what torchvision's CenterCrop of the short side gives.
    """
    if crop == "center":
        side = min(image.size)
        left, top = (round((length - side) / 2) for length in image.size)
        image = image.crop((left, top, left + side, top + side))
    if image.size == (resolution, resolution):
        return image
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR)


def read_images(
    reader: Reader, resolution: int, crop: str | None, records: list[Record]
) -> tuple[np.ndarray, list[dict]]:
    """Decode records and make them square: uint8 (n, R, R, 3) of those that decode, {key, reason} of the others."""
    images, skipped = np.empty((len(records), resolution, resolution, 3), np.uint8), []
    n = 0
    with lsun.quiet():
        for record in records:
            try:
                pixels = squash(lsun.decode_image(reader.read(record)), resolution, crop).tobytes()
            except lsun.CorruptRecord as reason:
                skipped.append({"key": record.key, "reason": str(reason)})
            except MemoryError as error:
                # Not a skipped record: which images are used must not depend on the memory that happened to be free.
                raise UserError(f"not enough memory to decode {text.shown(record.key)}; use fewer --workers") from error
            else:
                images[n] = np.frombuffer(pixels, np.uint8).reshape(images.shape[1:])
                n += 1
    return images[:n], skipped


def read_task(
    kind: str, path: str, resolution: int, crop: str | None, records: list[Record]
) -> tuple[np.ndarray, list[dict], str]:
    """`read_images` in a worker process, of the data set that it has open; and the last key."""
    return *read_images(_reader(kind, path), resolution, crop, records), records[-1].key


@cache
def _reader(kind: str, path: str) -> Reader:
    """The data set, opened once in each worker process."""
    return open_reader(kind, path)


def _tasks(reader: Reader, records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """The records, as many at a time as `size`."""
    while True:
        reader.check()  # an LMDB that is truncated while it is mapped kills its readers, without a word
        if not (chunk := list(islice(records, size))):
            return
        yield chunk


def check_skipped(source: str | os.PathLike, n: int, max_fraction: float, skipped: list[dict]) -> None:
    """Raise UserError as soon as more than the allowed fraction of all `n` records is bad."""
    if len(skipped) > max_fraction * n:
        raise UserError(
            f"{source}: {len(skipped)} of {n:,} records do not decode, more than --max-corrupt-fraction "
            f"{max_fraction:g} allows (the first: {describe(skipped[0])}); get them again, or raise the fraction"
        )


def describe(record: dict) -> str:
    """A skipped record in words."""
    return f"{text.shown(record['key'])}: {record['reason']}"


def say(line: str) -> None:
    """A line for the log."""
    text.say(f"preprocess: {line}")
