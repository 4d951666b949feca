"""Preprocessing pictures: ours, torchvision's data set with a DataLoader, and decoding alone."""

from contextlib import suppress
from functools import partial
from pathlib import Path

from blurdiff.benchmark.rows import Row, Target, Work

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


def stages(quick: bool, folder: Path, lmdb: str | None, workers: int) -> list[list[Row]]:
    """The rows of each data set: the user's, or synthetic images of LSUN's size, as WebP (as LSUN is) and as JPEG."""
    n = 64 if quick else 4096 * min(workers, 8)  # so many that starting the processes counts little
    if lmdb:
        return [_rows(f"preprocessing {Path(lmdb).name}", lmdb, folder, n, workers)]
    data = {name: str(data_folder(folder, name)) for name in formats_of(quick)}
    stages = [_rows(f"preprocessing, {name}", path, folder, n, workers) for name, path in data.items()]
    return [*stages, *([] if quick else _rows_of_files(folder, n, workers))]


def formats_of(quick: bool) -> list[str]:
    return ["WEBP"] if quick else list(QUALITIES)


def data_folder(folder: Path, file_format: str) -> Path:
    """Where `prepare` writes the LMDB; torchvision wants LSUN's names."""
    return Path(folder, file_format.lower(), "bedroom_train_lmdb")


def _rows(stage: str, lmdb: str, folder: Path, n: int, workers: int) -> list[Row]:
    arguments = {"kind": "lmdb", "path": lmdb, "n": n, "workers": workers}
    writing = {**arguments, "scratch": str(folder)}
    of = {"baseline": TORCHVISION, "images_per_item": 1.0, "on_cpu": True}
    return [
        Row(stage, TORCHVISION, torchvision_loader, writing, **of),
        Row(stage, DECODING, decoding, arguments, **of),
        Row(stage, OURS, ours, writing, tolerance=0.0,
            targets=(Target(TORCHVISION, 1.0), Target(DECODING, 0.85)), **of),
    ]  # fmt: skip


def _rows_of_files(folder: Path, n: int, workers: int) -> list[list[Row]]:
    """A folder and a zip of the JPEG files, both beside torchvision's ImageFolder."""
    of = {"baseline": IMAGE_FOLDER, "images_per_item": 1.0, "on_cpu": True}
    arguments = {"n": n, "workers": workers, "scratch": str(folder)}
    theirs = {**arguments, "kind": "folder", "path": str(folder / "jpeg" / "files")}
    paths = {"folder": theirs["path"], "zip": str(folder / "jpeg" / "files.zip")}
    return [
        [
            Row(f"preprocessing, {kind} of JPEG", IMAGE_FOLDER, torchvision_loader, theirs, **of),
            Row(f"preprocessing, {kind} of JPEG", OURS, ours, {**arguments, "kind": kind, "path": path}, tolerance=0.0,
                targets=(Target(IMAGE_FOLDER, 1.0),), **of),
        ]
        for kind, path in paths.items()
    ]  # fmt: skip


def prepare(folder: str, n_drawn: int, n: int, formats: list[str], workers: int) -> None:
    """Write an LMDB a format: `n` records, of `n_drawn` pictures that come back; of JPEG a folder and a zip too."""
    import hashlib
    import zipfile

    import lmdb

    from blurdiff.runtime.parallel import ordered_map

    chunks = [range(start, min(start + 16, n_drawn)) for start in range(0, n_drawn, 16)]
    drawn = [image for part in ordered_map(partial(_files, formats), chunks, workers) for image in part]
    for number, name in enumerate(formats):
        path = data_folder(Path(folder), name)
        path.mkdir(parents=True)
        with (
            lmdb.open(str(path), map_size=(1 << 16) * n + (1 << 24), lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for k in range(n):
                value = drawn[k % n_drawn][number]
                transaction.put(hashlib.sha1(value + k.to_bytes(4, "big")).hexdigest().encode(), value)
    if "JPEG" in formats:
        files = Path(folder, "jpeg", "files", "0")
        files.mkdir(parents=True)
        with zipfile.ZipFile(files.parent.with_suffix(".zip"), "w") as archive:
            for k in range(n):
                value = drawn[k % n_drawn][formats.index("JPEG")]
                (files / f"{k:08}.jpg").write_bytes(value)
                archive.writestr(f"0/{k:08}.jpg", value)


def _files(formats: list[str], indices: range) -> list[list[bytes]]:
    """Pictures of LSUN's size as files, each in every format."""
    import io
    import random

    from PIL import Image

    from blurdiff.data.synthetic import bedroom

    result = []
    for index in indices:
        picture = Image.fromarray(bedroom.draw(random.Random(index), *DRAWN))
        picture = picture.resize((round(SHORT_SIDE * DRAWN[0] / DRAWN[1]), SHORT_SIDE), Image.Resampling.BICUBIC)
        result.append([])
        for name in formats:
            buffer = io.BytesIO()
            picture.save(buffer, name, quality=QUALITIES[name])
            result[-1].append(buffer.getvalue())
    return result


def _work(call, kind: str, path: str, n: int, workers: int, result=None) -> Work:
    """Bytes read and written are an image's file and its pixels."""
    from contextlib import closing

    from blurdiff.data.sources import open_reader

    with closing(open_reader(kind, path)) as reader:
        n = min(n, reader.identify()["entries"])
        sizes = [len(reader.read(record)) for record in reader.records(0, min(n, 256))]
        size = sum(sizes) / len(sizes)
    return Work(call, n, "", None, RESOLUTION, n_bytes=size + 3 * RESOLUTION**2, result=result, has_processes=True,
                note=f"{n:,} images, {size / 1000:.1f} kB a file, {workers} processes")  # fmt: skip


def ours(device, threads: int, kind: str, path: str, n: int, workers: int, scratch: str) -> Work:
    """The whole stage `preprocess`: start of the processes, checksum, and files synced to the disk included."""
    import tempfile

    from blurdiff.data.preprocess import preprocess

    manifests = []
    target = tempfile.mkdtemp(dir=scratch)

    def call() -> None:
        manifests[:] = [
            preprocess(path, Path(target, "images.npy"), Path(target, "manifest.json"), kind=kind,
                       resolution=RESOLUTION, max_images=n, max_corrupt_fraction=1, workers=workers)
        ]  # fmt: skip

    return _work(call, kind, path, n, workers, lambda: f"{manifests[0].n_used} {manifests[0].sha256}")


def torchvision_loader(device, threads: int, kind: str, path: str, n: int, workers: int, scratch: str) -> Work:
    """torchvision's LSUN class or ImageFolder, resized to squares, through a DataLoader into an array in memory."""
    import hashlib
    import os
    import tempfile

    import numpy as np
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.lsun import LSUNClass

    path = os.path.abspath(path)
    work = _work(None, kind, path, n, workers)  # first: an LMDB opens once in a process
    os.chdir(tempfile.mkdtemp(dir=scratch))  # the class writes a cache of the keys to where it runs
    squash = transforms.Compose([transforms.Resize((RESOLUTION, RESOLUTION)), transforms.PILToTensor()])
    dataset = {"lmdb": LSUNClass, "folder": ImageFolder}[kind](path, transform=squash)
    dataset = Subset(dataset, range(work.items))
    images = np.empty((len(dataset), RESOLUTION, RESOLUTION, 3), np.uint8)

    def call() -> None:
        position = 0
        for batch, _ in DataLoader(dataset, BATCH, num_workers=workers, collate_fn=_collate):
            images[position : position + len(batch)] = batch.permute(0, 2, 3, 1).numpy()
            position += len(batch)

    work.call, work.result = call, lambda: f"{len(images)} {hashlib.sha256(images).hexdigest()}"
    return work


def _collate(samples: list) -> tuple:
    """The images of a batch; LSUN has no targets, which the default collation refuses."""
    import torch

    return torch.stack([image for image, _ in samples]), None


def decoding(device, threads: int, kind: str, path: str, n: int, workers: int) -> Work:
    """Each file decoded to RGB and dropped, by processes that start and share the work as ours do."""
    from contextlib import closing

    from blurdiff.data.preprocess import CHUNK_RECORDS
    from blurdiff.data.sources import open_reader
    from blurdiff.runtime.parallel import ordered_map

    def call() -> None:
        with closing(open_reader(kind, path)) as reader:
            records = list(reader.records(0, n))
        chunks = [records[start : start + CHUNK_RECORDS] for start in range(0, len(records), CHUNK_RECORDS)]
        with closing(ordered_map(partial(_decode, kind, path), chunks, workers)) as results:
            for _ in results:
                pass

    return _work(call, kind, path, n, workers)


def _decode(kind: str, path: str, records: list) -> None:
    from blurdiff.data import lsun
    from blurdiff.data.preprocess import _reader

    with lsun.quiet():
        for record in records:
            with suppress(lsun.CorruptRecord):
                lsun.decode_image(_reader(kind, path).read(record))
