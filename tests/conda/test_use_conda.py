"""The whole workflow under `snakemake --use-conda`, with a stand-in for conda that makes real environments.

Each environment has the packages that its file names, those that these need, and nothing else; see conda_stand_in.py.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import conda_stand_in
import pytest
import yaml
from env_files import ROOT, read_env_files, read_rules
from packaging.utils import canonicalize_name

from running import jobs_in, run_snakemake
from tiny import tiny_config

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


def run(stand_in: Path, folder: Path, *arguments: str, status: int = 0) -> str:
    """Run Snakemake in a folder with --use-conda and nothing of this shell's environment; returns its output."""
    path = f"{stand_in / 'bin'}:/usr/bin:/bin"
    return run_snakemake(folder, "--use-conda", *arguments, status=status, path=path, timeout=1200)


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


def check_jobs(folder: Path, counts: dict[str, int]) -> Counter:
    """Check that the jobs ran inside the environments that their rules name, and took nothing from elsewhere.

    Returns how many there were by stage and environment. Raises AssertionError with the offending paths.
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
    return seen


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conda")
    conda_stand_in.install(folder)
    return folder


@pytest.fixture(scope="module")
def finished(stand_in, tmp_path_factory) -> tuple[Path, str]:
    """A folder in which the tiny workflow has run under --use-conda, and Snakemake's output."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder, run(stand_in, folder, *OPTIONS)


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
    ran = check_jobs(folder, job_counts(output))
    assert (ran["synthesize", "data"], ran["figure", "report"]) == (1, 5)
    assert (folder / "results" / "table1.csv").exists()


def test_these_are_the_rules_of_the_default_run(finished, stand_in, tmp_path):
    output = run(stand_in, tmp_path, "--dry-run")
    assert job_counts(output).keys() == job_counts(finished[1]).keys()


def test_environments_lack_what_their_files_do_not_name(finished):
    """Among all packages of all environments; the library itself is in none."""
    installed, env_files = conda_stand_in.installed_distributions(), read_env_files()
    everything = {name for env_file in env_files.values() for name in env_file.distributions} & installed.keys()
    for name, prefix in environments(finished[0]).items():
        expected = conda_stand_in.closure(installed, set(env_files[name].distributions)) & everything
        code = "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"
        done = subprocess.run([prefix / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
        found = set(map(canonicalize_name, json.loads(done.stdout)))
        assert found & everything == expected
        assert "blurdiff" not in found and "snakemake" not in found


def test_a_second_run_makes_nothing(finished, stand_in):
    output = run(stand_in, finished[0], *OPTIONS)
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
    output = run(stand_in, work, "--snakefile", str(snakefile), *options, "--", *targets, status=1)
    assert job_counts(output) == {"table": 1, "figure": 1}
    assert set(re.findall(r"Error in rule (\w+):", output)) == {"figure"}
    assert "ModuleNotFoundError: No module named 'seaborn'" in output
    assert (work / targets[0]).exists() and not (work / targets[1]).exists()


def test_a_version_that_is_not_to_be_had_stops_before_the_first_job(stand_in, tmp_path):
    snakefile = copy_of_the_project(tmp_path / "project", "data", (r"numpy==.*", "numpy==0.0.1"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    targets = ["results/data/rooms/images.npy"]
    output = run(stand_in, tmp_path, "--snakefile", str(snakefile), *OPTIONS, "--", *targets, status=1)
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
    assert outside(record, Path("/env")) == found
