"""Put the sampler studies of several runs together: a table, and a figure of distance against network evaluations."""

import argparse

from blurdiff.commands import outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--studies", nargs="+", required=True, metavar="CSV", help="samplers.csv of each run")
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="the settings of each run")
    parser.add_argument("--csv", required=True, help="table to write")
    outputs.add_figure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write table, figure and caption; nothing when an input is bad."""
    from blurdiff.reporting import labels, samplers, style, tables
    from blurdiff.runtime.files import write_text

    runs = labels.read_runs(arguments.settings)
    table = samplers.read_studies(arguments.studies, runs)
    with style.style(labels.own_texts(runs)):
        figure, caption = samplers.draw(table, runs)
        tables.write_csv(table, arguments.csv)
        style.save(figure, arguments.output, arguments.pdf, "blurdiff samplers")
    write_text(arguments.caption, caption + "\n")
