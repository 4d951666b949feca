"""Say what a config will cost before anything starts, and how far it is.

Jobs are those of the workflow; operations, disk and memory are counted; times come from short measurements on this
machine (a second or so for each kind of work) and are estimates. What is there already is left out. Neither data nor a
GPU is needed: where a GPU is wanted and absent, GPU-hours are not guessed, only the operations are given.
"""

import argparse
import json
import os

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    add = parser.add_argument
    several = (
        "the config; of several, the later is laid over the earlier, as Snakemake does (default: config/config.yaml)"
    )
    add("--configfile", "--config", nargs="+", action="extend", metavar="FILE", help=several)
    add("--no-calibration", action="store_true", help="measure nothing: operations, disk and memory only")
    add("--calibration-seconds", type=float, default=1.0, metavar="S", help="for each kind of work (default: 1)")
    add("--compile", action="store_true",
        help="measure with torch.compile, as jobs on a GPU run; costs a minute or more for each network")  # fmt: skip
    add("--tflops", type=float, metavar="X",
        help="teraflops per second that networks reach on devices where nothing is measured (your choice)")  # fmt: skip
    add("--cores", type=int, metavar="N", help="cores that jobs share (default: all of this machine)")
    add("--gpus", type=int, metavar="N", help="GPUs that jobs share (default: those here, at least 1)")
    add("--n-images", action="append", default=[], metavar="[NAME=]N",
        help="images in the data set NAME, or in all whose images are not here")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    for option in ("calibration_seconds", "tflops", "cores", "gpus"):
        value = getattr(arguments, option)
        if value is not None and not value > 0:
            raise UserError(f"--{option.replace('_', '-')} must be more than 0, not {value}")
    try:
        from blurdiff.plan.graph import read_config
    except ModuleNotFoundError as error:
        raise UserError(f"plan needs Snakemake ({error}): install requirements.txt, as the README says") from error
    name, config = read_config(arguments.configfile or ["config/config.yaml"])
    # As Snakemake does for its jobs. It is read when numpy is loaded, so that nothing here loads it before.
    os.environ.setdefault("OMP_NUM_THREADS", str(config["evaluation"]["threads"]))
    from blurdiff.plan.make import make_plan
    from blurdiff.plan.report import text_of

    plan = make_plan(config, name, arguments)
    print(json.dumps(plan, indent=2) if arguments.json else text_of(plan))
