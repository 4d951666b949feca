"""Preprocessing pictures: ours, torchvision's data set with a DataLoader, and decoding alone.

The processes that decode import this file, so that torch is imported by torchvision's rows alone.
"""

import hashlib
import io
import os
import random
import tempfile
import zipfile
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from blurdiff.benchmark.rows import Bench, Row, Target, Work
from blurdiff.data import lsun
from blurdiff.data.manifest import Manifest
from blurdiff.data.preprocess import CHUNK_RECORDS, _reader, preprocess
from blurdiff.data.sources import open_reader
from blurdiff.data.synthetic import bedroom
from blurdiff.runtime.parallel import ordered_map

TORCHVISION = "torchvision's LSUN and DataLoader"
IMAGE_FOLDER = "torchvision's ImageFolder and DataLoader"
DECODING = "decoding alone, in our processes"
OURS = "ours, to images.npy"
RESOLUTION = 64  # the paper's
BATCH = 64
SHORT_SIDE = 256  # LSUN's
# The renderer's largest picture; enlarged to LSUN's size, its files at these qualities are of LSUN's size.
DRAWN = (240, 180)
QUALITIES = {"WEBP": 80, "JPEG": 75}
N_DRAWN = 256  # pictures, which come back


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of each data set: the user's, or synthetic images of LSUN's size, as WebP (as LSUN is) and as JPEG.

    The JPEG files stand in a folder and in a zip too, both beside torchvision's ImageFolder.
    """
    n = 64 if bench.quick else 4096 * min(bench.threads, 8)  # so many that starting the processes counts little
    arguments = {"n": n, "scratch": str(bench.folder)}
    if bench.lmdb:
        return [_rows(f"preprocessing {Path(bench.lmdb).name}", arguments, "lmdb", bench.lmdb)]
    formats = ["WEBP"] if bench.quick else list(QUALITIES)
    prepare(bench.folder, min(n, N_DRAWN), n, formats, bench.threads)
    result = [_rows(f"preprocessing, {name}", arguments, "lmdb", data_folder(bench.folder, name)) for name in formats]
    if "JPEG" in formats:
        files = str(bench.folder / "jpeg" / "files")
        result.append(_rows("preprocessing, folder of JPEG", arguments, "folder", files))
        result.append(_rows("preprocessing, zip of JPEG", arguments, "zip", f"{files}.zip", files))
    return result


def _rows(stage: str, arguments: dict, kind: str, path: str, files: str | None = None) -> list[Row]:
    """Ours beside torchvision's, which reads no zip but the `files` that are in it; of an LMDB decoding alone too."""
    theirs = TORCHVISION if kind == "lmdb" else IMAGE_FOLDER
    own = {**arguments, "kind": kind, "path": path}
    row = partial(Row, stage, baseline=theirs, images_per_item=1.0, on_cpu=True)
    rows, targets = [row(theirs, torchvision_loader, {**own, "path": files or path})], [Target(theirs, 1.0)]
    if kind == "lmdb":
        rows.append(row(DECODING, decoding, own))
        targets.append(Target(DECODING, 0.85))
    return [*rows, row(OURS, ours, own, tolerance=0.0, targets=tuple(targets))]


def data_folder(folder: Path, file_format: str) -> str:
    """Where `prepare` writes the LMDB; torchvision wants LSUN's names."""
    return str(folder / file_format.lower() / "bedroom_train_lmdb")


