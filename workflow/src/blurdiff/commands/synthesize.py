"""A synthetic data set, drawn from a seed and written as a genuine LSUN-format LMDB (40-hex keys, WebP values).

`bedroom`: rooms in perspective with a bed, windows, lamps, pictures, patterned textiles. `church`: churches from
outside with towers, windows, stone, sky and trees. Shapes vary; the short side is 64 to 80 pixels. Image k depends on
the kind, the seed and k alone: more images, or other workers, do not change it. data.mdb appears complete or not at
all.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    from blurdiff.data.scenes import KINDS

    parser.add_argument("--kind", required=True, choices=sorted(KINDS), help="what to draw")
    parser.add_argument("--n-images", required=True, type=int, metavar="N", help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the LMDB to write, NAME_lmdb")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.data.scenes import synthesize

    synthesize(arguments.kind, arguments.output, arguments.n_images, arguments.seed, arguments.workers)
