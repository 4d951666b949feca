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
    from blurdiff.reporting import inputs, labels, style, tables, tilt
    from blurdiff.runtime.files import write_text

    runs = labels.read_runs(arguments.settings)
    paths = {name: getattr(arguments, name) for name in ("evaluations", "samples", "images")}
    inputs.check_counts(list(paths), paths, runs)
    evaluations = [tables.read_own(path, run) for path, run in zip(arguments.evaluations, runs, strict=True)]
    table = tilt.summarise(evaluations, tables.study_evaluations(arguments.studies, evaluations))
    samples = [inputs.read_samples(path, run) for path, run in zip(arguments.samples, runs, strict=True)]
    images = [inputs.read_images(path, run) for path, run in zip(arguments.images, runs, strict=True)]
    with style.style(labels.own_texts(runs)):
        figure, caption = tilt.draw(table, runs, samples, images)
        tables.write_csv(table[tilt.COLUMNS], arguments.csv, digits=10)
        style.save(figure, arguments.output, arguments.pdf, "blurdiff tilt")
    write_text(arguments.markdown, tilt.render(table))
    write_text(arguments.caption, caption + "\n")
