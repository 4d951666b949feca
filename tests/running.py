"""Snakemake and Python as commands, for tests of the whole workflow and of scripts."""

import os
import subprocess
import sys
from pathlib import Path

SNAKEFILE = Path(__file__).resolve().parents[1] / "workflow" / "Snakefile"


def run_snakemake(
    folder: Path, *arguments: str, status: int | None = 0, path: str = "/usr/bin:/bin", timeout: float = 250
) -> str:
    """Run Snakemake in `folder` as a user without an activated environment would; returns stdout and stderr."""
    kept = ("HOME", "TMPDIR", "LANG", "OMP_NUM_THREADS", "NO_PROXY", "BLURDIFF_TELL_SECONDS")
    environment = {key: value for key, value in os.environ.items() if key in kept}
    environment |= {"PATH": path, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(SNAKEFILE), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert status is None or done.returncode == status, done.stdout
    return done.stdout


def run_python(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run Python with this process's import path."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip


def jobs_in(output: str) -> dict[str, int]:
    """How many jobs of each rule a dry run wants; {} when nothing is to be done."""
    if "Nothing to be done" in output:
        return {}
    rows = output.split("Job stats:")[1].split("\n\n")[0].splitlines()[3:]
    return {rule: int(count) for rule, count in map(str.split, rows) if rule != "total"}
