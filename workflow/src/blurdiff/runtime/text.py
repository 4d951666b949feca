"""Numbers and tables as people read them on a terminal, and lines for the log."""

import sys
from collections.abc import Sequence


def say(line: str) -> None:
    """A line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def shown(name: str) -> str:
    """A name as it is, if a line of text can show it; else with escapes for what it cannot."""
    return name if name.isprintable() else repr(name)[1:-1]


def size(n: float) -> str:
    """Bytes in decimal units: "0 B", "12.3 kB", "4.20 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.3g} {unit}" if unit != "B" else f"{n:.0f} B"
        n /= 1000
    return f"{n:,.2f} TB"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that suits: "0.40 s", "12 s", "3.5 min", "2.1 h", "12.0 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"


def table(rows: Sequence[Sequence[object]], right: str = "") -> str:
    """Rows of cells as lines of aligned columns, two spaces apart; the first row is the heading.

    `right` names the headings whose columns are aligned to the right, separated by commas.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    to_right = [heading in right.split(",") for heading in cells[0]]
    lines = [
        "  ".join(f"{cell:{'>' if r else '<'}{w}}" for cell, w, r in zip(row, widths, to_right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)
