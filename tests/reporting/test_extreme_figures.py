"""Figures of unusual configs: long labels, many runs, few timesteps. No text is cut or lies on another."""

import itertools

import numpy as np
import pandas as pd
import pytest
from fabricated import smooth_images
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from blurdiff.config.runs import complete_settings
from blurdiff.reporting import curves, dots, factor, forward, grids, labels, mosaic, strips, style, tables
from blurdiff.reporting.inputs import LOSSES, Strips

pytestmark = pytest.mark.filterwarnings("error:constrained_layout not applied")
LONG = "photographs of living rooms, bed rooms and other rooms taken in Northern Germany in nineteen ninety-two"
WORD = "x" * 100
RELEASED = {"mode_order": "released", "f_anchor": "released", "floor": 0.03, "skip_last_timestep": True}


@pytest.fixture(autouse=True)
def our_style():
    with style.style():
        yield


@pytest.fixture
def many(settings):
    """So many runs of one data set with a long label."""
    return lambda count: [
        settings("a", f_N=0.05 * k, floor=0.001 * k) | {"label": LONG, "run": f"run{k}"} for k in range(1, count + 1)
    ]


@pytest.fixture
def two_sets(settings):
    """Three runs of two data sets with long labels."""
    names = {"a": LONG, "b": WORD}
    kinds = [("a", "none", 0.0), ("a", "log", 0.6), ("b", "quartic", 0.14)]
    return [settings(name, f_type, f_N) | {"label": names[name]} for name, f_type, f_N in kinds]


def drawn(figure):
    """Every text that can be seen, but for ticks, and its box in pixels; all of it is within the figure."""
    FigureCanvasAgg(figure).draw()
    ticks = {text for axis in figure.findobj(Axis) for text in axis.findobj(Text) if text is not axis.label}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in found if text not in ticks]
    for text, box in boxes:
        assert min(box.x0, box.y0) >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    return boxes


def check_apart(boxes):
    """No two boxes of texts lie on one another by more than a pixel."""
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width < 1.5 or height < 1.5, (one, other)


