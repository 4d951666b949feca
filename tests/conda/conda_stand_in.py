"""A stand-in for the program `conda`: the calls that Snakemake makes, served from what this Python has installed.

`conda` itself is served by no Python package registry. An environment that this makes holds links to the files of the
distributions that its file names and of those that they need, and of no other; so it can import these and nothing
else. A distribution that is not installed in exactly the version that is asked for is not to be had. What stands
outside the truth: `python` and `pip` are the host's, of whatever version, and a conda package needs what its
distribution needs. Of the section `pip:` only the named distributions are linked; what they need must stand in the file
too, which the environment's own `pip check` judges. `install(root)` writes ROOT/bin/conda and ROOT/bin/activate.

    conda_stand_in.py ROOT CONDA_ARGUMENT…
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from env_files import read_env_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SITE_PACKAGES = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")


def install(root: Path) -> None:
    """Write the programs that Snakemake calls into root/bin."""
    (root / "bin").mkdir(parents=True)
    conda = root / "bin" / "conda"
    # The workflow sets PYTHONSAFEPATH, but this script imports one beside it.
    command = f'exec env -u PYTHONSAFEPATH "{sys.executable}" "{Path(__file__).resolve()}" "{root.resolve()}" "$@"'
    conda.write_text(f"#!/bin/sh\n{command}\n")
    conda.chmod(0o755)
    (root / "bin" / "activate").write_text('export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n')


def main(root: str, arguments: list[str]) -> None:
    """One call of `conda`. What cannot be done ends in one line on stderr and exit status 1."""
    match arguments:
        case ["--version"]:
            print("conda 25.1.0")  # Snakemake wants 24.7.1 or later
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": root, "platform": "linux-64"}))
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["clean", "-y", "--tarballs"]:
            pass  # there are none
        case ["env", "create", *options]:
            parser = argparse.ArgumentParser(prog="conda create", allow_abbrev=False)
            parser.add_argument("--file", type=Path, required=True)
            parser.add_argument("--prefix", type=Path, required=True)
            for without_effect in ("--quiet", "--yes", "--no-default-packages"):
                parser.add_argument(without_effect, action="store_true")
            chosen = parser.parse_args(options)
            create(chosen.file, chosen.prefix)
        case _:
            raise SystemExit(f"conda stand-in: no such call: conda {' '.join(arguments)}")


def create(file: Path, prefix: Path) -> None:
    """Make the environment of a file: its conda packages and what these need, then what its section `pip:` names."""
    env_file, installed = read_env_file(file), installed_distributions()
    if env_file.channels != ["conda-forge", "nodefaults"]:
        raise SystemExit(f"conda stand-in: UnavailableInvalidChannel: {', '.join(env_file.channels)}")
    for name, version in env_file.distributions.items():
        if name != "pip" and (name not in installed or installed[name].version != version):
            raise SystemExit(f"conda stand-in: No candidates were found for {name} =={version}")
    make_python(prefix)
    of_pip = env_file.pip.keys()
    for path, source in links(installed, closure(installed, env_file.distributions.keys() - of_pip) | of_pip):
        target = prefix / SITE_PACKAGES / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    pip_check = [prefix / "bin" / "python", "-m", "pip", "check"]
    if of_pip and subprocess.run(pip_check, stdout=sys.stderr, check=False).returncode:
        raise SystemExit("conda stand-in: CondaEnvException: Pip failed")


def make_python(prefix: Path) -> None:
    """The host's interpreter as an environment of its own: no site-packages but that of its prefix."""
    interpreter = Path(sys._base_executable).resolve()
    (prefix / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (prefix / "bin" / name).symlink_to(interpreter)
    (prefix / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
    (prefix / SITE_PACKAGES).mkdir(parents=True)
    recorder = Path(__file__).with_name("recorder.py").read_text()
    (prefix / SITE_PACKAGES / "sitecustomize.py").write_text(recorder)


def installed_distributions() -> dict[str, Distribution]:
    """What is installed, by canonical name; the first on the path is the one that is imported."""
    return {canonicalize_name(each.name): each for each in reversed(list(importlib.metadata.distributions()))}


def requirements(installed: dict[str, Distribution], name: str, extra: str = "") -> set[str]:
    """The installed distributions that one asks for on this machine; those of an extra if it is named."""
    found = set()
    for requirement in map(Requirement, installed[name].requires or []):
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        child = canonicalize_name(requirement.name)
        if needed and child in installed and child != name:
            found.add(child)
            for each in requirement.extras:
                found |= requirements(installed, child, each)
    return found


def closure(installed: dict[str, Distribution], names: set[str]) -> set[str]:
    """The installed ones among the names, and everything that they need."""
    found = set()
    todo = names & installed.keys()
    while todo:
        found |= todo
        todo = set().union(*(requirements(installed, name) for name in todo)) - found
    return found


def links(installed: dict[str, Distribution], names: set[str]) -> list[tuple[PurePosixPath, Path]]:
    """The paths in site-packages that make up these distributions, and what each is to be a link to.

    They are the largest folders that one distribution has for itself, and its files in folders that it shares.
    """
    files, owners = {}, defaultdict(set)
    for name, distribution in installed.items():
        paths = distribution.files or []
        files[name] = [path for path in paths if not {"..", "__pycache__"} & set(path.parts)]
        for folder in {path.parent for path in files[name]}:
            for above in (folder, *folder.parents):
                owners[above].add(name)
    if unlisted := sorted(name for name in names if not files[name]):
        raise SystemExit(f"{', '.join(unlisted)}: installed without a list of files; install again with pip")
    found = {}
    for name in names:
        for path in files[name]:
            own = [folder for folder in path.parents if owners[folder] == {name}]
            found[own[-1] if own else path] = name
    return [(path, Path(installed[name].locate_file(path))) for path, name in found.items()]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
