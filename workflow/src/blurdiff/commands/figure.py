"""Draw one figure, as PNG, vector PDF and a caption that says what is shown and at what scale.

  figure1   reverse processes side by side          --strips
  figure2   sample grids (log, quartic)             --samples
  figure3   sample grids (directions of the blur)   --samples
  figure4   the blur schedules f(i)
  samples   every run beside its data               --samples --images
  forward   the forward process of one image        --images
  training  training loss over iterations           --histories
  spectrum  power spectrum of samples over data     --samples --images

Paths are given in the order of the runs in --settings, one a run.
"""

import argparse

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    from blurdiff.reporting.figures import INPUTS

    parser.add_argument("--name", required=True, choices=INPUTS, help="which figure")
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="the settings of each run")
    parser.add_argument("--strips", nargs="+", default=[], metavar="NPZ", help="strips.npz of each run")
    parser.add_argument("--samples", nargs="+", default=[], metavar="NPZ", help="samples.npz of each run")
    parser.add_argument("--images", nargs="+", default=[], metavar="NPY", help="images.npy of each run's data set")
    parser.add_argument("--histories", nargs="+", default=[], metavar="CSV", help="history.csv of each run")
    parser.add_argument("--manifests", nargs="+", default=[], metavar="JSON",
                        help="manifest.json of each run's data set, for the caption: how many images")  # fmt: skip
    parser.add_argument("--n-images", type=int, default=1, help="figure1: samples shown of each run (default: 1)")
    parser.add_argument("--image-index", type=int, default=0, help="forward: which image of the data set (default: 0)")
    parser.add_argument("--output", required=True, metavar="PNG", help="figure to write, 200 dots per inch or more")
    parser.add_argument("--pdf", required=True, metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def run(arguments: argparse.Namespace) -> None:
    """Draw the figure that the arguments ask for; nothing is written when an input is bad."""
    from blurdiff.reporting import arrays, labels, style
    from blurdiff.reporting.figures import INPUTS, at_resolution, draw
    from blurdiff.runtime import files

    name = arguments.name
    runs = labels.read_runs(arguments.settings)
    for kind in INPUTS[name] + ["manifests"] * bool(arguments.manifests):
        if len(getattr(arguments, kind)) != len(runs):
            raise UserError(
                f"--{kind}: {len(getattr(arguments, kind))} paths for {len(runs)} runs in --settings; give one a run"
            )
    if arguments.n_images < 1:
        raise UserError(f"--n-images {arguments.n_images}: must be at least 1")
    inputs = {}
    if "strips" in INPUTS[name]:
        inputs["strips"] = [arrays.read_strips(*each) for each in at_resolution(arguments.strips, runs)]
    if "samples" in INPUTS[name]:
        # Grids show the first few; ten thousand samples of every run would fill the memory.
        first = None if name == "spectrum" else 64
        inputs["samples"] = [arrays.read_samples(*each, first) for each in at_resolution(arguments.samples, runs)]
    if "images" in INPUTS[name]:
        inputs["images"] = [arrays.read_images(*each) for each in at_resolution(arguments.images, runs)]
    if "histories" in INPUTS[name]:
        ends = [run["training"]["iterations"] for run in runs]
        inputs["histories"] = [arrays.read_history(*each) for each in zip(arguments.histories, ends, strict=True)]
    counts = [arrays.read_count(*each) for each in zip(arguments.manifests, runs, strict=False)]
    with style.style():
        figure, caption = draw(name, runs, inputs, arguments)
        style.save(figure, arguments.output, arguments.pdf, f"blurdiff {name}")
    if counts:
        sizes = labels.distinct(f"{labels.data_label(run)}: {n:,}" for run, n in zip(runs, counts, strict=True))
        caption += f" Images to train on: {'; '.join(sizes)}."
    files.write_text(arguments.caption, caption + "\n")