def test_lines_are_as_short_as_asked_and_lose_nothing():
    for text in (LONG, WORD, "W" * 30, "short", "a $x$ " * 20):
        lines = style.wrapped(text, 1.2).split("\n")
        assert all(style.text_width(line) <= 1.2 for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        cut = style.wrapped(f"{text} (synthetic)", 1.2, most=2).split("\n")
        assert len(cut) <= 2 and all(style.text_width(line) <= 1.2 for line in cut)
        assert cut[-1].endswith("(synthetic)") and cut[0][0] == text[0]


def test_no_two_runs_look_alike(settings):
    runs = [settings(f_N=0.01 * k) for k in range(1, 50)]
    found = list(style.looks(runs, [str(k) for k in range(len(runs))]).values())
    assert len(set(found)) == len(found)
    assert found[:7] == [style.SCHEDULE_LOOKS["quartic"], *style.OTHER_LOOKS]
    assert not {look for look in found[1:] if look[0] in {colour for colour, _ in style.SCHEDULE_LOOKS.values()}}
    assert len(style.looks(runs * 2, [str(k) for k in range(98)])) == 98


def test_schedules_are_named_by_their_own_keys(settings):
    runs = [settings(f_type="log", f_N=0.6), settings(f_type="log", f_N=0.6, **RELEASED)]
    figure, caption = curves.blur_schedules(runs)
    check_apart(drawn(figure))
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["log, f(N) = 0.6, f anchor = paper", "log, f(N) = 0.6, f anchor = released"]
    assert axes.get_window_extent().width > 2.5 * figure.dpi
    start = labels.number_label(0.6 * np.log(1e-6) / np.log(20))
    assert f"with f(0) = 0 or f(0) = {start} ({names[1]})." in caption
    figure, caption = curves.blur_schedules([settings(), settings(f_type="cubic"), settings(f_N=0.2, **RELEASED)])
    assert "with f(0) = 0. " in caption and not figure.legends
    assert "f(0) = 0. " in curves.blur_schedules([settings(f_type="log", f_N=0.0, **RELEASED)])[1]
    figure, caption = curves.blur_schedules(runs[1:])
    assert f"with f(0) = {start} (log, f(N) = 0.6)." in caption


def test_schedules_with_many_or_long_names_have_them_below(settings, many, tmp_path):
    table = tmp_path / f"{'long name ' * 5}.csv"
    table.write_text("i,f\n0,0.1\n20,1\n")
    for runs in (many(12), [settings(), settings(f_type="table", f_table=str(table))]):
        figure, caption = curves.blur_schedules(runs)
        check_apart(drawn(figure))
        assert len(figure.legends) == 1 and figure.axes[0].get_legend() is None
        assert figure.axes[0].get_window_extent().width > 2.5 * figure.dpi
    assert "f(0) = 0.1 (table long name" in caption
    runs = [settings(f_N=f_N, n_timesteps=N) for f_N, N in ((0.14061, 20), (0.14062, 20), (0.3, 1000))]
    names = curves.schedule_names([run["process"] for run in runs])
    assert names[0] == "quartic, f(N) = 0.1406, N = 20, f N = 0.14061" and names[2] == "quartic, f(N) = 0.3, N = 1,000"


def history():
    return pd.DataFrame({"iteration": np.arange(1, 3001, 50)} | {name: np.linspace(1, 0.5, 60) for name in LOSSES})


@pytest.mark.parametrize("count", [0, 12])
def test_long_labels_leave_room_for_the_losses(count, many, two_sets):
    runs = many(count) or two_sets
    figure, _ = curves.training_curves(runs, [history()] * len(runs))
    boxes = drawn(figure)
    check_apart(boxes)
    legend = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        panel = axes.get_window_extent()
        assert panel.width > 0.8 * figure.dpi and panel.height > 0.9 * figure.dpi
        assert panel.y0 > legend.y1


def test_titles_of_panels_side_by_side_are_apart(two_sets):
    samples = [smooth_images(10, k) for k in range(3)]
    figure, _ = curves.spectra(two_sets, samples, samples)
    check_apart(drawn(figure))
    first, second = [axes.get_window_extent() for axes in figure.axes]
    assert second.x0 - first.x1 < 0.3 * figure.dpi and first.height > 1.1 * figure.dpi


def test_metrics_of_runs_with_long_names(two_sets, settings, write_evaluation):
    words = {
        "direction": "fine-to-coarse",
        "basis": "dct",
        "prediction": "gaussian",
        "noise_schedule": "cosine-bounded",
    }
    runs = [*two_sets, *(settings("b", f_N=f_N, **words, floor=0.01) | {"label": WORD} for f_N in (0.2, 0.3, 0.4))]
    runs = [run | {"run": f"run{k}"} for k, run in enumerate(runs)]
    found = [tables.read_evaluation(write_evaluation(run, 100.0 + k)) for k, run in enumerate(runs)]
    figure, _ = dots.metrics_of_runs(runs, found)
    check_apart(drawn(figure))
    for axes in figure.axes[::3]:
        lines = [(text.get_text(), text.get_window_extent()) for text in axes.get_yticklabels()]
        check_apart(lines)
    assert max(text.count("\n") for text, _ in lines) >= 3
    panels = [axes.get_window_extent() for axes in figure.axes[-3:]]
    assert all(right.x0 - left.x1 < 0.2 * figure.dpi for left, right in itertools.pairwise(panels))
    numbers = [(text, axes.get_xlim()) for axes in figure.axes[-3:] for text in axes.get_xticklabels()]
    ends = [text.get_window_extent() for text, (low, high) in numbers if low <= text.get_position()[0] <= high]
    assert all(right.x0 - left.x1 > 0.04 * figure.dpi for left, right in itertools.pairwise(ends))
    assert figure.axes[-1].get_xlim() == (0, 1)  # recall: no run has it


@pytest.mark.parametrize("count, rows", [(1, [1]), (4, [4]), (5, [3, 2]), (7, [4, 3]), (9, [3, 3, 3]), (11, [4, 4, 3])])
def test_grids_stand_in_rows(count, rows, many):
    runs = many(count)
    figure, caption = grids.sample_grids(runs, [smooth_images(36, k) for k in range(count)])
    check_apart(drawn(figure))
    boxes = [axes.get_window_extent() for axes in figure.axes]
    found = [len(list(row)) for _, row in itertools.groupby(boxes, key=lambda box: round(box.y1))]
    assert found == rows
    assert all(box.width > 1.4 * figure.dpi and box.x1 <= figure.bbox.width for box in boxes)
    assert min(text.get_fontsize() for text in figure.texts) > 4
    assert caption.count("Row ") == (len(rows) if len(rows) > 1 else 0)
    if count == 5:
        names = labels.run_labels(runs)
        words = f"Row 1, from the left: {'; '.join(names[:3])}. Row 2, from the left: {'; '.join(names[3:])}. Each"
        assert words in caption


def strip(snapshots, seed=0):
    x = np.random.default_rng(seed).uniform(size=(snapshots, 1, 8, 8, 3)).astype(np.float32)
    return Strips(np.arange(snapshots)[::-1], x, x)


def test_few_snapshots_are_no_larger_than_many(many, two_sets):
    for runs in (many(11), two_sets):
        sizes = []
        for snapshots in (2, strips.LEAST):
            figure, _ = strips.reverse_process(runs, [strip(snapshots) for _ in runs])
            check_apart(drawn(figure))
            assert figure.get_figwidth() < 7
            sizes.append(figure.get_figheight())
        assert sizes[0] <= 1.1 * sizes[1]
    assert mosaic.fit(2, 32, 6.4, least=8) == mosaic.fit(8, 32, 6.4) == mosaic.fit(8, 32, 6.4, least=2)


def test_the_forward_figure_shows_each_timestep_once(settings):
    images = smooth_images(2, 0)
    runs = [complete_settings(settings(n_timesteps=N) | {"run": f"n{N}"}) for N in (2, 5, 200)]
    for shown in (runs[:1], runs):
        figure, _ = forward.forward_process(shown, [images] * len(shown))
        boxes = drawn(figure)
        check_apart(boxes)
        numbers = [text.removeprefix("$i$ = ") for text, _ in boxes if text.removeprefix("$i$ = ").isdigit()]
        assert numbers[:3] == ["0", "1", "2"] and len(numbers) == (3 if len(shown) == 1 else 3 + 6 + 10)


def test_a_dollar_at_the_end_of_a_line_is_one(settings, tmp_path):
    """A line break may not come between a dollar sign and what keeps it from being a formula."""
    name = "t" * (factor.TITLE_WIDTH - 7) + "$^$^tttttttt"
    table = tmp_path / f"{name}.csv"
    table.write_text("i,f\n0,0\n20,1\n")
    figure, _ = factor.error_factors([complete_settings(settings(f_type="table", f_table=str(table)))])
    title = figure.axes[0].get_title()
    assert "\\\n" not in title and title.count(r"\$") == 2