def prepare(folder: Path, n_drawn: int, n: int, formats: list[str], workers: int) -> None:
    """Write an LMDB a format: `n` records, of `n_drawn` pictures that come back; of JPEG a folder and a zip too."""
    drawn = list(ordered_map(partial(_files, formats), range(n_drawn), workers))
    for name in formats:
        values = [files[name] for files in drawn]
        path = data_folder(folder, name)
        os.makedirs(path)
        with (
            lmdb.open(path, map_size=(1 << 16) * n + (1 << 24), lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for k in range(n):
                transaction.put(f"{k:040x}".encode(), values[k % n_drawn])
    if "JPEG" in formats:
        files = folder / "jpeg" / "files" / "0"
        files.mkdir(parents=True)
        with zipfile.ZipFile(files.parent.with_suffix(".zip"), "w") as archive:
            for k in range(n):
                (files / f"{k:08}.jpg").write_bytes(values[k % n_drawn])
                archive.writestr(f"0/{k:08}.jpg", values[k % n_drawn])


def _files(formats: list[str], index: int) -> dict[str, bytes]:
    """A picture of LSUN's size as a file in every format."""
    picture = Image.fromarray(bedroom.draw(random.Random(index), *DRAWN))
    picture = picture.resize((round(SHORT_SIDE * DRAWN[0] / DRAWN[1]), SHORT_SIDE), Image.Resampling.BICUBIC)
    result = {}
    for name in formats:
        buffer = io.BytesIO()
        picture.save(buffer, name, quality=QUALITIES[name])
        result[name] = buffer.getvalue()
    return result


def _work(call, kind: str, path: str, n: int, workers: int, result=None) -> Work:
    """Bytes read and written are an image's file and its pixels."""
    with closing(open_reader(kind, path)) as reader:
        n = min(n, reader.identify()["entries"])
        sizes = [len(reader.read(record)) for record in reader.records(0, min(n, 256))]
    size = sum(sizes) / len(sizes)
    return Work(call, n, "", None, RESOLUTION, n_bytes=size + 3 * RESOLUTION**2, result=result, has_processes=True,
                note=f"{n:,} images, {size / 1000:.1f} kB a file, {workers} processes")  # fmt: skip


def ours(device, threads: int, kind: str, path: str, n: int, scratch: str) -> Work:
    """The whole stage `preprocess`: start of the processes, checksum, and files synced to the disk included."""
    manifests: list[Manifest] = []
    target = tempfile.mkdtemp(dir=scratch)

    def call() -> None:
        manifests[:] = [
            preprocess(path, Path(target, "images.npy"), Path(target, "manifest.json"), kind=kind,
                       resolution=RESOLUTION, max_images=n, max_corrupt_fraction=1, workers=threads)
        ]  # fmt: skip

    return _work(call, kind, path, n, threads, lambda: f"{manifests[0].n_used} {manifests[0].sha256}")


def torchvision_loader(device, threads: int, kind: str, path: str, n: int, scratch: str) -> Work:
    """torchvision's LSUN class or ImageFolder, resized to squares, through a DataLoader into an array in memory."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.lsun import LSUNClass

    path = os.path.abspath(path)
    dataset_type, kind = (LSUNClass, "lmdb") if kind == "lmdb" else (ImageFolder, "folder")
    work = _work(None, kind, path, n, threads)  # first: an LMDB opens once in a process
    os.chdir(tempfile.mkdtemp(dir=scratch))  # the class writes a cache of the keys to where it runs
    squash = transforms.Compose([transforms.Resize((RESOLUTION, RESOLUTION)), transforms.PILToTensor()])
    # LSUN's targets are None, which a DataLoader refuses.
    dataset = Subset(dataset_type(path, transform=squash, target_transform=bool), range(work.items))
    images = np.empty((len(dataset), RESOLUTION, RESOLUTION, 3), np.uint8)

    def call() -> None:
        position = 0
        for batch, _ in DataLoader(dataset, BATCH, num_workers=threads):
            images[position : position + len(batch)] = batch.permute(0, 2, 3, 1).numpy()
            position += len(batch)

    work.call, work.result = call, lambda: f"{len(images)} {hashlib.sha256(images.data).hexdigest()}"
    return work


def decoding(device, threads: int, kind: str, path: str, n: int, scratch: str) -> Work:
    """Each file decoded to RGB and dropped, by processes that start and share the work as ours do."""

    def call() -> None:
        with closing(open_reader(kind, path)) as reader:
            records = list(reader.records(0, n))
        chunks = [records[start : start + CHUNK_RECORDS] for start in range(0, len(records), CHUNK_RECORDS)]
        with closing(ordered_map(partial(_decode, kind, path), chunks, threads)) as results:
            for _ in results:
                pass

    return _work(call, kind, path, n, threads)


def _decode(kind: str, path: str, records: list) -> None:
    with lsun.quiet():
        for record in records:
            with suppress(lsun.CorruptRecord):
                lsun.decode_image(_reader(kind, path).read(record))
