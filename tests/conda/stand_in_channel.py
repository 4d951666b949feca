"""A small conda channel, and a folder of wheels, made of what the running Python has installed.

A package of the channel carries the name and version that conda-forge would give it, but holds only links: to the
files of one installed distribution, and of no other. Its dependencies are those of the distribution. So an environment
solved from this channel can import the packages that it names and what these need, and nothing else. What stands
outside the truth is told here: `python` and `pip` are the host's, of whatever version, under the version that is asked
for; dependencies carry no versions (the installed ones agree with one another, by pip); and no package has the files
or the build that conda-forge gives it.
"""

import base64
import csv
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
import zipfile
from collections import defaultdict
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from conda_package_handling.api import create as pack
from env_files import DISTRIBUTIONS, EnvFile, canonical
from packaging.requirements import Requirement
from rattler.platform import Subdir

SITE_PACKAGES = PurePosixPath(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
CONDA_NAMES = {distribution: name for name, distribution in DISTRIBUTIONS.items()}
PLATFORM = str(Subdir.current())
HOSTS = ("python", "pip")  # of the host, under any version


def build(root: Path, env_files: list[EnvFile]) -> None:
    """Write root/channels/conda-forge and root/wheels for these environment files.

    A package that is not installed is left out: an environment that names it cannot be made, as if conda-forge did
    not have it.
    """
    # The first on the path is the one that is imported.
    installed = {canonical(each.name): each for each in reversed(list(importlib.metadata.distributions()))}
    from_pip = {name for env_file in env_files for name in env_file.pip} & installed.keys()
    versions = defaultdict(set)
    for env_file in env_files:
        for name, version in env_file.conda.items():
            versions[name].add(version)
    needs = closure(installed, from_pip | {DISTRIBUTIONS.get(name, name) for name in versions})
    files = {name: site_files(each) for name, each in installed.items()}
    if unlisted := sorted(name for name in needs if not files[name]):
        raise SystemExit(f"{', '.join(unlisted)}: installed without a list of files; install again with pip")
    owners = folder_owners(files)

    channel = root / "channels" / "conda-forge"
    packages = {}
    for name in needs.keys() - from_pip:
        conda_name = CONDA_NAMES.get(name, name)
        depends = ["python", *sorted(CONDA_NAMES.get(each, each) for each in needs[name])]
        links = {
            SITE_PACKAGES / path: Path(installed[name].locate_file(path)) for path in own_paths(files[name], owners)
        }
        for version in versions[name] if name in HOSTS else {installed[name].version}:
            packages |= write_package(channel / PLATFORM, conda_name, version, links, depends)
    for version in versions["python"]:
        packages |= write_package(channel / PLATFORM, "python", version, python_files(), [])
    write_index(channel / PLATFORM, packages)
    write_index(channel / "noarch", {})

    (root / "wheels").mkdir()
    for name in from_pip:
        write_wheel(root / "wheels", installed[name], files[name])


def requirements(installed: dict[str, Distribution], name: str, extra: str = "") -> set[str]:
    """The installed distributions that one asks for on this machine; those of an extra if it is named."""
    found = set()
    for requirement in map(Requirement, installed[name].requires or []):
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        child = canonical(requirement.name)
        if needed and child in installed and child != name:
            found.add(child)
            for each in requirement.extras:
                found |= requirements(installed, child, each)
    return found


def closure(installed: dict[str, Distribution], names: set[str]) -> dict[str, set[str]]:
    """The installed ones among the names and everything that they need, each with what it asks for."""
    found, todo = {}, names & installed.keys()
    while todo:
        found |= {name: requirements(installed, name) for name in todo}
        todo = set().union(*found.values()) - found.keys()
    return found


def site_files(distribution: Distribution) -> list[str]:
    """The distribution's files within site-packages, without compiled ones."""
    paths = [row[0] for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()) if row]
    return [path for path in paths if not path.startswith("..") and "__pycache__" not in path]


def folder_owners(files: dict[str, list[str]]) -> dict[str, set[str]]:
    """Which distributions have files in or below each folder of site-packages."""
    owners = defaultdict(set)
    for name, paths in files.items():
        for folder in {os.path.dirname(path) for path in paths}:
            while folder:
                owners[folder].add(name)
                folder = os.path.dirname(folder)
    return owners


def own_paths(paths: list[str], owners: dict[str, set[str]]) -> set[str]:
    """The largest folders that are one distribution's alone, and its files in folders that it shares."""
    found = set()
    for path in paths:
        parts = path.split("/")
        above = ("/".join(parts[:k]) for k in range(1, len(parts)))
        found.add(next((folder for folder in above if len(owners[folder]) == 1), path))
    return found


def python_files() -> dict[PurePosixPath, Path | str]:
    """The host's interpreter as an environment of its own: no site-packages but that of its prefix."""
    interpreter = Path(sys._base_executable).resolve()
    version = ".".join(map(str, sys.version_info[:3]))
    configuration = f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    names = ["python", "python3", f"python{sys.version_info.major}.{sys.version_info.minor}"]
    return {PurePosixPath("bin", name): interpreter for name in names} | {
        PurePosixPath("pyvenv.cfg"): configuration,
        SITE_PACKAGES / "sitecustomize.py": Path(__file__).with_name("recorder.py").read_text(),
    }


def write_package(
    folder: Path, name: str, version: str, files: dict[PurePosixPath, Path | str], depends: list[str]
) -> dict[str, dict]:
    """Write a .conda package: a file is a text, or a path that it becomes a link to. Returns its line of the index."""
    fields = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": depends, "subdir": PLATFORM}
    package = folder / f"{name}-{version}-0.conda"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as content:
        paths = []
        for path, source in files.items():
            target = Path(content, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, Path):
                target.symlink_to(source)
                paths.append({"_path": str(path), "path_type": "softlink"} | checksum(b""))
            else:
                target.write_text(source)
                paths.append({"_path": str(path), "path_type": "hardlink"} | checksum(source.encode()))
        information = Path(content, "info")
        information.mkdir()
        (information / "index.json").write_text(json.dumps(fields))
        (information / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
        (information / "files").write_text("".join(f"{path}\n" for path in files))
        pack(content, None, str(package))
    data = package.read_bytes()
    return {package.name: fields | {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}


def checksum(data: bytes) -> dict[str, str | int]:
    """What paths.json says of a file's content."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}


def write_index(folder: Path, packages: dict[str, dict]) -> None:
    """Write the list of a folder's packages."""
    folder.mkdir(exist_ok=True)
    content = {"info": {"subdir": folder.name}, "packages": {}, "packages.conda": packages, "repodata_version": 1}
    (folder / "repodata.json").write_text(json.dumps(content))


def write_wheel(folder: Path, distribution: Distribution, paths: list[str]) -> None:
    """Write the wheel that a distribution was installed from, again."""
    tags = [line.split(": ")[1] for line in distribution.read_text("WHEEL").splitlines() if line.startswith("Tag: ")]
    tag = "-".join(".".join(sorted(set(parts))) for parts in zip(*(tag.split("-") for tag in tags), strict=True))
    stem = f"{canonical(distribution.name).replace('-', '_')}-{distribution.version}"
    [information] = {os.path.dirname(path) for path in paths if path.endswith(".dist-info/METADATA")}
    written_by_pip = {f"{information}/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")}
    record = [f"{information}/RECORD,,"]
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        for path in set(paths) - written_by_pip:
            data = Path(distribution.locate_file(path)).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(data)}")
            wheel.writestr(path, data)
        wheel.writestr(f"{information}/RECORD", "\n".join(record) + "\n")
