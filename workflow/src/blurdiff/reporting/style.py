"""The look of all figures: fonts, sizes, colours, and how a figure becomes a PNG and a PDF."""

import contextlib
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import seaborn
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from blurdiff.reporting import fonts
from blurdiff.runtime.files import atomic_path

TEXT_WIDTH = 6.9  # inches: a page of two columns
COLUMN_WIDTH = 3.4
DPI = 200
INK = "#222222"
GREY = "#6b6b6b"
# Colours of Okabe and Ito, told apart with every common form of colour blindness, and dashes for those who see or print
# none. The paper's three schedules keep theirs in every figure; what else there is takes the others in turn.
SCHEDULE_LOOKS = {"none": ("#4d4d4d", (1, 1)), "log": ("#d55e00", (4, 1.5)), "quartic": ("#0072b2", "")}
OTHER_LOOKS = [
    ("#cc79a7", (3, 1, 1, 1)),
    ("#009e73", (6, 2)),
    ("#e69f00", (5, 1, 1, 1, 1, 1)),
    ("#56b4e9", (2, 1)),
    ("#8c6d31", (8, 1, 1, 1)),
    ("#7b4fa3", (1, 2)),
]
# When those are used up, each of their colours takes the others' dashes in turn.
ALL_DASHES = [dashes for _, dashes in (*OTHER_LOOKS, *SCHEDULE_LOOKS.values())]
MORE_LOOKS = [
    (colour, ALL_DASHES[(k + shift) % len(ALL_DASHES)])
    for shift in range(len(ALL_DASHES))
    for k, (colour, _) in enumerate(OTHER_LOOKS)
]
LOOKS = [*SCHEDULE_LOOKS.values(), *MORE_LOOKS]  # of lines that are no runs


@contextlib.contextmanager
def style(texts: Iterable[str] = ()) -> Iterator[None]:
    """Draw with our look, whatever the user's own matplotlib settings are, and leave those as they were.

    `texts` are labels of the user's, which may be in any script.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # fonts.families says it, once and with the label.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.use("agg")
        seaborn.set_theme(context="paper", style="ticks", font=fonts.OWN)
        matplotlib.rcParams.update(
            {
                "font.family": fonts.families(texts),
                "font.size": 8,
                "axes.labelsize": 8,
                "axes.titlesize": 8,
                "xtick.labelsize": 7,
                "ytick.labelsize": 7,
                "legend.fontsize": 7,
                "legend.title_fontsize": 7,
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": GREY,
                "axes.linewidth": 0.6,
                "xtick.color": GREY,
                "ytick.color": GREY,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "xtick.major.size": 3,
                "ytick.major.size": 3,
                "xtick.minor.width": 0.4,
                "ytick.minor.width": 0.4,
                "xtick.minor.size": 1.5,
                "ytick.minor.size": 1.5,
                "axes.grid": True,
                "grid.color": "#e6e6e6",
                "grid.linewidth": 0.5,
                "lines.linewidth": 1.3,
                "legend.frameon": False,
                "figure.dpi": DPI,
                "savefig.dpi": "figure",
                "pdf.fonttype": 42,  # text stays text: searchable, selectable, editable
                "mathtext.fontset": "dejavusans",
            }
        )
        yield


def looks(runs: Sequence[Mapping], labels: Sequence[str]) -> dict[str, tuple[str, tuple | str]]:
    """Colour and dashes for every label of `runs`; dashes are seaborn's: lengths in line widths, "" for a solid line.

    The first process of a schedule has the schedule's, coarse-to-fine before others. No two are alike as long as there
    are enough.
    """
    chosen: dict[str, tuple] = {}
    # The paper's own direction first, so that an unusual one never takes the colour of the usual one.
    unusual = [run["process"]["direction"] != "coarse-to-fine" for run in runs]
    for _, run, label in sorted(zip(unusual, runs, labels, strict=True), key=lambda item: item[0]):
        if label not in chosen:
            own = [SCHEDULE_LOOKS[run["process"]["f_type"]]] if run["process"]["f_type"] in SCHEDULE_LOOKS else []
            free = [look for look in own + MORE_LOOKS if look not in chosen.values()]
            chosen[label] = free[0] if free else MORE_LOOKS[len(chosen) % len(MORE_LOOKS)]
    return {label: chosen[label] for label in labels}


def text_width(text: str, points: float = 8, weight: str = "normal") -> float:
    """How many inches one line of `text` takes, in the fonts of `style`; dollar signs are no formulas."""
    font = FontProperties(size=points, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrapped(text: str, inches: float, points: float = 8, weight: str = "normal", most: int | None = None) -> str:
    """`text` in lines of at most `inches`, a longer word broken; what `most` lines cannot hold is cut out before the
    end, which says whether data is synthetic."""
    whole = text_width(text, points, weight)
    if whole <= inches:
        return text
    fitting = len(text) * inches / whole  # characters in a line, about

    def lines_of(text: str) -> list[str]:
        lines: list[str] = []
        for characters in range(int(1.25 * fitting) + 1, 0, -1):  # characters have different widths
            lines = textwrap.wrap(text, characters, break_on_hyphens=False)
            if all(text_width(line, points, weight) <= inches for line in lines):
                break
        return lines

    lines, end = lines_of(text), text[-len(" (synthetic)") :]
    kept = min(len(text) - len(end) - 1, int(1.2 * fitting * (most or 0)))
    while most and len(lines) > most and kept >= 0:
        lines = lines_of(f"{text[:kept].rstrip()}…{end}")
        kept -= 3
    return "\n".join(lines[:most])


def line_style(dashes: Sequence) -> tuple[float, Sequence[float]] | Literal["-"]:
    """Seaborn's dashes as matplotlib's linestyle."""
    return (0, dashes) if dashes else "-"


def save(figure: Figure, png: str | Path, pdf: str | Path, title: str) -> None:
    """Write a figure as PNG and PDF, atomically; equal figures give equal bytes (no dates, no versions)."""
    with atomic_path(png) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None, "Title": title})
    figure.set_layout_engine("none")  # PNG and PDF share one layout
    with atomic_path(pdf) as temporary:
        figure.savefig(
            temporary, format="pdf", metadata={"Title": title, "CreationDate": None, "Producer": None, "Creator": None}
        )
