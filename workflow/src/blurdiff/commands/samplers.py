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
    from blurdiff.reporting import labels, samplers

    runs = labels.read_runs(arguments.settings)
    table = samplers.read_studies(arguments.studies, runs)
    outputs.write(arguments, runs, "samplers", samplers.draw, table, runs, table=table)
