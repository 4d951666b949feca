"""The whole benchmark: stage after stage, then the table and the figure."""

import sys
import time
from collections.abc import Collection

from blurdiff.benchmark import (
    ablations,
    ceilings,
    features,
    figure,
    frechet,
    preprocessing,
    process,
    sampling,
    table,
    training,
    worker,
)
from blurdiff.benchmark.rows import STAGES, Bench, Measurement
from blurdiff.runtime.devices import pick_device
from blurdiff.runtime.machine import name_of_device

# Each writes what its rows read, and gives the rows of one or several tables of comparison.
ROWS_OF = {
    "training": training.stages,
    "sampling": sampling.stages,
    "preprocessing": preprocessing.stages,
    "features": features.stages,
    "frechet": frechet.stages,
    "process": process.stages,
    "ablations": ablations.stages,
}
assert tuple(ROWS_OF) == STAGES


def run(bench: Bench, wanted: Collection[str], repeats: int, output: str, png: str | None) -> None:
    """Time what is wanted, write it to `output` (CSV), and draw it if there is a `png` to write."""
    device, start = bench.settings.training.device, time.monotonic()
    names = {"cpu": name_of_device("cpu")}
    if bench.on_gpu:
        names["cuda"] = worker.elsewhere(_gpu_name, bench.threads)  # here it would take memory of the GPU
    measured = []
    for make in (ceilings.stages, *(make for name, make in ROWS_OF.items() if name in wanted)):
        for rows in make(bench):
            print(f"{time.monotonic() - start:4.0f} s: {rows[0].stage}", file=sys.stderr, flush=True)
            measured.append(worker.measure(rows, device, bench.threads, repeats, 0.01 if bench.quick else 1.5))
            for measurement in measured[-1]:
                _report(measurement)
    table.write_csv(output, table.table(measured, device, names, bench.threads))
    if png:
        figure.write(output, png, bench.quick)
    print(f"{time.monotonic() - start:4.0f} s: done", file=sys.stderr)


def _gpu_name(threads: int) -> str:
    pick_device("cuda", threads)
    return name_of_device("cuda")


def _report(measurement: Measurement) -> None:
    """One line on stderr."""
    row, rates = measurement.row, measurement.rates
    if rates:
        parameters = measurement.told["parameters"]
        size = f"; {parameters:,} parameters" if parameters else ""
        print(f"    {row.implementation}: {measurement.rate:,.4g} {row.unit}"
              f" ({min(rates):,.4g} to {max(rates):,.4g}){size}", file=sys.stderr, flush=True)  # fmt: skip
