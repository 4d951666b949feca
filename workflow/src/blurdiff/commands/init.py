"""Write what one starts from into a folder: a Snakefile, configs with every key explained, and Snakemake's profiles.

The Snakefile includes the workflow of the installed package, so that no clone of the repository is needed. Then, in
that folder: `snakemake --cores all`. A file that is there already is never overwritten.
"""

import argparse
import re
from pathlib import Path

from blurdiff.errors import UserError
from blurdiff.runtime.files import PROJECT, write_text

DOCUMENT = re.compile(r"\[[^\]]*\]\(\.\./docs/([\w./-]+?)(?:#[\w-]*)?\)")
# From the package's folder `project`, to the same place in the user's folder or to the one given.
FILES = {"config": "config", "workflow/profiles": "profiles", "Snakefile": "Snakefile"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("folder", metavar="DIR", help="the folder, made if it is not there")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    folder = Path(arguments.folder)
    texts = {}
    for source, target in FILES.items():
        place = (PROJECT / source).resolve()
        for path in [place] if place.is_file() else sorted(place.rglob("*.*")):
            text = path.read_text(encoding="utf-8")
            # No link may lead nowhere: the documents stay in the repository.
            texts[folder / target / path.relative_to(place)] = DOCUMENT.sub(r"docs/\1 of the repository", text)
    there = [path for path in texts if path.exists() or path.is_symlink()]
    if there:
        raise UserError(f"{there[0]} exists already, and nothing was written; choose another folder")
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {path.parent}: {error.strerror}") from error
        write_text(path, text)
    print(f"{folder} is ready: edit {folder / 'config' / 'config.yaml'}, whose keys {folder / 'config' / 'README.md'}"
          f" explains; then, in {folder}: snakemake --cores all")  # fmt: skip
