"""Measurements to the rows of benchmark.csv."""

import csv
import datetime
import statistics
from collections.abc import Sequence
from pathlib import Path

from blurdiff.benchmark.rows import CEILINGS, COPY, MATMUL, Measurement, Target
from blurdiff.runtime.files import atomic_path
from blurdiff.runtime.machine import commit, versions

COLUMNS = (
    "stage", "implementation", "device", "device_name", "precision", "batch", "resolution", "threads",
    "unit", "throughput", "throughput_min", "throughput_max", "repeats", "images_per_s",
    "baseline", "ratio", "ratio_min", "ratio_max",
    "flops_per_item", "bytes_per_item", "flop_per_s", "share_of_matrix_product", "bytes_per_s", "share_of_copy",
    "peak_memory_bytes", "memory_kind", "parameters",
    "difference", "tolerance", "equal", "target", "reached", "met", "note", "versions", "commit", "date",
)  # fmt: skip
PACKAGES = (
    "torch", "torchvision", "diffusers", "pytorch-fid", "scipy", "numpy", "pillow", "lmdb",
    "efficientnet-lite-pytorch",
)  # fmt: skip


def table(stages: Sequence[Sequence[Measurement]], device: str, names: dict[str, str], threads: int) -> list[dict]:
    """All rows, with the columns of COLUMNS; "" stands for what was not measured or does not apply. `names`: what each
    device calls itself."""
    ceilings = {m.row.implementation: m for stage in stages for m in stage if m.row.stage == CEILINGS and m.seconds}
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    same = {"threads": threads, "versions": versions(PACKAGES), "commit": commit(), "date": date}
    rows = []
    for stage in stages:
        of_stage = {m.row.implementation: m for m in stage}
        for measurement in stage:
            used = "cpu" if measurement.row.on_cpu else device
            row = {**same, **_measured(measurement), "device": used, "device_name": names[used]}
            row |= _shares(measurement, ceilings if used == device else {})
            row |= _against_baseline(measurement, of_stage) | _targets(measurement, of_stage, row)
            rows.append({column: "" if row.get(column) is None else row[column] for column in COLUMNS})
    return rows


def _measured(m: Measurement) -> dict:
    row, rates = m.row, m.rates
    values = {
        "stage": row.stage, "implementation": row.implementation, "precision": m.precision, "batch": m.batch,
        "resolution": m.resolution, "unit": row.unit, "repeats": len(rates), "note": m.note,
        "parameters": m.parameters,
    }  # fmt: skip
    if not rates:
        return values
    median = statistics.median(rates)
    return values | {
        "throughput": median, "throughput_min": min(rates), "throughput_max": max(rates),
        "images_per_s": row.images_per_item and median * row.images_per_item,
        "flops_per_item": m.flops, "bytes_per_item": m.n_bytes,
        "peak_memory_bytes": m.peak_memory, "memory_kind": m.memory_kind,
    }  # fmt: skip


def _shares(m: Measurement, ceilings: dict[str, Measurement]) -> dict:
    """FLOP/s and bytes/s, and which part they are of what the device did at most in this run."""
    if not m.seconds or m.row.stage == CEILINGS:
        return {}
    rate, shares = statistics.median(m.rates), {}
    pairs = (
        ("flop_per_s", "share_of_matrix_product", m.flops, ceilings.get(MATMUL.get(m.precision, ""))),
        ("bytes_per_s", "share_of_copy", m.n_bytes, ceilings.get(COPY)),
    )
    for speed, share, amount, ceiling in pairs:
        if amount:
            shares[speed] = rate * amount
            if ceiling:
                shares[share] = rate * amount / statistics.median(ceiling.rates)
    return shares


def _against_baseline(m: Measurement, stage: dict[str, Measurement]) -> dict:
    """The ratio of the medians; its spread is that of the ratios within the rounds. And what the results differ by."""
    baseline = stage.get(m.row.baseline or "")
    values: dict = {"baseline": m.row.baseline}
    if baseline is None or not (m.seconds and baseline.seconds):
        return values
    in_rounds = [own / other for own, other in zip(m.rates, baseline.rates, strict=True)]
    values |= {
        "ratio": statistics.median(m.rates) / statistics.median(baseline.rates),
        "ratio_min": min(in_rounds), "ratio_max": max(in_rounds),
    }  # fmt: skip
    if m is baseline or m.result is None or baseline.result is None:
        return values
    if isinstance(m.result, str):
        difference = 0.0 if m.result == baseline.result else float("inf")
    else:
        difference = float(abs(m.result - baseline.result).max() / abs(baseline.result).max())
    values |= {"difference": difference, "tolerance": m.row.tolerance}
    if m.row.tolerance is not None:
        values["equal"] = "yes" if difference <= m.row.tolerance else "no"
    return values


def _targets(m: Measurement, stage: dict[str, Measurement], row: dict) -> dict:
    """What should be reached, what was, and whether; several are parted by "; "."""
    if not m.row.targets:
        return {}
    reached = [_reached(m, target, stage, row) for target in m.row.targets]
    return {
        "target": "; ".join(map(str, m.row.targets)),
        "reached": "; ".join("" if value is None else f"{value:.3g}" for value in reached),
        "met": "; ".join(
            "not measured here" if value is None else "yes" if value >= target.least else "no"
            for target, value in zip(m.row.targets, reached, strict=True)
        ),
    }


def _reached(m: Measurement, target: Target, stage: dict[str, Measurement], row: dict) -> float | None:
    if target.of_ceiling:
        return row.get("share_of_matrix_product")
    other = stage.get(target.against)
    if other is None or not (m.seconds and other.seconds):
        return None
    return statistics.median(m.rates) / statistics.median(other.rates)


def write_csv(path: str | Path, rows: Sequence[dict]) -> None:
    """The table, numbers to six digits."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )
