"""results/metrics.csv and .md: means over seeds, floors, dashes for what is not known, and what is refused."""

import pytest


def test_rows_and_layout(settings, write_evaluation, make_table):
    paths = [write_evaluation(settings(seed=seed), 100.0 * (seed + 1)) for seed in range(2)]
    paths.append(write_evaluation(settings("church"), 500.0))
    _, rows, text, _ = make_table(paths, "metrics")
    assert [(row["dataset"], row["metric"]) for row in rows] == [
        (data, name) for data in ("bedroom", "church") for name in ("frechet", "kernel", "recall")
    ]
    kernel, recall = rows[1:3]
    assert (kernel["name"], kernel["better"], recall["better"]) == ("KD-EfficientNet-Lite0", "lower", "higher")
    numbers = [float(kernel[key]) for key in ("mean", "std", "error", "floor")]
    assert numbers == pytest.approx([1.5, 0.5**0.5, 0.25, 0.5]) and kernel["floor_std"] == ""
    assert (recall["mean"], recall["seeds"]) == ("", "0")
    assert "| bedroom (synthetic) | bedroom_quartic | 150.00 ± 70.71 | 1.50 ± 0.71 | – |" in text
    assert "| church (synthetic) | church_quartic | 500.00 | 5.00 (0.25) | – |" in text
    assert "| bedroom (synthetic) | floor: data against data | 3.25 ± 0.50 | 0.500 | – |" in text


def test_a_number_that_is_none_is_refused(settings, write_evaluation, make_table):
    path = write_evaluation(settings(), 5.0, others={"kernel": {"value": "7"}})
    status, _, _, error = make_table([path], "metrics")
    assert status == 1 and "value of kernel" in error
