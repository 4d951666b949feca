"""Collect the evaluations of all runs in Table 1: a tidy CSV and the paper's layout in Markdown.

Runs that differ only in their seed become one row: mean, and sample standard deviation where there are several seeds.
The rows keep the order in which the evaluations are given. The paper's FID-10K stands beside them for reference.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--evaluations", nargs="+", required=True, metavar="JSON",
                        help="fid.json of every run and seed, in the order of the table's rows")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="CSV", help="tidy table to write")
    parser.add_argument("--markdown", required=True, metavar="MD", help="table in the paper's layout to write")


def run(arguments: argparse.Namespace) -> None:
    """Write both tables; nothing is written when an evaluation is bad or does not fit the others."""
    from blurdiff.reporting.tables import read_evaluation, render, summarise
    from blurdiff.runtime import files

    table = summarise([read_evaluation(path) for path in arguments.evaluations])
    markdown = render(table)
    with files.atomic_path(arguments.output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    files.write_text(arguments.markdown, markdown)
