"""Options that several commands have: where what they make is written."""

import argparse


def add_figure(parser: argparse.ArgumentParser) -> None:
    """A figure and its caption."""
    parser.add_argument("--output", required=True, metavar="PNG", help="figure to write")
    parser.add_argument("--pdf", required=True, metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def add_table(parser: argparse.ArgumentParser) -> None:
    """A table, to calculate with and to read."""
    parser.add_argument("--csv", required=True, help="table to write")
    parser.add_argument("--markdown", required=True, metavar="MD", help="the same to read")
