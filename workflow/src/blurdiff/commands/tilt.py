"""Distance by the spectral tilt of the process, in pairs of the same seed: a table and a figure of all such runs."""

import argparse

from blurdiff.commands import outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options; the first take one path for each run and seed, in the order of --settings."""
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="settings of each run with a tilt")
    parser.add_argument("--evaluations", required=True, nargs="+", metavar="JSON", help="fid.json of each")
    parser.add_argument("--samples", required=True, nargs="+", metavar="NPZ", help="samples.npz of each")
    parser.add_argument("--images", required=True, nargs="+", metavar="NPY", help="images.npy of each one's data set")
    parser.add_argument("--studies", default=[], nargs="*", metavar="CSV", help="samplers.csv of some of them")
    outputs.add_table(parser)
    outputs.add_figure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write table, figure and caption; nothing when an input is bad."""
    from blurdiff.reporting import inputs, labels, tables, tilt

    runs = labels.read_runs(arguments.settings)
    read = inputs.read_inputs(("evaluations", "samples", "images"), vars(arguments), runs)
    table = tilt.summarise(read["evaluations"], tables.study_evaluations(arguments.studies, read["evaluations"]))
    outputs.write(
        arguments, runs, "tilt", tilt.draw, table, runs, read["samples"], read["images"],
        table=table[tilt.COLUMNS], digits=10, text=tilt.render(table),
    )  # fmt: skip
