import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from blurdiff.reporting import curves, style

QUARTIC = "quartic, f(N) = 0.1406"
NAMES = ["no blur", "log, f(N) = 0.6", f"{QUARTIC}, coarse-to-fine", f"{QUARTIC}, fine-to-coarse",
         f"{QUARTIC}, coarse-to-fine, released mode order"]  # fmt: skip


@pytest.mark.parametrize("width", [style.COLUMN_WIDTH, style.TEXT_WIDTH])
@pytest.mark.parametrize("names", [NAMES[:1], NAMES[:2], NAMES, NAMES * 2, [60 * "long "]])
def test_all_of_a_legend_is_in_the_figure(width, names):
    with style.style():
        figure = Figure(figsize=(width, 2.1), layout="constrained")
        axes = figure.subplots()
        curves.legend_below(figure, [Line2D([], [], label=name) for name in names])
        FigureCanvasAgg(figure).draw()
        legend = figure.legends[-1].get_window_extent()
    assert len(figure.legends) == 1 and len(figure.legends[0].get_texts()) == len(names)
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width and legend.y0 >= 0
    assert axes.get_window_extent().height > 0.9 * figure.dpi  # the panels keep their size
