"""Mosaics: every image pixel is a sharp square where it belongs, in the array and in the PNG."""

import numpy as np
import pytest
from PIL import Image

from blurdiff.reporting import mosaic
from blurdiff.reporting.style import save, style


def test_every_pixel_becomes_a_square(monkeypatch):
    monkeypatch.setattr(mosaic, "SMOOTH_UP_TO", 0)  # as from 33 pixels on
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (2, 3, 4, 4, 3), dtype=np.uint8)
    factor, gap = 3, 2
    sheet = mosaic.mosaic(images, factor, gap)
    assert sheet.shape == (2 * 12 + 2, 3 * 12 + 4, 3)
    covered = np.zeros(sheet.shape[:2], bool)
    for row, column, y, x in np.ndindex(2, 3, 4, 4):
        top, left = row * 14 + 3 * y, column * 14 + 3 * x
        assert (sheet[top : top + 3, left : left + 3] == images[row, column, y, x]).all()
        covered[top : top + 3, left : left + 3] = True
    assert (sheet[~covered] == 255).all()


def test_small_images_are_enlarged_smoothly():
    images = np.random.default_rng(0).integers(0, 200, (2, 3, 8, 8, 3), dtype=np.uint8)
    sheet = mosaic.mosaic(images, 5, 2)
    assert sheet.shape == (2 * 40 + 2, 3 * 40 + 4, 3)
    for row, column in np.ndindex(2, 3):
        part = sheet[row * 42 : row * 42 + 40, column * 42 : column * 42 + 40]
        expected = Image.fromarray(images[row, column]).resize((40, 40), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(part, np.asarray(expected))
    assert mosaic.note(32).startswith(" Enlarged smoothly from 32×32") and mosaic.note(33) == ""


@pytest.mark.parametrize("columns, resolution, inches", [(11, 32, 6.4), (12, 64, 6.5), (1, 8, 3.0), (16, 256, 6.0)])
def test_fit_fills_the_width_at_a_sufficient_density(columns, resolution, inches):
    factor, dpi = mosaic.fit(columns, resolution, inches)
    width = columns * resolution * factor / dpi
    assert dpi >= 200 and width <= inches and width > 0.95 * inches


def test_pixels_reach_the_png_unchanged(tmp_path):
    rng = np.random.default_rng(1)
    sheet = rng.integers(0, 256, (61, 97, 3), dtype=np.uint8)
    with style():
        figure = mosaic.blank(160, 90, 223)
        mosaic.put_image(figure, sheet, 31, 17)
        save(figure, tmp_path / "a.png", tmp_path / "a.pdf", "test")
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert drawn.shape == (90, 160, 3)
    np.testing.assert_array_equal(drawn[17 : 17 + 61, 31 : 31 + 97], sheet)
    assert (drawn[:17] == 255).all() and (drawn[:, :31] == 255).all()


def test_values_are_mapped_linearly_and_clipped():
    x = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 7.0])
    assert mosaic.to_pixels(x, -1, 1).tolist() == [0, 0, 128, 191, 255, 255]


def test_long_headings_shrink():
    assert mosaic.font_size("no blur", 700, 200) == 8
    assert mosaic.font_size("x" * 100, 700, 200) == pytest.approx(3.5 * 72 / 68, rel=1e-6)
