"""The figure `metrics`: a panel for each data set and metric, means and deviations over seeds, the floor as a line."""

import pytest

from blurdiff.reporting import dots, style, tables


def test_points_bars_and_floors_are_the_tables(settings, write_evaluation):
    runs = [settings(seed=seed) for seed in (0, 1)] + [settings("church")]
    paths = [write_evaluation(run, value) for run, value in zip(runs, (100.0, 104.0, 500.0), strict=True)]
    with style.style():
        figure, caption = dots.metrics_of_runs(runs, [tables.read_evaluation(path) for path in paths])
    axes = figure.axes
    assert len(axes) == 2 * 3  # frechet, kernel, recall of each data set
    bars = axes[0].containers[0]
    assert bars.lines[0].get_xdata() == pytest.approx([102])
    ends = bars.lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx([102 - 8**0.5, 102 + 8**0.5])
    assert axes[3].containers[0].lines[0].get_xdata() == pytest.approx([500])
    assert axes[0].lines[1].get_xdata() == pytest.approx([3.25, 3.25])  # the floor
    single = axes[4].containers[0].lines[2][0].get_segments()[0][:, 0]
    assert single == pytest.approx([4.75, 5.25])  # the kernel distance's own standard error
    assert "the standard deviation over seeds" in caption and "FD-EfficientNet-Lite0" in caption
