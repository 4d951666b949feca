"""Collect the evaluations of all runs in Table 1, or in a table of all metrics: a tidy CSV, and Markdown to read.

Runs that differ only in their seed become one row: mean, and sample standard deviation where there are several seeds.
The rows keep the order in which the evaluations are given. The paper's FID-10K stands beside them for reference.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--name", choices=("table1", "metrics"), default="table1",
                        help="Table 1, or all metrics of every run (default: %(default)s)")  # fmt: skip
    parser.add_argument("--evaluations", nargs="+", required=True, metavar="JSON",
                        help="fid.json of every run and seed, in the order of the table's rows")  # fmt: skip
    parser.add_argument("--settings", nargs="+", default=[], metavar="JSON",
                        help="the settings that the runs should have been made with; others are an error")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="CSV", help="tidy table to write")
    parser.add_argument("--markdown", required=True, metavar="MD", help="table to read, Table 1 in the paper's layout")


def run(arguments: argparse.Namespace) -> None:
    """Write both tables; nothing is written when an evaluation is bad or does not fit the others."""
    from blurdiff.config.runs import read_runs
    from blurdiff.reporting import metrics, tables
    from blurdiff.runtime import files

    made_by = {"table1": tables, "metrics": metrics}[arguments.name]
    evaluations = [tables.read_evaluation(path) for path in arguments.evaluations]
    if arguments.settings:
        tables.check_settings(evaluations, read_runs(arguments.settings))
    table = made_by.summarise(evaluations)
    markdown = made_by.render(table)
    with files.atomic_path(arguments.output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    files.write_text(arguments.markdown, markdown)
