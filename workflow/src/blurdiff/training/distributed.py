"""Several processes, one for each GPU, that train one model together, as torchrun starts them.

Each takes its slice of every batch; DistributedDataParallel averages the gradients. The first holds the store's lock,
writes and prints. What must be the same for all (stop or go on, whether a loss was finite) is agreed on by messages
between CPUs, which wait for no GPU. One process alone agrees with itself at no cost.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from blurdiff.config.settings import TrainingConfig
from blurdiff.errors import UserError
from blurdiff.runtime.waiting import waiting_for

PATIENCE = timedelta(days=30)  # the first may wait for the lock of another training of the same model


class Ranks:
    """This process's `rank` among `size`; its methods are called by all of them, at the same point of the program."""

    def __init__(self, rank: int = 0, size: int = 1, local_size: int = 1):
        self.rank, self.size, self.local_size = rank, size, local_size
        self.is_first = rank == 0
        self.group = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None

    def broadcast(self, value: Any) -> Any:
        """The first's value, for all; it must be one that can be pickled."""
        if self.size == 1:
            return value
        values = [value]
        with _one_line_if_another_ends():
            dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def all_reduce_min(self, value: float) -> float:
        """The smallest value of all."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        with _one_line_if_another_ends():
            dist.all_reduce(shared, dist.ReduceOp.MIN, group=self.group)
        return shared.item()

    def any(self, value: bool) -> bool:
        """Whether it is true for one of them."""
        return self.all_reduce_min(-float(value)) < 0 if self.size > 1 else value

    def barrier(self) -> None:
        """Return when all have come here."""
        self.all_reduce_min(0.0)

    def reduce_sum(self, *tensors: Tensor) -> None:
        """In place: the first's become the sum over all, the others' zero."""
        for tensor in tensors if self.size > 1 else ():
            with _one_line_if_another_ends():
                dist.reduce(tensor, dst=0)
            if not self.is_first:
                tensor.zero_()

    def share_gradients(self, losses: nn.Module) -> nn.Module:
        """The module with its gradients averaged over all."""
        if self.size == 1:
            return losses
        with _one_line_if_another_ends():
            return DistributedDataParallel(losses, broadcast_buffers=False, gradient_as_bucket_view=True)

    def step(self) -> contextlib.AbstractContextManager:
        """Around a training step."""
        return _one_line_if_another_ends() if self.size > 1 else contextlib.nullcontext()


@contextlib.contextmanager
def joined(training: TrainingConfig) -> Iterator[Ranks]:
    """The processes of this training, of which this is one; UserError when they are not as many as the config says."""
    size = training.gpus * training.nodes
    if size == 1:
        yield Ranks()
        return
    started = tuple(int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if started != (size, training.gpus):
        here = f"{started[0]} {'is' if started[0] == 1 else 'are'} here"
        raise UserError(
            f"training.gpus {training.gpus} × training.nodes {training.nodes} needs {size} processes, {here};"
            f" start `torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node {training.gpus} -m blurdiff train"
            " …`"
            f" (several nodes: see config/README.md), or set both to 1"
        )
    on_gpu = training.device == "cuda"
    if on_gpu and torch.cuda.device_count() < training.gpus:
        raise UserError(f"training.gpus: {training.gpus} are wanted, PyTorch sees {torch.cuda.device_count()} here")
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        with waiting_for(f"all {size} processes of this training at {place}"):
            dist.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the {size} processes of this training did not find each other: {reason}") from error
    try:
        yield Ranks(int(os.environ["RANK"]), size, training.gpus)
    finally:
        # A process that fails must not wait for the others here; they end because it does.
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


@contextlib.contextmanager
def _one_line_if_another_ends() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # Gloo's have no class of their own
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"another process of this training ended ({reason}); its own message says why") from error
