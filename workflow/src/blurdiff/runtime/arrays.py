"""Archives of arrays, .npz, read and written here alone.

Nothing that is read is unpickled, and what is damaged ends in one line that names the file and what to do.
"""

import os
from collections.abc import Mapping

import numpy as np

from blurdiff.errors import UserError
from blurdiff.runtime.files import atomic_path, check_archive


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
            check_archive(archive)
            arrays = dict(archive)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    except Exception as error:  # a damaged file can raise almost anything, a TokenError for one
        raise UserError(f"cannot read {path}: it is damaged or no .npz ({error}); {advice}") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{path}: array {missing[0]} is missing, there is {', '.join(arrays) or 'none'}; {advice}")
    return arrays
