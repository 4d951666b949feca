"""Run a config seed by seed and keep what may be published of it: tables, figures, timings, and where they come from.

    python docs/evidence/run.py --configfile docs/evidence/photographs.yaml --output docs/evidence/photographs

Stopped at any moment, or by --minutes, the same command goes on. After every seed that is finished for all runs the
output folder is written anew: all tables, figures (PNG and caption), timings.csv (wall time, processor time and
memory of the jobs), config.yaml and provenance.json. Photographs of a data set are never copied.
"""

import argparse
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from blurdiff.config.runs import load_config
from blurdiff.errors import UserError
from blurdiff.reporting.figures import FIGURES
from blurdiff.reporting.summaries import TABLES
from blurdiff.reporting.timings import read_timings
from blurdiff.runtime.files import atomic_folder, write_json
from blurdiff.runtime.machine import cpu_name

SHOW_PHOTOGRAPHS = {name for name, figure in FIGURES.items() if figure.shows_data}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", required=True, help="config to run")
    parser.add_argument("--output", required=True, type=Path, help="folder for what is kept; replaced")
    parser.add_argument("--minutes", type=float, help="stop after so long; what is unfinished then goes on next time")
    parser.add_argument("--cores", default="all", help="for snakemake (default: all)")
    parser.add_argument("snakemake", nargs="*", metavar="-- OPTION", help="more options for snakemake")
    arguments = parser.parse_args(argv)
    try:
        return run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace) -> int:
    """Every prefix of the seeds in turn, so that what is finished is always a whole comparison."""
    config = load_config(arguments.configfile)
    shown = SHOW_PHOTOGRAPHS & config["figures"].keys()
    if shown and not all(dataset["synthetic"] for dataset in config["datasets"].values()):
        raise UserError(f"{arguments.configfile}: figures.{min(shown)} shows photographs of the data set; remove it")
    deadline = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    for n in range(1, len(config["seeds"]) + 1):
        seeds = config["seeds"][:n]
        command = [sys.executable, "-m", "snakemake", "--cores", arguments.cores, "--configfile", arguments.configfile,
                   "--config", f"seeds={json.dumps(seeds)}", *arguments.snakemake]  # fmt: skip
        status = call(command, deadline)
        if status is None:
            print(f"time is up with {n - 1} of {len(config['seeds'])} seeds; the same command goes on", file=sys.stderr)
            return 75
        if status:
            return status
        keep(config, seeds, arguments)
        print(f"{arguments.output}: seeds {seeds}", file=sys.stderr)
    return 0


def call(command: list[str], deadline: float | None) -> int | None:
    """The exit status of a command, or None if it had to be stopped at the deadline. It is given time to save."""
    process = subprocess.Popen(command)
    try:
        return process.wait(deadline and max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        for child in children(process.pid):  # Snakemake itself waits for its jobs to end
            child.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait()
        return None


def children(pid: int) -> list:
    """The processes that a process has started, and theirs."""
    import psutil

    return psutil.Process(pid).children(recursive=True)


def keep(config: dict, seeds: list[int], arguments: argparse.Namespace) -> None:
    """Write the output folder from the results of these seeds."""
    results = Path(config["results"])
    if arguments.output.exists():
        shutil.rmtree(arguments.output)
    with atomic_folder(arguments.output) as folder:
        for name in [f"{table}.{suffix}" for table in TABLES for suffix in ("csv", "md")]:
            if (results / name).exists():
                shutil.copyfile(results / name, folder / name)
        for name in sorted((config["figures"].keys() | TABLES.keys()) - SHOW_PHOTOGRAPHS):
            for suffix in ("png", "webp", "md"):
                path = results / "figures" / f"{name}.{suffix}"
                if path.exists():
                    keep_figure(path, folder)
        read_timings(results / "benchmarks").to_csv(folder / "timings.csv", index=False, lineterminator="\n")
        shutil.copyfile(arguments.configfile, folder / "config.yaml")
        write_json(folder / "provenance.json", provenance(config, seeds, arguments))


def keep_figure(path: Path, folder: Path) -> None:
    """Copy a figure or its caption.

    A picture of more than a megabyte, which does not belong in git, becomes a WebP. The caption of a table's figure
    (failures, samplers, tilt), which has the table's name, follows the table.
    """
    kept = folder / path.name
    if path.suffix == ".png" and path.stat().st_size > 1_000_000:
        Image.open(path).convert("RGB").save(kept.with_suffix(".webp"), quality=88, method=6)
    elif kept.exists():
        kept.write_text("\n".join(each.read_text(encoding="utf-8") for each in (kept, path)), encoding="utf-8")
    else:
        shutil.copyfile(path, kept)


def provenance(config: dict, seeds: list[int], arguments: argparse.Namespace) -> dict:
    """What made the results: device, software, commit, date, command."""
    import torch

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()

    device = config["training"]["device"]
    manifests = {
        name: json.loads((Path(config["results"]) / "data" / name / "manifest.json").read_text())
        for name in config["datasets"]
    }
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "training_device": device,
        "date": time.strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "HEAD"),
        # But for the output itself, which an earlier run may have left in git.
        "changed_files": git("status", "--porcelain", "-uno", "--", ".", f":!{arguments.output}").splitlines(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seeds": seeds,
        "images": {name: {key: each[key] for key in ("n_used", "sha256")} for name, each in manifests.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
