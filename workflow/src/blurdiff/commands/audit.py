"""Audit: what the paper and the authors' released code do differently, measured without a trained network.

The names of the files in --output say what is made; the files of one group are made together:

  differences.csv differences.md measurements.csv            every difference, and all numbers measured about it
  operator.png operator.pdf                                  the blur beside the operator of the released code
  gaussian.csv gaussian_summary.csv gaussian.png gaussian.pdf  samplers on Gaussian data with the exact score

docs/audit.md explains them. One core, below a minute.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--output", nargs="+", required=True, metavar="PATH", help="files to make, by name (see above)")
    parser.add_argument("--resolution", type=int, default=64, help="of the images, in pixels (default %(default)s)")
    parser.add_argument("--n-timesteps", type=int, default=1000, help="N of all processes (default %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Make the files that the arguments name; nothing is written when an argument is bad."""
    from blurdiff.audit.stage import make

    make(arguments.output, arguments.resolution, arguments.n_timesteps)
