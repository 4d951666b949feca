"""Statistics of a data set's real images: what samples are compared with, and the number that real images get.

One pass over all images gives the mean and covariance of their features. The floor of each metric is what --n-samples
of the images, drawn at random, get in place of samples: what a perfect model would get with as many. It is repeated
--repeats times, with disjoint subsets when there are enough images.

statistics.npz: mu, sigma, n, features (of as many other images, which samples are compared with one by one), floor_n,
floor.METRIC (repeats,) of each metric, metric, network, weights_sha256, input_size, resolution, images_sha256.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    from blurdiff.evaluation.features import add_network_arguments

    parser.add_argument("--images", required=True, metavar="NPY", help="the real images, uint8 (n, R, R, 3)")
    parser.add_argument("--manifest", required=True, metavar="JSON", help="their manifest")
    add_network_arguments(parser)
    parser.add_argument("--n-samples", type=int, required=True, metavar="N", help="images in a subset of the floor")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="subsets of the floor (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the subsets (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: %(default)s)")
    parser.add_argument("--output", required=True, metavar="NPZ", help="the statistics to write")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.evaluation.reference import make_reference

    given = vars(arguments).copy()
    found = make_reference(given.pop("images"), given.pop("manifest"), given.pop("output"), **given)
    numbers = ", ".join(f"{value:.4g}" for value in found.floors.get("frechet", ()))
    numbers = numbers or f"none, {found.n:,} images are fewer than 2 x {found.floor_n:,}"
    print(f"{arguments.output}: {found.n:,} images; {found.metric} floor of {found.floor_n:,} images: {numbers}")
