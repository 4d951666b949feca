import csv

import numpy as np
import pytest

from blurdiff.benchmark import table
from blurdiff.benchmark.figure import draw, targets
from blurdiff.benchmark.rows import CEILINGS, COPY, MATMUL, Measurement, Row, Target

NAMES = {"cpu": "processor", "cuda": "card"}


def measured(name, seconds, stage="stage", baseline="slow", note="", **keys):
    """Twice ten items a repeat; keys are of the row, or what its process told."""
    of_row = {key: keys.pop(key) for key in ("targets", "tolerance", "on_cpu") if key in keys}
    row = Row(stage, name, build=None, baseline=baseline, **of_row)
    return Measurement(row, calls=2, seconds=seconds, told={"items": 10, "note": note, **keys})


def ceilings(flops=1000.0, bytes_=500.0):
    rates = {MATMUL["fp32"]: flops, COPY: bytes_}
    return [Measurement(Row(CEILINGS, name, None), 1, [1.0], {"items": rate}) for name, rate in rates.items()]


def by_name(stages, device="cpu"):
    return {row["implementation"]: row for row in table.table(stages, device, NAMES, threads=2)}


def test_ratios_are_those_of_the_medians_and_their_spread_is_that_of_the_rounds():
    rows = by_name([[measured("slow", [4.0, 8.0, 5.0]), measured("fast", [1.0, 4.0, 2.0])]])
    fast, slow = rows["fast"], rows["slow"]
    assert (slow["throughput"], fast["throughput"]) == (20 / 5, 20 / 2)
    assert (fast["throughput_min"], fast["throughput_max"], fast["repeats"]) == (5, 20, 3)
    assert fast["ratio"] == fast["throughput"] / slow["throughput"] == 2.5
    assert (fast["ratio_min"], fast["ratio_max"]) == (2, 4)
    assert slow["ratio"] == slow["ratio_min"] == 1
    assert fast["baseline"] == "slow" and fast["device_name"] == "processor" and fast["threads"] == 2


def test_shares_of_what_the_device_can_do():
    row = measured("fast", [2.0], precision="fp32", flops_per_item=50.0, bytes_per_item=10.0)
    fast = by_name([ceilings(), [row]])["fast"]
    assert (fast["flop_per_s"], fast["bytes_per_s"]) == (500, 100)
    assert (fast["share_of_matrix_product"], fast["share_of_copy"]) == (0.5, 0.2)
    # Another precision's ceiling, or another device's, is not this row's.
    bf16 = by_name([ceilings(), [measured("fast", [2.0], precision="bf16", flops_per_item=50.0)]])["fast"]
    assert (bf16["flop_per_s"], bf16["share_of_matrix_product"]) == (500, "")
    on_cpu = measured("fast", [2.0], precision="fp32", flops_per_item=50.0, on_cpu=True)
    on_cpu = by_name([ceilings(), [on_cpu]], "cuda")["fast"]
    assert (on_cpu["device"], on_cpu["device_name"], on_cpu["share_of_matrix_product"]) == ("cpu", "processor", "")


def test_targets_are_met_missed_or_not_measured_here():
    wanted = (Target("slow", 2.0), Target("matrix product", 0.6), Target("absent", 1.0))
    row = measured("fast", [2.0], precision="fp32", flops_per_item=50.0, targets=wanted)
    fast = by_name([ceilings(), [measured("slow", [5.0]), row]])["fast"]
    assert fast["target"] == "at least 2 x slow; at least 0.6 of the matrix product; at least 1 x absent"
    assert fast["reached"] == "2.5; 0.5; " and fast["met"] == "yes; no; not measured here"
    assert targets(fast) == pytest.approx([2.0, 3.0])  # as ratios to the baseline


@pytest.mark.parametrize(
    ("result", "expected", "tolerance", "difference", "equal"),
    [
        (np.array([1.0, 2.0 + 2e-6]), np.array([1.0, 2.0]), 1e-5, 1e-6, "yes"),
        (np.array([1.0, 2.2]), np.array([1.0, 2.0]), 1e-5, 0.1, "no"),
        (np.array([1.0, 2.2]), np.array([1.0, 2.0]), None, 0.1, ""),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), 1e-5, np.nan, "no"),
        ("a", "a", 0.0, 0.0, "yes"),  # text must be the same
        ("b", "a", 0.0, np.inf, "no"),
    ],
)
def test_results_are_compared_with_the_baselines(result, expected, tolerance, difference, equal):
    rows = [measured("slow", [1.0], result=expected), measured("fast", [1.0], result=result, tolerance=tolerance)]
    found = by_name([rows])
    assert found["fast"]["difference"] == pytest.approx(difference, rel=1e-6, nan_ok=True)
    assert found["fast"]["equal"] == equal and found["slow"]["difference"] == ""


def test_a_row_that_failed_stays_with_its_reason(tmp_path):
    failed = measured("fast", [], note="not installed: diffusers", targets=(Target("slow", 2.0),))
    rows = table.table([[measured("slow", [1.0]), failed]], "cpu", NAMES, 1)
    assert rows[1]["throughput"] == rows[1]["ratio"] == "" and rows[1]["met"] == "not measured here"
    table.write_csv(tmp_path / "a.csv", rows)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == table.COLUMNS
    assert read[1]["note"] == "not installed: diffusers" and read[1]["throughput"] == ""
    assert float(read[0]["throughput"]) == 20
    figure, caption = draw(rows)
    assert "processor (cpu, threads: 1)" in caption and len(figure.axes[0].patches) == 1


def test_figure_shows_every_ratio_but_those_of_the_process():
    rows = table.table(
        [
            ceilings(),
            [measured("slow", [5.0]), measured("fast", [2.0], targets=(Target("slow", 4.0),))],
            [measured("slow", [5.0], stage="process"), measured("fast", [2.0], stage="process")],
        ],
        "cpu", NAMES, 1,
    )  # fmt: skip
    figure, caption = draw(rows, quick=True)
    axes = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [1, 2.5]
    assert caption.startswith("Of --quick: sizes are tiny and the numbers mean nothing.")
    texts = [text.get_text() for text in axes.texts]
    assert "2.50×  10 images/s" in texts and "stage" in texts and "process" not in texts
    assert axes.get_xlim()[1] > 4  # the target is in view
