"""Pictures as files, LMDBs of them as LSUN has them, and arrays as they are preprocessed."""

import hashlib
import io
import json
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image


def key(number: int) -> bytes:
    return b"%040x" % number


def noise(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_lmdb(folder: Path, *transactions: dict[bytes, bytes]) -> Path:
    """Write an LMDB of these records, one transaction each dictionary; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 26, lock=False) as environment:
        for records in transactions:
            with environment.begin(write=True) as transaction:
                for name, value in records.items():
                    transaction.put(name, value)
    return folder


def write_images(folder: Path, images: np.ndarray, **more) -> None:
    """Write images.npy, uint8 (n, R, R, 3), and its manifest.json, with `more` in it."""
    np.save(folder / "images.npy", images)
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    manifest = {"n_used": len(images), "resolution": images.shape[1], "sha256": digest, **more}
    (folder / "manifest.json").write_text(json.dumps(manifest))
