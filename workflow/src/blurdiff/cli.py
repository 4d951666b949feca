"""The command line: `blurdiff STAGE …`, one module of blurdiff.commands for each, imported only when it is asked for.

Such a module has `add_arguments(parser)` and `run(arguments)`. Importing torch costs seconds, so a module that
does not need it must not import it, and the overview (`blurdiff --help`) imports none of them.
"""

import argparse
import getpass
import importlib
import os
import sys
import tempfile

from blurdiff import __version__
from blurdiff.errors import UserError
from blurdiff.runtime.files import expand_path

STAGES = {
    "init": "a folder to start from: Snakefile, configs, profiles",
    "synthesize": "draw a synthetic data set and write it as an LSUN-format LMDB",
    "download": "the zip of an LSUN-format LMDB by HTTP, checked and unpacked",
    "preprocess": "an LMDB, a folder or a zip of pictures to images.npy and its manifest",
    "join-parts": "parts made by `preprocess --part` to one images.npy and its manifest",
    "train": "train one model, or resume it from its last checkpoint",
    "draw": "pictures from a trained model",
    "sample": "draw one shard of samples from a model",
    "gather": "shards of samples to samples.npz and strips.npz",
    "reference": "statistics of the real images, with the real-against-real floor",
    "evaluate": "Fréchet distance of samples to reference statistics",
    "sampler-study": "Fréchet distance against network evaluations, for several samplers",
    "table": "Table 1 or another table of runs (CSV, Markdown, and of some a figure)",
    "figure": "one figure of the paper (PNG and PDF)",
    "audit": "what differs between paper and released code, measured",
    "benchmark": "every stage timed beside what a user would take instead",
    "import-checkpoint": "a guided-diffusion style checkpoint to a model.safetensors",
    "export-diffusers": "a model to a folder that diffusers' UNet2DModel reads",
    "page": "all results of a config on one page of HTML",
    "plan": "what a config will cost before anything starts, and how far it is",
    "store": "show the store of trained models; remove what no config needs",
    "settings": "print the resolved settings of a config file's runs",
}


NO_PATHS = {"label", "url"}  # options whose text stays as it is given


def module_name(stage: str) -> str:
    """The module of a stage."""
    return f"blurdiff.commands.{stage.replace('-', '_')}"


def overview() -> str:
    """The help text that lists every stage."""
    width = max(map(len, STAGES))
    lines = [f"  {name:<{width}}  {text}" for name, text in STAGES.items()]
    return "usage: blurdiff STAGE [options]\n\nstages, in the order of an image's way:\n" + "\n".join(
        [*lines, "", "`blurdiff STAGE --help` explains a stage; `blurdiff --version` tells the version."]
    )


def with_paths(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments with `~` and `$VARIABLE` filled in wherever a path may stand; UserError that names the option."""

    def expanded(value: object) -> object:
        if isinstance(value, list):
            return [expanded(item) for item in value]
        # What begins like JSON is settings itself.
        return expand_path(value) if isinstance(value, str) and not value.lstrip().startswith(("{", "[")) else value

    for name, value in vars(arguments).items():
        try:
            setattr(arguments, name, value if name in NO_PATHS else expanded(value))
        except UserError as error:
            raise UserError(f"--{name.replace('_', '-')}: {error}") from error
    return arguments


def set_environment() -> None:
    """What no environment of a user may change or lack, for this process and those that it starts."""
    # A notebook's environment names a drawing back end that is not there outside of it, and matplotlib will not start;
    # and a file random.py in the working folder must not stand in for Python's own in the processes that a job starts.
    os.environ.update(MPLBACKEND="agg", PYTHONSAFEPATH="1")
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have: PyTorch calls its cache by that name
        cache = os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache)


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns the exit status: 0 done, 1 bad input (one line on stderr), 2 wrong usage, 130
    interrupted by Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    if argv[0] not in STAGES:
        print(f"error: no stage named {argv[0]!r}; `blurdiff --help` lists them", file=sys.stderr)
        return 2
    set_environment()
    try:
        module = importlib.import_module(module_name(argv[0]))
        parser = argparse.ArgumentParser(prog=f"blurdiff {argv[0]}", description=module.__doc__,
                                         formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        module.add_arguments(parser)
        arguments = parser.parse_args(argv[1:])
        return module.run(with_paths(arguments)) or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command does it again, and goes on where it can", file=sys.stderr)
        return 130
