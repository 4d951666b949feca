"""From an LSUN-format LMDB, a folder or a zip of pictures to images.npy, uint8 (n, R, R, 3), and its manifest.

Each picture is decoded to RGB and squashed to R x R without cropping, by Pillow's bilinear filter: bit for bit what
torchvision's Resize((R, R)) gives for the decoded image. The order is that of the LMDB's keys, or of the files' names
with their folders. A picture that does not decode is left out and named in the manifest; more than
--max-corrupt-fraction of them is an error. The result does not depend on the number of workers, and memory stays
constant. Both files appear complete or not at all.

Killed at any moment, the same command goes on where it was. With --part K --parts N it makes one of N parts of the
array, which `blurdiff join-parts` puts together.
"""

import argparse

from blurdiff.errors import UserError
from blurdiff.runtime.signals import EXIT_INTERRUPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    from blurdiff.data.sources import SOURCES

    one = parser.add_mutually_exclusive_group(required=True)
    for option, text in {source.option: source.help for source in SOURCES.values()}.items():
        one.add_argument(f"--{option}", metavar="PATH", help=text)
    parser.add_argument("--resolution", required=True, type=int, metavar="R", help="side of the squared images, pixels")
    parser.add_argument("--max-images", type=int, metavar="N", help="read the first N pictures only (default: all)")
    parser.add_argument(
        "--crop", choices=["center"], help="only the largest square in the middle (default: squash the whole)"
    )
    parser.add_argument(
        "--max-corrupt-fraction",
        type=float,
        default=0.001,
        metavar="F",
        help="give up when more than this fraction of the records does not decode (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--label", help="name of the data set in tables and figures (default: the folder's name)")
    parser.add_argument("--synthetic", action="store_true", help="record that the images are drawn, not photographed")
    parser.add_argument("--part", type=int, metavar="K", help="make part K of --parts only, 0 to N - 1")
    parser.add_argument("--parts", type=int, metavar="N", help="in how many parts the records are divided")
    parser.add_argument("--output", required=True, metavar="NPY", help="the array to write")
    parser.add_argument("--manifest", required=True, metavar="JSON", help="the manifest to write")


def run(arguments: argparse.Namespace) -> int:
    """The stage."""
    from blurdiff.data.preprocess import Interrupted, preprocess, say
    from blurdiff.data.sources import SOURCES

    if (arguments.part is None) != (arguments.parts is None):
        raise UserError("--part and --parts go together: --part 0 --parts 4 is the first of four")
    given = {name: vars(arguments)[source.option] for name, source in SOURCES.items() if not source.drawn}
    [(kind, path)] = [(name, path) for name, path in given.items() if path is not None]
    try:
        manifest = preprocess(
            path,
            arguments.output,
            arguments.manifest,
            kind=kind,
            crop=arguments.crop,
            resolution=arguments.resolution,
            max_images=arguments.max_images,
            max_corrupt_fraction=arguments.max_corrupt_fraction,
            workers=arguments.workers,
            label=arguments.label,
            synthetic=arguments.synthetic,
            part=None if arguments.part is None else (arguments.part, arguments.parts),
        )
    except (Interrupted, KeyboardInterrupt) as error:
        say(str(error) or "stopped; the same command goes on")
        return EXIT_INTERRUPTED
    print(f"{arguments.output}: {manifest.n_used:,} images, {len(manifest.skipped)} records skipped")
    return 0
