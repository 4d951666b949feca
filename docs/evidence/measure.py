"""Everything that is measured on one machine, in one command: checks, benchmark, evidence. Made for a GPU.

    python docs/evidence/measure.py --device cuda --output docs/evidence/gpu --minutes 9

checks      the tests of the training step and of sampling, on the device
benchmark   every stage of `blurdiff benchmark`, each in a process of its own
evidence    docs/evidence/run.py with gpu.yaml (or --configfile)

Stopped, or out of --minutes, the same command goes on: what OUTPUT/measure.json calls done for this commit and device
is not done again. benchmark.csv and its figure are written anew after every stage. What fails does not keep the rest
from being measured; the exit status is then 1, and 75 when time ran out.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from blurdiff.benchmark.rows import STAGES
from blurdiff.benchmark.table import PACKAGES, write_csv
from blurdiff.errors import UserError
from blurdiff.runtime.files import read_json, write_json
from blurdiff.runtime.machine import available_cores, commit, versions

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHECKED = ("training/test_step", "runtime/test_compiling", "sampling/test_sampling", "runtime/test_devices")
CHECKS = [f"tests/{name}.py" for name in CHECKED]
KEPT_LINES = 15  # of what a step printed
LEAST_SECONDS = 20  # with less left no step is begun


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="(default: cuda)")
    parser.add_argument("--output", required=True, type=Path, help="folder for what is kept")
    parser.add_argument("--minutes", type=float, default=9.0, help="in all (default: 9)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="CPU threads (default: all)")
    parser.add_argument("--parts", nargs="+", choices=("checks", "benchmark", "evidence"),
                        default=["checks", "benchmark", "evidence"], help="(default: all)")  # fmt: skip
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="of the benchmark")
    parser.add_argument("--quick", action="store_true", help="benchmark of tiny sizes: shows that it runs")
    parser.add_argument("--configfile", default=str(HERE / "gpu.yaml"), help="of the evidence (default: gpu.yaml)")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started ends too, see `run`
    try:
        return measure(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def measure(arguments: argparse.Namespace) -> int:
    deadline = time.monotonic() + 60 * arguments.minutes
    arguments.output.mkdir(parents=True, exist_ok=True)
    record = Record(arguments)
    for name, command in steps(arguments):
        if record.is_done(name):
            continue
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            record.out_of_time = True
            break
        if name == "evidence":
            command = [*command, "--minutes", f"{(left - LEAST_SECONDS / 2) / 60:.2f}"]
        record.take(name, command, left)
        if name.startswith("benchmark"):
            join_benchmarks(arguments)
    record.print_summary()
    return 75 if record.out_of_time else int(record.failed)


def steps(arguments: argparse.Namespace):
    """(name, command) in the order in which they are taken."""
    python = [sys.executable, "-m"]
    if "checks" in arguments.parts:
        yield "checks", [*python, "pytest", "-n0", "-q", "-rs", *CHECKS]
    for stage in arguments.stages if "benchmark" in arguments.parts else ():
        yield f"benchmark {stage}", [
            *python, "blurdiff", "benchmark", "--device", arguments.device, "--threads", str(arguments.threads),
            "--stages", stage, "--output", str(table_of(arguments, stage)), *["--quick"] * arguments.quick,
        ]  # fmt: skip
    if "evidence" in arguments.parts:
        yield "evidence", [sys.executable, str(HERE / "run.py"), "--configfile", arguments.configfile,
                           "--output", str(arguments.output / "runs")]  # fmt: skip


class Record:
    """measure.json: how each step ended. Steps of another commit or device do not count as done."""

    def __init__(self, arguments: argparse.Namespace):
        self.path, self.out_of_time = arguments.output / "measure.json", False
        same = {"device": arguments.device, "commit": commit(), "quick": arguments.quick}
        try:
            self.content = read_json(self.path)
        except UserError:
            self.content = {}
        if {key: self.content.get(key) for key in same} != same:
            # Tables of another commit, or of --quick, are not to be joined with these.
            shutil.rmtree(arguments.output / "stages", ignore_errors=True)
            self.content = {
                **same,
                "device_name": device_name(arguments.device),
                "versions": versions(PACKAGES),
                "steps": {},
            }

    def is_done(self, name: str) -> bool:
        return self.content["steps"].get(name, {}).get("status") == 0

    @property
    def failed(self) -> bool:
        return any(step["status"] != 0 for step in self.content["steps"].values())

    def take(self, name: str, command: list[str], seconds: float) -> None:
        """Run a step for so many seconds at most, and note how it ended."""
        print(f"{name} ({seconds:.0f} s left)", file=sys.stderr, flush=True)
        start = time.monotonic()
        status, printed = run(command, seconds)
        self.out_of_time |= status in (None, 75)
        self.content["steps"][name] = {
            "status": "out of time" if status is None else status,
            "seconds": round(time.monotonic() - start, 1),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "printed": printed.splitlines()[-KEPT_LINES:],
        }
        write_json(self.path, self.content)

    def print_summary(self) -> None:
        for name, step in self.content["steps"].items():
            last = step["printed"][-1] if step["printed"] else ""
            print(f"{name}: {step['status']} after {step['seconds']:.0f} s; {last}")
        print(json.dumps({key: self.content[key] for key in ("device_name", "commit")}))


def run(command: list[str], seconds: float) -> tuple[int | None, str]:
    """(exit status, what it printed); None when it had to be ended, with all that it had started."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=seconds)
        return process.returncode, printed
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, printed


def device_name(device: str) -> str:
    """In a process of its own: this one shall hold no GPU."""
    code = f"from blurdiff.runtime.machine import name_of_device; print(name_of_device({device!r}))"
    status, printed = run([sys.executable, "-c", code], 120)
    if status != 0:
        raise UserError(f"--device {device}: {printed.strip().splitlines()[-1] if printed.strip() else status}")
    return printed.strip().splitlines()[-1]


def table_of(arguments: argparse.Namespace, stage: str) -> Path:
    return arguments.output.absolute() / "stages" / f"{stage}.csv"


def join_benchmarks(arguments: argparse.Namespace) -> None:
    """benchmark.csv and its figure from the stages that are measured; each has the ceilings of its own run."""
    rows = []
    for stage in STAGES:
        if table_of(arguments, stage).exists():
            with open(table_of(arguments, stage), newline="", encoding="utf-8") as file:
                rows += csv.DictReader(file)
    if not rows:
        return
    write_csv(str(arguments.output / "benchmark.csv"), rows)
    paths = [str(arguments.output / name) for name in ("benchmark.csv", "benchmark.png")]
    code = f"from blurdiff.benchmark.figure import write; write(*{paths!r}, {arguments.quick})"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MPLBACKEND": "agg"})
    if all(table_of(arguments, stage).exists() for stage in STAGES):
        shutil.rmtree(arguments.output / "stages")


if __name__ == "__main__":
    sys.exit(main())
