"""Labels in scripts that our font does not have: another font draws them, or one line says that none does."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from blurdiff.reporting import fonts, labels, style
from tiny import as_dict

LABEL = "\U0001059f\U00010592 bedroom"  # Vithkuqi, which hardly any machine has a font for


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that installs a font of these characters on a machine that has no other fonts but matplotlib's."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path) for path in tmp_path.glob("*.ttf")])
    fonts._characters.cache_clear()

    def install(name: str, characters: str) -> None:
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for point in ((0, 700), (500, 700), (500, 0)):
            pen.lineTo(point)
        pen.closePath()
        names = [".notdef", *(f"g{ord(sign)}" for sign in characters)]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(sign): f"g{ord(sign)}" for sign in characters})
        builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": name, "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(tmp_path / f"{name}.ttf")

    yield install
    fonts._characters.cache_clear()


def draw(folder) -> bytes:
    """The PNG of a figure with the label."""
    with style.style([LABEL]):
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.5, LABEL, fontweight="bold", parse_math=False)
        style.save(figure, folder / "a.png", folder / "a.pdf", "a label")
    assert (folder / "a.pdf").stat().st_size > 1000
    return (folder / "a.png").read_bytes()


def test_a_font_that_has_the_label_is_found(machine, tmp_path, capsys):
    boxes = draw(tmp_path)
    assert LABEL in capsys.readouterr().err
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    machine("Half", LABEL[0])
    machine("Whole", LABEL[:2])
    assert fonts.families([LABEL]) == [fonts.OWN, "Whole"]
    assert draw(tmp_path) != boxes
    assert capsys.readouterr().err == ""


def test_two_fonts_share_a_label(machine):
    machine("One", LABEL[0])
    machine("Other", LABEL[1])
    assert fonts.families([LABEL]) == [fonts.OWN, "One", "Other"]


@pytest.mark.usefixtures("machine")
@pytest.mark.filterwarnings("error")
def test_no_font_is_one_line_with_label_and_remedy(tmp_path, capsys):
    assert fonts.families(["Schlafzimmer, спальня, ὕπνος", LABEL, LABEL]) == [fonts.OWN]
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and error.count("\n") == 1
    assert LABEL in error and "install" in error and "another label" in error
    assert draw(tmp_path) and capsys.readouterr().err.count("\n") == 1


def test_labels_and_names_of_tables_are_looked_at():
    run = as_dict() | {"label": "寝室"}
    run["process"] |= {"f_type": "table", "f_table": "tables/曲線.csv"}
    shown = " ".join(labels.own_texts([run]))
    assert "寝室" in shown and "曲線" in shown
