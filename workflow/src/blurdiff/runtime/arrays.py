"""Arrays as files, read and written here alone: .npz archives, and images.npy, which may be written piece by piece.

Nothing that is read is unpickled, and what is damaged ends in one line that names the file and what to do.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from blurdiff.errors import UserError
from blurdiff.runtime.files import atomic_path, read_json

# --- .npz ---


def write_npz(path: str | os.PathLike, arrays: Mapping) -> None:
    """Write arrays, numbers and text as one .npz, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def read_npz(path: str | os.PathLike, names: tuple[str, ...], advice: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz, every byte verified.

    Raises UserError, with `advice` (what to do then), when the file is missing or damaged or lacks one of `names`.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one bare array")
        with archive:
            # numpy reads as many bytes as an array's header asks for: where that is damaged and asks for too few, the
            # checksum is never compared.
            damaged = archive.zip.testzip() if archive.zip else None
            if damaged is not None:
                raise ValueError(f"{damaged} in it is damaged")
            arrays = dict(archive)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    except Exception as error:  # a damaged file can raise almost anything, a TokenError for one
        raise UserError(f"cannot read {path}: it is damaged or no .npz ({error}); {advice}") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{path}: array {missing[0]} is missing, there is {', '.join(arrays) or 'none'}; {advice}")
    return arrays


def made_with(arrays: Mapping) -> dict:
    """The settings that an .npz carries (see config/made.py); {} where it carries none."""
    try:
        return dict(json.loads(str(arrays["made_with"])))
    except (KeyError, ValueError, TypeError):
        return {}


def read_made_with(path: str | os.PathLike) -> dict:
    """The same of a file, of which no more is read; {} also where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return made_with(archive)
    except Exception:  # damaged zips raise almost anything
        return {}


def read_samples(path: str | os.PathLike, resolution: int | None = None) -> tuple[np.ndarray, dict]:
    """The images of samples.npz or of a shard, uint8 (n, R, R, 3), and the settings that it carries.

    UserError when the file holds anything else.
    """
    advice = "sample the run again"
    arrays = read_npz(path, ("arr_0",), advice)
    images = arrays["arr_0"]
    check_images(path, images.dtype, images.shape, resolution, advice)
    return images, made_with(arrays)


def check_images(path: str | os.PathLike, dtype: np.dtype, shape: tuple, resolution: int | None, advice: str) -> None:
    """Raise UserError unless these are of images: uint8 (n ≥ 1, R, R, 3), with R = `resolution` if given."""
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or 0 in shape:
        raise UserError(f"{path} holds {dtype} {shape}, not images, uint8 (n, R, R, 3); {advice}")
    if resolution is not None and shape[1] != resolution:
        raise UserError(f"{path} holds images of {shape[1]} x {shape[1]}, not {resolution} x {resolution}; {advice}")


# --- images.npy ---


def open_images(path: str | os.PathLike, resolution: int | None = None) -> np.ndarray:
    """Map images.npy: uint8 (n, R, R, 3), read-only, read from the disk as it is used.

    Raises UserError when the file is missing, not an npy file, truncated, of another type or shape, of another
    resolution than `resolution` (if given), or at odds with the manifest beside it (if there is one).
    """
    path = Path(path)
    again = "run the preprocess stage again"
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise ValueError(f"npy format {version}")
            shape, fortran_order, dtype = read_header[version](file)
            start = file.tell()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {again}") from error
    except Exception as error:  # a damaged header can raise almost anything, a TokenError for one
        raise UserError(f"cannot read {path}: it is not an npy array ({error}); {again}") from error
    if fortran_order:
        raise UserError(f"{path} holds {dtype} {shape} in Fortran order, not images in C order; {again}")
    check_images(path, dtype, shape, resolution, again)
    if size != start + int(np.prod(shape, dtype=object)):
        raise UserError(f"{path} has {size:,} bytes, which does not fit its shape {shape}: truncated? {again}")
    manifest_path = path.with_name("manifest.json")
    if manifest_path.exists():
        manifest = read_json(manifest_path)
        recorded = (manifest.get("n_used"), manifest.get("resolution")) if isinstance(manifest, dict) else None
        if recorded != (shape[0], shape[1]):
            raise UserError(f"{manifest_path} does not describe {path}, which holds {shape}; {again}")
    return np.memmap(path, np.uint8, "r", start, shape)


def header(n: int, resolution: int) -> bytes:
    """The head of images.npy. Its length does not depend on `n`: numpy leaves room for the first axis to change."""
    buffer = io.BytesIO()
    shape = (n, resolution, resolution, 3)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def offset(index: int, resolution: int) -> int:
    """Where image `index` begins in images.npy, bytes."""
    return len(header(0, resolution)) + index * resolution**2 * 3
