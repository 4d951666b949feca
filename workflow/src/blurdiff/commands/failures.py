"""What breaks, and what mends it: distance, saturation and fine detail of runs by sampler, as a table and a figure."""

import argparse

from blurdiff.commands import outputs

N_OF_DATA = 10_000  # images of a data set, at most, whose power is what samples should have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options; each of the first takes one path for each run, in the order of --settings."""
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="the settings of each run")
    parser.add_argument("--evaluations", required=True, nargs="+", metavar="JSON", help="fid.json of each run")
    parser.add_argument("--samples", required=True, nargs="+", metavar="NPZ", help="samples.npz of each run")
    parser.add_argument("--images", required=True, nargs="+", metavar="NPY", help="images.npy of each run's data set")
    parser.add_argument("--studies", required=True, nargs="+", metavar="CSV", help="samplers.csv of each run")
    parser.add_argument("--drawn", required=True, nargs="+", metavar="NPZ", help="samplers.npz of each run")
    outputs.add_table(parser)
    outputs.add_figure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write table, figure and caption; nothing when an input is bad."""
    import pandas as pd

    from blurdiff.evaluation.records import read_evaluation
    from blurdiff.evaluation.spectrum import power_of_data
    from blurdiff.reporting import failures, inputs, labels, samplers
    from blurdiff.runtime.arrays import read_npz

    runs = labels.read_runs(arguments.settings)
    paths = {name: getattr(arguments, name) for name in ("evaluations", "samples", "images", "studies", "drawn")}
    inputs.check_counts(list(paths), paths, runs)
    studies = samplers.read_studies(arguments.studies, runs)
    octaves: dict[str, float] = {}  # of the data, by path
    rows = []
    for settings, evaluation, samples, images, drawn in zip(
        runs, *(paths[name] for name in ("evaluations", "samples", "images", "drawn")), strict=True
    ):
        study = studies[(studies["run"] == settings.run) & (studies["seed"] == settings.seed)]
        if images not in octaves:
            octaves[images] = failures.finest_octave(power_of_data(inputs.read_images(images, settings), N_OF_DATA))
        rows += failures.rows_of(
            settings, read_evaluation(evaluation), inputs.read_samples(samples, settings), octaves[images], study,
            read_npz(drawn, ("images",), "delete it and run again")["images"],
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=failures.COLUMNS)
    outputs.write(
        arguments, runs, "failures", failures.draw, rows, runs, table=table, digits=6, text=failures.render(rows, runs)
    )
