"""Parts of a data set, each made by `blurdiff preprocess --part`, to one images.npy and its manifest.

Both are byte for byte what one pass over the LMDB gives. The parts are read once, in order, a few MB at a time, and
checked against the SHA-256 of their manifests. Both files appear complete or not at all.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--parts", required=True, nargs="+", metavar="NPY", help="the arrays of all parts, in order")
    parser.add_argument("--manifests", required=True, nargs="+", metavar="JSON", help="their manifests, in order")
    parser.add_argument(
        "--max-corrupt-fraction",
        type=float,
        default=0.001,
        metavar="F",
        help="give up when more than this fraction of all records did not decode (default: %(default)s)",
    )
    parser.add_argument("--output", required=True, metavar="NPY", help="the array to write")
    parser.add_argument("--manifest", required=True, metavar="JSON", help="the manifest to write")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.data.join import join

    manifest = join(
        arguments.parts, arguments.manifests, arguments.output, arguments.manifest, arguments.max_corrupt_fraction
    )
    print(f"{arguments.output}: {manifest.n_used:,} images, {len(manifest.skipped)} records skipped")
