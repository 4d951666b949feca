"""Measurements to the rows of benchmark.csv."""

import csv
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blurdiff.benchmark.rows import CEILINGS, COPY, MATMUL, Measurement
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
    ceilings = {
        m.row.implementation: m.rate for stage in stages for m in stage if m.row.stage == CEILINGS and m.seconds
    }
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    same = {"threads": threads, "versions": versions(PACKAGES), "commit": commit(), "date": date}
    rows = []
    for stage in stages:
        timed = {m.row.implementation: m for m in stage if m.seconds}
        for m in stage:
            used = "cpu" if m.row.on_cpu else device
            row = {
                **same, **m.told, "stage": m.row.stage, "implementation": m.row.implementation, "device": used,
                "device_name": names[used], "unit": m.row.unit, "repeats": len(m.rates), "baseline": m.row.baseline,
            }  # fmt: skip
            if m.seconds:
                row |= _speeds(m, ceilings if used == device else {})
                if baseline := timed.get(m.row.baseline or ""):
                    row |= _against(m, baseline)
            row |= _targets(m, timed, row)
            rows.append({column: "" if row.get(column) is None else row[column] for column in COLUMNS})
    return rows


def _speeds(m: Measurement, ceilings: dict[str, float]) -> dict:
    """Throughput; FLOP/s and bytes/s, and which part they are of what the device did at most in this run."""
    speeds: dict[str, Any] = {
        "throughput": m.rate, "throughput_min": min(m.rates), "throughput_max": max(m.rates),
        "images_per_s": m.row.images_per_item and m.rate * m.row.images_per_item,
    }  # fmt: skip
    if m.row.stage == CEILINGS:
        return speeds
    for amount, speed, share, ceiling in (
        ("flops_per_item", "flop_per_s", "share_of_matrix_product", MATMUL.get(m.told.get("precision", ""))),
        ("bytes_per_item", "bytes_per_s", "share_of_copy", COPY),
    ):
        if m.told.get(amount):
            speeds[speed] = m.rate * m.told[amount]
            if ceiling in ceilings:
                speeds[share] = speeds[speed] / ceilings[ceiling]
    return speeds


def _against(m: Measurement, baseline: Measurement) -> dict:
    """The ratio of the medians; its spread is that of the ratios within the rounds. And what the results differ by."""
    in_rounds = [own / other for own, other in zip(m.rates, baseline.rates, strict=True)]
    values = {"ratio": m.rate / baseline.rate, "ratio_min": min(in_rounds), "ratio_max": max(in_rounds)}
    result, expected = m.told.get("result"), baseline.told.get("result")
    if m is baseline or result is None or expected is None:
        return values
    if isinstance(result, str):
        difference = 0.0 if result == expected else float("inf")
    else:
        difference = float(abs(result - expected).max() / abs(expected).max())
    tolerance = m.row.tolerance
    equal = None if tolerance is None else "yes" if difference <= tolerance else "no"
    return {**values, "difference": difference, "tolerance": tolerance, "equal": equal}


def _targets(m: Measurement, timed: dict[str, Measurement], row: dict) -> dict:
    """What should be reached, what was, and whether; several are parted by "; "."""
    reached: list[float | None] = []
    for target in m.row.targets:
        if target.of_ceiling:
            reached.append(row.get("share_of_matrix_product"))
        else:
            reached.append(m.rate / timed[target.against].rate if m.seconds and target.against in timed else None)
    return {
        "target": "; ".join(map(str, m.row.targets)),
        "reached": "; ".join("" if value is None else f"{value:.3g}" for value in reached),
        "met": "; ".join(
            "not measured here" if value is None else "yes" if value >= target.least else "no"
            for target, value in zip(m.row.targets, reached, strict=True)
        ),
    }


def write_csv(path: str | Path, rows: Sequence[dict]) -> None:
    """The table, numbers to six digits."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )
