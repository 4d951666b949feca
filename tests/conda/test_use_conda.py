"""The whole workflow under `snakemake --use-conda`, with a stand-in for conda that makes real environments.

Each environment has the packages that its file names, those that these need, and nothing else; see stand_in_channel.py.
"""

import importlib.metadata
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from env_files import ROOT, canonical, read_env_files

from tiny import tiny_config

NEEDS = "needs py-rattler and conda-package-handling (requirements-dev.txt)"
stand_in_channel = pytest.importorskip("stand_in_channel", reason=NEEDS)
use_conda = pytest.importorskip("use_conda", reason=NEEDS)

pytestmark = pytest.mark.timeout(1200)  # a minute on two idle cores, but the first test waits for the whole run

RUN = ["rooms_quartic"]
# Every rule of the default config. One figure for each module that draws; the others differ in their data alone.
CONFIG = tiny_config(
    datasets={"rooms": {"synthetic": "bedroom", "n_images": 12}},
    runs=[{"dataset": "rooms", "f_type": "quartic", "f_N": 0.14}],
    sampler_study={"runs": RUN, "n_steps": [2], "n_samples": 2},
    figures={"figure1": RUN, "samples": RUN, "forward": RUN, "training": RUN, "animation": RUN},
)  # fmt: skip
OPTIONS = ["--configfile", "tiny.yaml", "--cores", "2"]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    """The stand-in, with a channel for the files in envs/."""
    folder = tmp_path_factory.mktemp("conda")
    use_conda.set_up(folder)
    return folder


@pytest.fixture(scope="module")
def finished(stand_in, tmp_path_factory) -> tuple[Path, str]:
    """A folder in which the tiny workflow has run under --use-conda, and Snakemake's output."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder, use_conda.run(stand_in, folder, "--snakefile", str(ROOT / "Snakefile"), *OPTIONS)


def copy_of_the_project(folder: Path, env: str, change: tuple[str, str]) -> Path:
    """A copy with one environment file changed; returns its Snakefile."""
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("workflow", "envs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    path = folder / "envs" / f"{env}.yaml"
    content = path.read_text()
    path.write_text(re.sub(*change, content))
    assert path.read_text() != content
    return folder / "workflow" / "Snakefile"


def test_every_job_ran_in_its_environment_and_took_nothing_from_elsewhere(finished):
    folder, output = finished
    ran = use_conda.check_jobs(folder, use_conda.job_counts(output))
    assert "data.yaml: 1 x synthesize" in ran and "report.yaml: 5 x figure" in ran
    assert (folder / "results" / "table1.csv").exists()


def test_these_are_the_rules_of_the_default_run(finished, stand_in, tmp_path):
    output = use_conda.run(stand_in, tmp_path, "--snakefile", str(ROOT / "Snakefile"), "--dry-run")
    assert use_conda.job_counts(output).keys() == use_conda.job_counts(finished[1]).keys()


def test_environments_lack_what_their_files_do_not_name(finished):
    """Among all packages of all environments; the library itself is in none."""
    installed = {canonical(each.name): each for each in importlib.metadata.distributions()}
    env_files = read_env_files()
    everything = {name for env_file in env_files.values() for name in env_file.distributions} & installed.keys()
    for name, prefix in use_conda.environments(finished[0]).items():
        expected = stand_in_channel.closure(installed, set(env_files[name].distributions)).keys() & everything
        code = "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"
        done = subprocess.run([prefix / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
        found = set(map(canonical, json.loads(done.stdout)))
        assert found & everything == expected
        assert "blurdiff" not in found and "snakemake" not in found


def test_a_second_run_makes_nothing(finished, stand_in):
    output = use_conda.run(stand_in, finished[0], "--snakefile", str(ROOT / "Snakefile"), *OPTIONS)
    assert "Nothing to be done" in output and "Creating conda environment" not in output


def test_a_package_that_is_missing_fails_the_rule_that_needs_it_and_no_other(finished, stand_in, tmp_path):
    """Without seaborn figures cannot be drawn; the table, of the same environment, does not need it."""
    snakefile = copy_of_the_project(tmp_path / "project", "report", (r"  - seaborn==.*\n", ""))
    work = tmp_path / "work"
    shutil.copytree(finished[0], work, ignore=shutil.ignore_patterns("conda", "processes"))
    for path in [*(work / "results" / "figures").iterdir(), work / "results" / "table1.csv"]:
        path.unlink()
    targets = ["results/table1.csv", "results/figures/forward.png"]
    options = [*OPTIONS, "--keep-going", "--rerun-triggers", "mtime"]
    output = use_conda.run(stand_in, work, "--snakefile", str(snakefile), *options, "--", *targets, status=1)
    assert use_conda.job_counts(output) == {"table": 1, "figure": 1}
    assert set(re.findall(r"Error in rule (\w+):", output)) == {"figure"}
    assert "ModuleNotFoundError: No module named 'seaborn'" in output
    assert (work / targets[0]).exists() and not (work / targets[1]).exists()


def test_a_version_that_is_not_to_be_had_stops_before_the_first_job(stand_in, tmp_path):
    snakefile = copy_of_the_project(tmp_path / "project", "data", (r"numpy==.*", "numpy==0.0.1"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    targets = ["results/data/rooms/images.npy"]
    output = use_conda.run(stand_in, tmp_path, "--snakefile", str(snakefile), *OPTIONS, "--", *targets, status=1)
    assert "CreateCondaEnvironmentException" in output and "No candidates were found for numpy ==0.0.1" in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("executable", "/usr/bin/python3", ["/usr/bin/python3"]),
        ("files", ["/opt/venv/site-packages/numpy/__init__.py"], ["/opt/venv/site-packages/numpy/__init__.py"]),
        ("files", ["/python/lib/site-packages/numpy.py"], ["/python/lib/site-packages/numpy.py"]),
        ("files", ["/python/lib/json/__init__.py", "/env/lib/numpy.py"], []),
        ("path", ["/usr/lib"], ["/usr/lib"]),
        ("path", ["", "/work", "/env/lib", "/no/such/python311.zip"], []),
    ],
)
def test_the_check_sees_what_comes_from_outside(key, value, found):
    record = {"executable": "/env/bin/python", "prefix": "/env", "files": [], "path": [], "stdlib": ["/python/lib"]}
    record |= {"folder": "/work", key: value}
    assert use_conda.outside(record, Path("/env")) == found
