"""Draw one figure, as PNG and vector PDF or as an animated WebP, and a caption: what is shown, and at what scale.

Paths are given in the order of the runs in --settings, one per run.
"""

import argparse
from pathlib import Path

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    from blurdiff.reporting.figures import FIGURES, INPUTS, OPTIONS

    parser.epilog = "figures, and the files of each:\n" + "\n".join(
        f"  {name:<10} {figure.title:<78} {' '.join(f'--{option}' for option in figure.inputs)}".rstrip()
        for name, figure in FIGURES.items()
    )
    parser.add_argument("--name", required=True, choices=FIGURES, help="which figure")
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="the settings of each run")
    for name in dict.fromkeys(name for figure in FIGURES.values() for name in figure.inputs):
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="PATH", help=INPUTS[name].help)
    parser.add_argument("--manifests", nargs="+", default=[], metavar="JSON",
                        help="manifest.json of each run's data set, for the caption: how many images")  # fmt: skip
    for name, option in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=option.default,
                            help=f"{option.help} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="FILE",
                        help="figure to write, .png of 200 dots per inch or more; animation: .webp")  # fmt: skip
    parser.add_argument("--pdf", metavar="PDF", help="the same figure as vector graphics; not of animation")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def run(arguments: argparse.Namespace) -> None:
    """Draw the figure that the arguments ask for; nothing is written when an input is bad."""
    from blurdiff.reporting import animation, figures, inputs, labels, style
    from blurdiff.runtime import files

    for name, option in figures.OPTIONS.items():
        if getattr(arguments, name) < option.minimum:
            value = getattr(arguments, name)
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {option.minimum}")
    figure = figures.FIGURES[arguments.name]
    outputs = [arguments.output, arguments.pdf] if arguments.pdf else [arguments.output]
    if [Path(path).suffix.lower() for path in outputs] != [f".{suffix}" for suffix in figure.formats]:
        wanted = " ".join(f"{o} FILE.{f}" for o, f in zip(("--output", "--pdf"), figure.formats, strict=False))
        raise UserError(f"{' '.join(outputs)}: not the files of {arguments.name}; give {wanted}")
    runs = labels.read_runs(arguments.settings)
    options = {name: getattr(arguments, name) for name in figure.options}
    first = None if figure.all_samples else inputs.FIRST_SAMPLES
    read = inputs.read_inputs(figure.inputs, vars(arguments), runs, first)
    counts = inputs.read_counts(arguments.manifests, runs)
    with style.style(labels.own_texts(runs)):
        drawn, caption = figures.function(figure.draw)(runs, **read, **options)
        if isinstance(drawn, animation.Animation):
            animation.save(drawn, arguments.output)
        else:
            style.save(drawn, arguments.output, arguments.pdf, f"blurdiff {arguments.name}")
    files.write_text(arguments.caption, caption + labels.images_note(runs, counts) + "\n")
