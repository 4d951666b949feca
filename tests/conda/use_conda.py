"""`snakemake --use-conda` with the stand-in for conda, and what its jobs took from where."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import conda_stand_in
import stand_in_channel
from env_files import ROOT, read_env_files, read_rules

from running import jobs_in


def set_up(root: Path) -> None:
    """Write the stand-in and its channel, for the environment files of this repository, into the folder `root`."""
    conda_stand_in.install(root)
    stand_in_channel.build(root, list(read_env_files().values()))


def run(stand_in: Path, folder: Path, *arguments: str, status: int = 0) -> str:
    """Run Snakemake in a folder, with nothing of this shell's environment; returns its output.

    Raises AssertionError with the output if it ends with another status. Its jobs end with it, whatever happens here.
    """
    kept = ("HOME", "TMPDIR", "LANG")
    environment = {key: value for key, value in os.environ.items() if key in kept}
    environment |= {"PATH": f"{stand_in / 'bin'}:/usr/bin:/bin", "XDG_CACHE_HOME": str(stand_in / "cache")}
    command = [sys.executable, "-m", "snakemake", "--use-conda", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == status, output
    return output


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule, without those that run nothing."""
    return {rule: count for rule, count in jobs_in(output).items() if rule not in ("all", "default")}


def environments(folder: Path) -> dict[str, Path]:
    """The environments that Snakemake made in a folder, by the name of the file that each was made from."""
    texts = {env_file.path.read_text(): name for name, env_file in read_env_files().items()}
    copies = (folder / ".snakemake" / "conda").glob("*.yaml")
    return {texts[copy.read_text()]: copy.with_suffix("") for copy in copies}


def outside(record: dict, prefix: Path) -> list[str]:
    """What a process took from neither its environment, nor Python's standard library, nor this library's source."""
    source = ROOT / "workflow" / "src"

    def known(path: Path) -> bool:
        if path.is_relative_to(prefix) or path.is_relative_to(source):
            return True
        in_stdlib = any(path.is_relative_to(folder) for folder in record["stdlib"])
        return in_stdlib and not {"site-packages", "dist-packages"} & set(path.parts)

    taken = [record["executable"], record["prefix"], *record["files"]]
    # The working folder is on the path of `python -m`, and the standard library may be a zip file that is not there.
    folder = Path(record["folder"])
    searched = [path for path in record["path"] if (folder / path).is_dir() and folder / path != folder]
    return [path for path in taken + searched if not known(folder / path)]


def check_jobs(folder: Path, counts: dict[str, int]) -> list[str]:
    """Check that the jobs ran inside the environments that their rules name, and took nothing from elsewhere.

    Returns one line a rule's environment: what ran in it. Raises AssertionError with the offending paths.
    """
    rules = read_rules()
    assert counts.keys() <= {rule.name for rule in rules}
    expected, seen = Counter(), Counter()
    for rule in rules:
        expected[rule.stage, rule.env.stem] += counts.get(rule.name, 0)
    for name, prefix in environments(folder).items():
        for path in (prefix / "processes").glob("*.json"):
            record = json.loads(path.read_text())
            line = " ".join(record["command"])
            found = outside(record, prefix)
            assert not found, f"{line} took from outside {prefix}: {found}"
            if stage := re.search(r" -m blurdiff ([\w-]+) ", line):
                seen[stage[1], name] += 1
                assert record["user_site_off"], f"{line} would import from the user's own site-packages"
    assert +expected == seen, f"jobs by stage and environment: {dict(seen)}, by the rules: {dict(+expected)}"
    return [
        f"{name}.yaml: {count} x {stage}" for (stage, name), count in sorted(seen.items(), key=lambda x: x[0][::-1])
    ]
