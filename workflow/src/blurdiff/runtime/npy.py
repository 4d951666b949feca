"""Arrays of images as npy files that are written piece by piece: uint8 (n, R, R, 3), C order."""

import io
import os
from collections.abc import Iterator

import numpy as np


def header(n: int, resolution: int) -> bytes:
    """The head of the npy file. Its length does not depend on `n`: numpy leaves room for the first axis to change."""
    buffer = io.BytesIO()
    shape = (n, resolution, resolution, 3)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def offset(index: int, resolution: int) -> int:
    """Where image `index` begins in the file, bytes."""
    return len(header(0, resolution)) + index * resolution**2 * 3


def write_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """Write all of `data` at `position`; OSError when the disk is full."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def read_at(descriptor: int, buffer: memoryview, position: int) -> None:
    """Fill `buffer` from `position` on; EOFError when the file ends before."""
    while len(buffer):
        read = os.preadv(descriptor, [buffer], position)
        if read == 0:
            raise EOFError(f"the file ends {len(buffer):,} bytes too early")
        buffer, position = buffer[read:], position + read


def read_chunks(descriptor: int, start: int, stop: int) -> Iterator[memoryview]:
    """The file's bytes from `start` to `stop`, a few MB at a time; EOFError when it ends before."""
    buffer = memoryview(bytearray(min(1 << 22, stop - start)))
    while start < stop:
        part = buffer[: stop - start]
        read_at(descriptor, part, start)
        yield part
        start += len(part)
