"""Batches of images on the device, by one of three ways that give the same batches.

resident   all images lie on the device as uint8 and are gathered there: nothing but indices crosses the bus
prefetch   a thread reads batches ahead from the memory map, and copies them beside the computation
plain      read from the memory map when wanted (on a CPU, where there is nothing to copy)
"""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from itertools import count

import numpy as np
import torch
from torch import Tensor

from blurdiff.config.settings import TrainingConfig
from blurdiff.data.images import batch_indices

READ_AHEAD = 4  # batches
UPLOAD = 1 << 28  # bytes that are copied to the device at once


def batches(
    images: np.ndarray, training: TrainingConfig, seed: int, start: int, own: slice, device: torch.device
) -> Generator:
    """Slice `own` of batch `start`, start + 1, …, without end: uint8 (b, R, R, C) on the device. Close it after use."""
    indices = (batch_indices(len(images), training.batch_size, step, seed)[own] for step in count(start))
    if device.type == "cpu":
        return plain(images, indices)
    if fits(images.nbytes, device) if training.data_on_device is None else training.data_on_device:
        return resident(images, indices, device)
    return prefetch(images, indices, device)


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether the images take no more than half of the GPU memory that is free; training needs the rest."""
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= free / 2


def plain(images: np.ndarray, indices: Iterable[np.ndarray]) -> Generator[Tensor]:
    for index in indices:
        yield torch.from_numpy(np.ascontiguousarray(images[index]))


def resident(images: np.ndarray, indices: Iterable[np.ndarray], device: torch.device) -> Generator[Tensor]:
    on_device = torch.empty(images.shape, dtype=torch.uint8, device=device)
    at_once = max(1, UPLOAD // images[0].nbytes)
    for first in range(0, len(images), at_once):
        on_device[first : first + at_once] = torch.from_numpy(np.array(images[first : first + at_once]))

    def gather() -> Generator[Tensor]:
        for index in indices:
            here = torch.from_numpy(index)
            if device.type == "cuda":  # from pinned memory, or the copy would wait for the device
                here = here.pin_memory()
            yield on_device.index_select(0, here.to(device, non_blocking=True))

    return gather()


def prefetch(images: np.ndarray, indices: Iterable[np.ndarray], device: torch.device) -> Generator[Tensor]:
    ready: queue.Queue = queue.Queue(READ_AHEAD)
    stop = threading.Event()
    on_gpu = device.type == "cuda"
    side = torch.cuda.Stream(device) if on_gpu else None

    def hand_over(item: object) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for index in indices:
                batch = torch.empty((len(index), *images.shape[1:]), dtype=torch.uint8, pin_memory=on_gpu)
                np.take(images, index, axis=0, out=batch.numpy())
                arrived = None
                if side is not None:
                    with torch.cuda.stream(side):
                        batch = batch.to(device, non_blocking=True)
                        arrived = side.record_event()
                hand_over((batch, arrived))
                if stop.is_set():
                    return
        except BaseException as error:  # raised where batches are taken
            hand_over(error)

    thread = threading.Thread(target=read, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            batch, arrived = item
            if on_gpu:
                current = torch.cuda.current_stream(device)
                current.wait_event(arrived)
                batch.record_stream(current)  # its memory belongs to the side stream, and may be used there again
            yield batch
    finally:
        stop.set()
        thread.join()
