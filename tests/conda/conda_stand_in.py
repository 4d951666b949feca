"""A stand-in for the program `conda`: the calls that Snakemake makes, carried out by py-rattler.

`conda` itself is served by no Python package registry. This solves, downloads and links real conda packages as conda
does, but finds the channel `conda-forge`, and every other, as a folder under ROOT/channels. What it does not know it
refuses. `install(root)` writes ROOT/bin/conda and ROOT/bin/activate.

    conda_stand_in.py ROOT CONDA_ARGUMENT…
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from rattler import Channel, ChannelConfig, Gateway, MatchSpec, VirtualPackage, solve
from rattler import install as link_packages
from rattler.platform import Subdir

VERSION = "25.1.0"  # Snakemake wants 24.7.1 or later
PLATFORM = Subdir.current()


def install(root: Path) -> None:
    """Write the programs that Snakemake calls into root/bin."""
    (root / "bin").mkdir(parents=True)
    conda = root / "bin" / "conda"
    conda.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "{root.resolve()}" "$@"\n')
    conda.chmod(0o755)
    (root / "bin" / "activate").write_text('export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n')


def main(root: Path, arguments: list[str]) -> None:
    """One call of `conda`. What cannot be done ends in one line on stderr and exit status 1."""
    match arguments:
        case ["--version"]:
            print(f"conda {VERSION}")
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": str(root), "platform": str(PLATFORM)}))
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["clean", "-y", "--tarballs"]:
            pass  # there are none
        case ["env", "create", *options]:
            chosen = create_options(options)
            create(root, yaml.safe_load(chosen.file.read_text()), chosen.prefix)
        case _:
            raise SystemExit(f"conda stand-in: no such call: conda {' '.join(arguments)}")


def create_options(options: list[str]) -> argparse.Namespace:
    """The options of `conda env create`; only those that Snakemake gives."""
    parser = argparse.ArgumentParser(prog="conda create", allow_abbrev=False)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--prefix", type=Path, required=True)
    for without_effect in ("--quiet", "--yes", "--no-default-packages"):
        parser.add_argument(without_effect, action="store_true")
    return parser.parse_args(options)


def channels_of(root: Path, names: list[str]) -> list[Channel]:
    """Channels by name, as folders. As in conda, the channel `defaults` is added unless `nodefaults` stands there."""
    names = [name for name in names if name != "nodefaults"] + ([] if "nodefaults" in names else ["defaults"])
    for name in names:
        if not (root / "channels" / name).is_dir():
            raise SystemExit(f"conda stand-in: UnavailableInvalidChannel: {name}")
    config = ChannelConfig(channel_alias=(root / "channels").as_uri() + "/", root_dir=str(root))
    return [Channel(name, config) for name in names]


def create(root: Path, environment: dict, prefix: Path) -> None:
    """Make an environment from an environment file: conda packages first, then those of its section `pip:`."""
    if unknown := environment.keys() - {"name", "channels", "dependencies"}:
        raise SystemExit(f"conda stand-in: unknown in an environment file: {', '.join(sorted(unknown))}")
    specs, pip_requirements = [], []
    for dependency in environment["dependencies"]:
        if isinstance(dependency, str):
            specs.append(MatchSpec(dependency, strict=True))
        else:
            pip_requirements += dependency.pop("pip")
            if dependency:
                raise SystemExit(f"conda stand-in: unknown among the dependencies: {', '.join(dependency)}")
    asyncio.run(solve_and_link(root, channels_of(root, environment["channels"]), specs, prefix))
    if pip_requirements:
        pip_install(root, pip_requirements, prefix)


async def solve_and_link(root: Path, channels: list[Channel], specs: list[MatchSpec], prefix: Path) -> None:
    """Solve as conda does (strict channel priority) and link the packages into the prefix."""
    records = await solve(
        channels,
        specs,
        gateway=Gateway(cache_dir=root / "repodata"),  # which keeps the channels' lists of packages
        platforms=[PLATFORM, "noarch"],
        virtual_packages=VirtualPackage.detect(),
    )
    await link_packages(records, prefix, cache_dir=root / "pkgs", show_progress=False)


def pip_install(root: Path, requirements: list[str], prefix: Path) -> None:
    """Install with the environment's own pip; root/wheels takes the place of PyPI, whatever pip is set to."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    with tempfile.NamedTemporaryFile("w", suffix=".requirements.txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        command = [prefix / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index"]
        done = subprocess.run(
            [*command, "--find-links", root / "wheels", "--requirement", file.name],
            env=environment | {"PIP_CONFIG_FILE": os.devnull},
            check=False,
        )
    if done.returncode:
        raise SystemExit("conda stand-in: CondaEnvException: Pip failed")


if __name__ == "__main__":
    status = 0
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
        print(stop.code if isinstance(stop.code, str) else "", file=sys.stderr)
    except Exception as error:
        status = 1
        print(f"conda stand-in: {type(error).__name__}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # py-rattler's threads may crash an interpreter that takes itself apart under them
