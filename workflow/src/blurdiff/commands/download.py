"""Download an LMDB's zip, check it, and unpack its data.mdb into a folder; LSUN's own for a folder with LSUN's name.

The zip lies beside the folder, as FOLDER.zip.part, until the LMDB is unpacked: stopped or killed at any moment, the
same command goes on from what is there. A dropped connection is tried again. A file that changes on the server is
started over. A zip of the wrong checksum is deleted. A FOLDER.zip that is there already is used instead, and kept.
"""

import argparse

from blurdiff.runtime.signals import EXIT_INTERRUPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to make, with data.mdb in it")
    parser.add_argument("--url", help="http(s) address of the zip (default: LSUN's, by the name of the folder)")
    parser.add_argument("--digest", metavar="HEX", help="SHA-256 or MD5 of the zip (default: LSUN's, where known)")
    parser.add_argument(
        "--retries", type=int, default=10, metavar="N",
        help="attempts without progress before giving up, after ever longer waits (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--keep-archive", action="store_true", help="keep the zip, as FOLDER.zip")


def run(arguments: argparse.Namespace) -> int:
    """The stage."""
    from blurdiff.data.download import download_lmdb
    from blurdiff.runtime.text import say

    options = {"retries": arguments.retries, "keep_archive": arguments.keep_archive}
    try:
        download_lmdb(arguments.output, arguments.url, arguments.digest, **options)
    except KeyboardInterrupt:
        say("stopped; what is downloaded stays, and the same command goes on from there")
        return EXIT_INTERRUPTED
    return 0
