"""Collect the evaluations of all runs in a table: a tidy CSV, and Markdown to read.

Runs that differ only in their seed become one row: mean, and sample standard deviation where there are several seeds,
or of differences a 95 % t interval. The rows keep the order in which the evaluations are given.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    from blurdiff.reporting.summaries import TABLES

    parser.epilog = "tables:\n" + "\n".join(f"  {name:<12} {table.title}" for name, table in TABLES.items())
    parser.add_argument("--name", choices=TABLES, default="table1", help="which table (default: %(default)s)")
    parser.add_argument("--evaluations", nargs="+", required=True, metavar="JSON",
                        help="fid.json of every run and seed, in the order of the table's rows")  # fmt: skip
    parser.add_argument("--studies", nargs="*", default=[], metavar="CSV",
                        help="samplers.csv of some of these runs, for tables that show other samplers too")  # fmt: skip
    parser.add_argument("--settings", nargs="+", default=[], metavar="JSON",
                        help="the settings that the runs should have been made with; others are an error")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="CSV", help="tidy table to write")
    parser.add_argument("--markdown", required=True, metavar="MD", help="table to read, Table 1 in the paper's layout")


def run(arguments: argparse.Namespace) -> None:
    """Write both tables; nothing is written when an evaluation is bad or does not fit the others."""
    from blurdiff.config.runs import read_runs
    from blurdiff.reporting import figures, summaries, tables
    from blurdiff.runtime import files

    evaluations = [tables.read_evaluation(path) for path in arguments.evaluations]
    if arguments.settings:
        tables.check_settings(evaluations, read_runs(arguments.settings))
    entry = summaries.TABLES[arguments.name]
    studies = [tables.study_evaluations(arguments.studies, evaluations)] if entry.studies else []
    table, markdown = figures.function(entry.make)(evaluations, *studies)
    tables.write_csv(table, arguments.output, digits=10)
    files.write_text(arguments.markdown, markdown)
