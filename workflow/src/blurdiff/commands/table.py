"""Make a table of runs: a tidy CSV, Markdown to read, and of some tables a figure with its caption.

Runs that differ only in their seed become one row of Table 1, of the metrics and of the differences: mean, and sample
standard deviation where there are several seeds, or of differences a 95 % t interval. fid.json and samplers.csv say of
which run they are, and rows keep their order; of other files there is one for each run, in the order of --settings.
"""

import argparse
import contextlib

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    from blurdiff.reporting.figures import INPUTS
    from blurdiff.reporting.summaries import TABLES

    parser.epilog = "tables, and the files of each:\n" + "\n".join(
        f"  {name:<12} {table.title:<58} {' '.join(f'--{option}' for option in table.inputs)}"
        for name, table in TABLES.items()
    )
    parser.add_argument("--name", choices=TABLES, default="table1", help="which table (default: %(default)s)")
    parser.add_argument("--settings", nargs="+", default=[], metavar="JSON",
                        help="the settings that the runs should have been made with; others are an error")  # fmt: skip
    for option in dict.fromkeys(option for table in TABLES.values() for option in table.inputs):
        parser.add_argument(f"--{option}", nargs="*", default=[], metavar="PATH", help=INPUTS[option].help)
    parser.add_argument("--output", required=True, metavar="CSV", help="tidy table to write")
    parser.add_argument("--markdown", required=True, metavar="MD", help="table to read, Table 1 in the paper's layout")
    parser.add_argument("--figure", metavar="PNG", help="figure to write, of a table that has one")
    parser.add_argument("--pdf", metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", metavar="MD", help="its caption")


def run(arguments: argparse.Namespace) -> None:
    """Write all of it; nothing is written when a file is bad or does not fit the others."""
    from blurdiff.config.runs import read_runs
    from blurdiff.reporting import figures, inputs, labels, summaries, tables
    from blurdiff.runtime.files import write_text

    table = summaries.TABLES[arguments.name]
    of_figure = ("settings", "figure", "pdf", "caption") if table.figure else ()
    wanted = [*(name for name in table.inputs if name != "studies"), *of_figure]
    if missing := [f"--{name}" for name in wanted if not getattr(arguments, name)]:
        raise UserError(f"--name {arguments.name} also takes {', '.join(missing)}")
    if arguments.figure and not table.figure:
        raise UserError(f"--figure: {arguments.name} comes without one")
    reader = labels.read_runs if table.figure else read_runs  # those of one figure have one resolution
    runs = reader(arguments.settings) if arguments.settings else []
    read = inputs.read_inputs(table.inputs, vars(arguments), runs)
    look: contextlib.AbstractContextManager = contextlib.nullcontext()
    if table.figure:
        from blurdiff.reporting import style  # a second, which the other tables do not need

        look = style.style(labels.own_texts(runs))
    with look:
        made = figures.function(table.make)(runs, **read)
        tables.write_csv(made.table, arguments.output, table.digits)
        if table.figure:
            style.save(made.figure, arguments.figure, arguments.pdf, f"blurdiff {arguments.name}")
            write_text(arguments.caption, made.caption + "\n")
    write_text(arguments.markdown, made.text)
