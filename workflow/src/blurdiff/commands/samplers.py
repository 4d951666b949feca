"""Put the sampler studies of several runs together: a table, and a figure of distance against network evaluations."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--studies", nargs="+", required=True, metavar="CSV", help="study.csv of each run")
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="the settings of each run")
    parser.add_argument("--csv", required=True, help="table to write")
    parser.add_argument("--output", required=True, metavar="PNG", help="figure to write")
    parser.add_argument("--pdf", required=True, metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def run(arguments: argparse.Namespace) -> None:
    """Write table, figure and caption; nothing when an input is bad."""
    from blurdiff.reporting import labels, samplers, style
    from blurdiff.runtime.files import atomic_path, write_text

    runs = labels.read_runs(arguments.settings)
    table = samplers.read_studies(arguments.studies, runs)
    with style.style(labels.own_texts(runs)):
        figure, caption = samplers.draw(table, runs)
        with atomic_path(arguments.csv) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        style.save(figure, arguments.output, arguments.pdf, "blurdiff samplers")
    write_text(arguments.caption, caption + "\n")
