"""Time every stage beside what a user would take instead, in one run, and write a table and a figure.

Each implementation has a process of its own; those of a stage are timed in turns, round by round, so that a slow moment
of the machine meets all. Warming up and compiling are left out. A row gives the median, least and largest throughput,
the ratio to the baseline of its stage, FLOPs and bytes counted while the operators ran, which part of the device's
ceilings (a large matrix product and a large copy, measured here too) that is, peak memory, and whether results agree.

On a CPU the network and batch are the default config's, on a GPU the paper's, or what --settings says. The process is
timed beside the paper's network.
"""

import argparse
import tempfile
from pathlib import Path

from blurdiff.benchmark.rows import STAGES, Bench
from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads and worker processes (default: 1)")
    parser.add_argument("--settings", help="a run's settings, for training and sampling: JSON, or a path")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="(default: all)")
    parser.add_argument("--lmdb", metavar="DIR", help="preprocess this one instead of synthetic images of LSUN's size")
    parser.add_argument("--weights", metavar="PTH", help="pytorch-fid's weights (default: random ones)")
    parser.add_argument("--repeats", type=int, help="timed repeats of each row (default: 5)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--output", required=True, metavar="CSV", help="table to write")
    parser.add_argument("--figure", metavar="PNG", help="figure to write; .pdf and the caption, .md, stand beside it")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.benchmark import stage
    from blurdiff.benchmark.settings import settings_for
    from blurdiff.config.runs import read_settings

    repeats = arguments.repeats or (2 if arguments.quick else 5)
    for name, value in {"threads": arguments.threads, "repeats": repeats}.items():
        if value < 1:
            raise UserError(f"--{name} must be 1 or more, not {value}")
    given = read_settings(arguments.settings) if arguments.settings else None
    settings = settings_for(arguments.device, given, arguments.quick)
    with tempfile.TemporaryDirectory(prefix="blurdiff-benchmark-") as folder:
        bench = Bench(settings, Path(folder), arguments.quick, arguments.threads, arguments.lmdb, arguments.weights)
        stage.run(bench, arguments.stages, repeats, arguments.output, arguments.figure)
