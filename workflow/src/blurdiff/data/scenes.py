"""A synthetic data set, drawn from a seed and written as a genuine LSUN-format LMDB (40-hex keys, WebP values)."""

import hashlib
import io
import os
import random
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

import lmdb
from PIL import Image

from blurdiff.config.made import SCENES
from blurdiff.data.synthetic import bedroom, church
from blurdiff.errors import UserError
from blurdiff.runtime.files import atomic_path, write_json
from blurdiff.runtime.machine import available_cores
from blurdiff.runtime.parallel import ordered_map, progress

KINDS = {"bedroom": bedroom.draw, "church": church.draw}
SHORT_SIDES = range(64, 81)
ASPECTS = (3 / 4, 1.0, 4 / 3, 4 / 3, 3 / 2)  # width to height
CHUNK = 32
# An image takes 4 kB; LMDB reserves address space, not disk.
MAP_BYTES_PER_IMAGE = 1 << 16


def synthesize(kind: str, output: str | os.PathLike, n_images: int, seed: int = 0, workers: int | None = None) -> None:
    """Write the folder `output` with a data.mdb of `n_images` records, and SCENES, which says what was drawn; a key is
    the SHA-1 of its value.

    Raises UserError when a number is out of range, the folder cannot be written, or a worker dies.
    """
    workers = available_cores() if workers is None else workers
    for name, value, least in (("n-images", n_images, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"--{name} must be {least} or more, not {value}")
    chunks = [range(start, min(start + CHUNK, n_images)) for start in range(0, n_images, CHUNK)]
    # The copy leaves out LMDB's free pages, so that the file depends on the images alone; and there is no lock.mdb.
    with atomic_path(Path(output) / "data.mdb") as temporary, tempfile.TemporaryDirectory(dir=temporary.parent) as work:
        try:
            size = n_images * MAP_BYTES_PER_IMAGE + (1 << 24)
            with lmdb.open(work, map_size=size, sync=False, lock=False) as environment:
                draw = ordered_map(partial(draw_files, kind, seed), chunks, min(workers, len(chunks)))
                with closing(draw) as results, progress(n_images, "images", f"draw {kind}") as advance:
                    for values in results:
                        with environment.begin(write=True) as transaction:
                            for value in values:
                                transaction.put(hashlib.sha1(value).hexdigest().encode(), value)
                        advance(len(values))
                if environment.stat()["entries"] != n_images:
                    raise RuntimeError("two images are the same")
                with open(temporary, "wb") as file:
                    environment.copyfd(file.fileno(), compact=True)
        except lmdb.Error as error:
            raise UserError(f"cannot write {output}: {error}; is the disk full?") from error
    write_json(Path(output) / SCENES, {"synthetic": kind, "n_images": n_images, "seed": seed})


def draw_image(kind: str, seed: int, index: int) -> Image.Image:
    """Image `index` of a set: RGB, the short side 64 to 80 pixels, the sides at most 3 to 2."""
    # A string seeds Python's generator by its SHA-512: neighbouring indices are as different as distant ones.
    rng = random.Random(f"{kind} {seed} {index}")
    short, aspect = rng.choice(SHORT_SIDES), rng.choice(ASPECTS)
    width, height = (round(short * aspect), short) if aspect >= 1 else (short, round(short / aspect))
    return Image.fromarray(KINDS[kind](rng, width, height))


def draw_files(kind: str, seed: int, indices: range) -> list[bytes]:
    """The images of `indices` as WebP files."""
    values = []
    for index in indices:
        buffer = io.BytesIO()
        draw_image(kind, seed, index).save(buffer, "WEBP", quality=90, method=2)
        values.append(buffer.getvalue())
    return values
