"""How much of a run is start-up: the imports of Python and PyTorch in every job, and Snakemake itself.

    python docs/evidence/startup.py --output docs/evidence/cpu/startup.json

runs a config (the default) from nothing in a temporary folder. Every job's Python writes how long its imports took to
the job's log (PYTHONPROFILEIMPORTTIME); those are summed by rule. The share is that of all processor time of the run.
Imports are timed by the clock: run it on a quiet machine.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from blurdiff.runtime.files import write_json
from blurdiff.runtime.machine import commit, cpu_name

ROOT = Path(__file__).resolve().parents[2]
# Python prints a line a module, microseconds without those of the modules that it imports in turn.
IMPORT = re.compile(r"^import time:\s+(\d+) \|", re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=ROOT / "config" / "config.yaml", help="config to run")
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    parser.add_argument("targets", nargs="*", help="files to make (default: all)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blurdiff-startup-") as folder:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "all",
                   "--directory", folder, "--configfile", str(arguments.configfile.resolve()), "--config",
                   "results=results", "store=store", "--", *arguments.targets]  # fmt: skip
        start, before = time.perf_counter(), children_cpu()
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        own = OwnTime(process.pid)
        printed = process.communicate()[0]
        wall, cpu = time.perf_counter() - start, children_cpu() - before
        if process.returncode:
            print(IMPORT.sub("", printed)[-3000:], file=sys.stderr)
            return process.returncode
        imports = imports_by_rule(Path(folder, "results", "logs"))
    n_jobs, in_imports = sum(len(times) for times in imports.values()), sum(sum(times) for times in imports.values())
    result = {
        "config": arguments.configfile.name,
        "device": cpu_name(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "jobs": n_jobs,
        "import_seconds": round(in_imports, 1),
        "snakemake_seconds": round(own.seconds, 1),
        "share_of_cpu": round((in_imports + own.seconds) / cpu, 3),
        "import_seconds_by_rule": {
            rule: {"jobs": len(times), "mean": round(sum(times) / len(times), 2)} for rule, times in imports.items()
        },
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, result)
    print(json.dumps(result, indent=2))
    return 0


def children_cpu() -> float:
    """Processor seconds of all processes that this one has started and waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class OwnTime(threading.Thread):
    """Follows a process; `seconds` is the processor time of it alone, without its children, up to half a second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.seconds = psutil.Process(pid), 0.0
        self.start()

    def run(self) -> None:
        try:
            while True:
                times = self.process.cpu_times()
                self.seconds = times.user + times.system
                time.sleep(0.5)
        except psutil.Error:
            return


def imports_by_rule(logs: Path) -> dict[str, list[float]]:
    """Seconds of imports in each job's log, by rule (the log's folder, or its name where a rule has one job)."""
    found: dict[str, list[float]] = {}
    for path in sorted(logs.rglob("*.log")):
        seconds = sum(map(int, IMPORT.findall(path.read_text(errors="replace")))) / 1e6
        rule = path.parent.name if path.parent != logs else path.stem
        found.setdefault(rule, []).append(seconds)
    return found


if __name__ == "__main__":
    sys.exit(main())
