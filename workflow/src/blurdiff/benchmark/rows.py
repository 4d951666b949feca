"""What a row of the benchmark is: how its work is built, what it is compared with, and what was measured."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blurdiff.config.settings import Settings

STAGES = ("training", "sampling", "preprocessing", "features", "frechet", "process", "ablations")

CEILINGS, PROCESS = "ceilings", "process"
MATMUL = {"fp32": "matrix product, fp32", "tf32": "matrix product, tf32", "bf16": "matrix product, bf16"}
COPY = "copy"
CONVOLUTION = "3 x 3 convolution"


@dataclass(frozen=True)
class Bench:
    """What is to be timed: a run's settings (whose device is the benchmark's), and the options of the command."""

    settings: Settings
    folder: Path  # for what rows read and write
    quick: bool = False
    threads: int = 1
    lmdb: str | None = None
    weights: str | None = None

    @property
    def on_gpu(self) -> bool:
        return self.settings.training.device == "cuda"

    def size(self, quick: int, cpu: int, gpu: int) -> int:
        """One of three sizes."""
        return quick if self.quick else gpu if self.on_gpu else cpu


@dataclass
class Work:
    """What a row does, built inside the row's own process.

    call        does the work once
    items       how many of the row's unit one call does
    counted     the same work by plain operators, for counting their FLOPs; None where there are none to count
    n_bytes     bytes an item that are read and written, where the operators' tensors do not tell
    fused       operators are fused by a compiler, so that their tensors do not tell what is read and written
    result      gives what must agree with the baseline's: an array, or text that must be equal
    has_processes  the work is done by processes of its own
    on_gpu      set by the process that builds it
    """

    call: Callable[[], object]
    items: int
    precision: str = "fp32"
    batch: int | None = None
    resolution: int | None = None
    parameters: int | None = None
    counted: Callable[[], object] | None = None
    n_bytes: float | None = None
    fused: bool = False
    result: Callable[[], object] | None = None
    has_processes: bool = False
    on_gpu: bool = False
    note: str = ""


@dataclass(frozen=True)
class Target:
    """`least` times the throughput of `against`, an implementation of the same stage; or, where `against` is "matrix
    product", that share of the matrix product's FLOP/s in the row's precision."""

    against: str
    least: float

    def __str__(self) -> str:
        times = "of the" if self.of_ceiling else "x"
        return f"at least {self.least:g} {times} {self.against}"

    @property
    def of_ceiling(self) -> bool:
        return self.against == "matrix product"


@dataclass(frozen=True)
class Row:
    """One implementation of a stage; `build(device, threads, **arguments)` gives its Work.

    `baseline` is an implementation of the same stage; `tolerance` bounds the difference of the results from its (0:
    equal). Rows of one `host` share a process, one after another; their peak memory is told on a GPU only.
    """

    stage: str
    implementation: str
    build: Callable[..., Work]
    arguments: dict = field(default_factory=dict)
    baseline: str | None = None
    tolerance: float | None = None
    targets: tuple[Target, ...] = ()
    unit: str = "images/s"
    images_per_item: float | None = None  # None: the items are no images, nor parts of them
    host: str | None = None
    on_cpu: bool = False  # whatever the benchmark's device is


@dataclass
class Measurement:
    """What was measured of a row: seconds a repeat of `calls` calls, and what its process told, by the table's columns
    (besides `items`, those of a call, and `result`). Of a row that failed `note` says why, and there are no seconds."""

    row: Row
    calls: int = 0
    seconds: list[float] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    @property
    def rates(self) -> list[float]:
        """Items a second in each repeat."""
        return [self.calls * self.told["items"] / seconds for seconds in self.seconds]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)
