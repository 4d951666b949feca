"""Time every stage beside what a user would take instead, in one run, and write a table and a figure."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

STAGES = ("training", "sampling", "preprocessing", "features", "frechet", "process", "ablations")


def plan(arguments: argparse.Namespace, settings: dict, folder: Path):
    """Yield the rows of each stage in turn; what they read is made just before."""
    from blurdiff.benchmark import (
        ablations,
        ceilings,
        features,
        frechet,
        preprocessing,
        process,
        sampling,
        training,
        worker,
    )
    from blurdiff.benchmark.settings import PAPER, settings_for

    device, quick, wanted = arguments.device, arguments.quick, arguments.stages
    yield ceilings.rows(device, quick)
    if "training" in wanted:
        yield from training.stages(settings, quick, arguments.threads)
    if "sampling" in wanted:
        yield sampling.rows(settings, quick)
    if "preprocessing" in wanted:
        stages = preprocessing.stages(quick, folder, arguments.lmdb, arguments.threads)
        if not arguments.lmdb:
            n = stages[0][0].arguments["n"]
            formats = preprocessing.formats_of(quick)
            with suppress(ModuleNotFoundError):  # the rows say what is not installed
                worker.prepare(preprocessing.prepare, str(folder), min(n, 256), n, formats, arguments.threads)
        yield from stages
    if "features" in wanted:
        stages = features.stages(device, quick, folder, arguments.weights)
        with suppress(ModuleNotFoundError):
            worker.prepare(features.prepare, str(folder), stages[0][0].arguments["n"], arguments.weights)
        yield from stages
    if "frechet" in wanted:
        yield frechet.rows(quick)
    if "ablations" in wanted:
        where = folder / "ablations"
        where.mkdir()
        with suppress(ModuleNotFoundError):
            worker.prepare(ablations.prepare, str(where), quick, device == "cuda", arguments.threads)
        yield from ablations.stages(settings, quick, where, arguments.threads)
    if "process" in wanted:
        beside = settings if quick else settings_for(device, PAPER)
        yield process.rows(beside, quick)


def report(measurement) -> None:
    """One line on stderr."""
    import statistics

    row, rates = measurement.row, measurement.rates
    if rates:
        median, unit = statistics.median(rates), row.unit
        size = f"; {measurement.parameters:,} parameters" if measurement.parameters else ""
        print(f"    {row.implementation}: {median:,.4g} {unit} ({min(rates):,.4g} to {max(rates):,.4g}){size}",
              file=sys.stderr, flush=True)  # fmt: skip


def write_csv(path: str, rows: list[dict]) -> None:
    """The table, numbers to six digits."""
    import csv

    from blurdiff.benchmark.table import COLUMNS
    from blurdiff.runtime.files import atomic_path

    def cell(value: object) -> object:
        return f"{value:.6g}" if isinstance(value, float) else value

    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)


# What needs torch or matplotlib runs in processes of its own: they would make this one large, and a process that is
# started from a large one counts its memory as if it were its own.


def _gpu_name(threads: int) -> str:
    from blurdiff.runtime.devices import pick_device
    from blurdiff.runtime.machine import name_of_device

    pick_device("cuda", threads)
    return name_of_device("cuda")


def _draw(rows: list[dict], path: str, quick: bool) -> None:
    from blurdiff.benchmark.figure import write

    write(rows, path, quick)
