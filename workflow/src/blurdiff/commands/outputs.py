"""Where what several commands make is written: their options for it, and the writing."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from blurdiff.config.settings import Settings


def add_figure(parser: argparse.ArgumentParser) -> None:
    """A figure and its caption."""
    parser.add_argument("--output", required=True, metavar="PNG", help="figure to write")
    parser.add_argument("--pdf", required=True, metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def add_table(parser: argparse.ArgumentParser) -> None:
    """A table, to calculate with and to read."""
    parser.add_argument("--csv", required=True, help="table to write")
    parser.add_argument("--markdown", required=True, metavar="MD", help="the same to read")


def write(
    arguments: argparse.Namespace, runs: "Sequence[Settings]", name: str, draw: Callable, *drawn: object,
    table: "pd.DataFrame", digits: int | None = None, text: str = "",
) -> None:  # fmt: skip
    """Draw a figure of `runs`, and write it with its caption, its table and the same to read."""
    from blurdiff.reporting import labels, style, tables
    from blurdiff.runtime.files import write_text

    with style.style(labels.own_texts(runs)):
        figure, caption = draw(*drawn)
        tables.write_csv(table, arguments.csv, digits)
        style.save(figure, arguments.output, arguments.pdf, f"blurdiff {name}")
    if text:
        write_text(arguments.markdown, text)
    write_text(arguments.caption, caption + "\n")
