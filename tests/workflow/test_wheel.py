"""The wheel alone, away from the clone: what it holds, `blurdiff init`, and jobs that run from it."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from test_workflow import ROOT, TINY

# Older ones do not know pyproject's `license = "MIT"`.
pytestmark = pytest.mark.skipif(
    int(version("setuptools").split(".")[0]) < 77, reason="needs the setuptools of requirements-dev.txt"
)
IMAGES = "results/data/rooms/images.npy"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which the wheel was installed, and a function that runs a command in a folder beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "target"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".snakemake", "results")
    for name in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)

    def run(*command, cwd=folder, status=0):
        environment = {key: os.environ[key] for key in ("HOME", "LANG", "OMP_NUM_THREADS") if key in os.environ}
        # What lies here goes before the clone of an editable installation.
        environment |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(target)}
        done = subprocess.run(
            [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    offline = ("--no-index", "--no-deps", "--no-cache-dir", "-q")
    run("-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", str(folder), str(source))
    run("-m", "pip", "install", *offline, "--target", str(target), *map(str, folder.glob("*.whl")))
    return target, run


def test_it_holds_every_file_that_the_library_reads(installed):
    target, _ = installed
    places = {"workflow/rules": "*", "workflow/report": "*", "workflow/profiles": "*/*", "config": "*", "envs": "*"}
    files = [ROOT / "workflow" / "Snakefile"]
    files += [path for place, pattern in places.items() for path in (ROOT / place).glob(pattern)]
    assert len(files) > 25
    for path in files:
        assert (target / "blurdiff" / "project" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    package = ROOT / "workflow" / "src" / "blurdiff"
    for path in package.rglob("*"):
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            assert (target / "blurdiff" / path.relative_to(package)).read_bytes() == path.read_bytes()


def test_a_folder_to_start_from_whose_jobs_use_the_package(installed, tmp_path):
    target, run = installed
    assert "init" in run(str(target / "bin" / "blurdiff"), "--help")
    folder = tmp_path / "mine"
    run("-m", "blurdiff", "init", str(folder))
    made = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {"Snakefile", "config/config.yaml", "config/README.md", "profiles/default/config.yaml"} <= made.keys()
    (folder / "Snakefile").unlink()
    again = run("-m", "blurdiff", "init", str(folder), status=1)
    assert again.count("\n") == 1 and "config" in again and not (folder / "Snakefile").exists()
    (folder / "Snakefile").write_bytes(made["Snakefile"])

    stats = run("-m", "snakemake", "-n", cwd=folder).split("Job stats:")[1]
    assert "train" in stats and "figure" in stats
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "datasets": {"rooms": TINY["datasets"]["rooms"]}}))
    text = run("-m", "snakemake", "-p", "--cores", "1", "--configfile", "tiny.yaml", "--", IMAGES, cwd=folder)
    assert (folder / IMAGES).exists()
    # A job's Python may be another environment's: it is given the package, and nothing that lies beside it.
    library = folder / ".snakemake" / "library"
    assert f"PYTHONPATH={library} " in text and str(ROOT / "workflow") not in text
    assert [path.resolve() for path in library.iterdir()] == [target / "blurdiff"]
