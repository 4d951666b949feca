"""The stand-in for conda, called as Snakemake calls it, on a channel for one small environment file."""

import subprocess
from pathlib import Path

import pytest
from env_files import read_env_file

NEEDS = "needs py-rattler and conda-package-handling (requirements-dev.txt)"
conda_stand_in = pytest.importorskip("conda_stand_in", reason=NEEDS)
stand_in_channel = pytest.importorskip("stand_in_channel", reason=NEEDS)

SMALL = """
channels: [conda-forge, nodefaults]
dependencies: [python==3.12.12, jinja2==JINJA2, pip==25.3, pip: [tqdm==TQDM]]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The stand-in, with jinja2 as a conda package and tqdm as one of pip, and the file that asks for both."""
    root = tmp_path_factory.mktemp("conda")
    small = SMALL
    for name in ("jinja2", "tqdm"):
        small = small.replace(name.upper(), stand_in_channel.importlib.metadata.version(name))
    (root / "small.yaml").write_text(small)
    conda_stand_in.install(root)
    stand_in_channel.build(root, [read_env_file(root / "small.yaml")])
    return root


def conda(root: Path, *arguments: str, status: int = 0) -> str:
    """One call; returns stdout, or stderr where it is to fail."""
    done = subprocess.run([root / "bin" / "conda", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def create(root: Path, prefix: Path, content: str, status: int = 0) -> str:
    """`conda env create` as Snakemake calls it."""
    file = prefix.with_suffix(".yaml")
    file.write_text(content)
    options = ["--quiet", "--no-default-packages", "--file", str(file), "--prefix", str(prefix)]
    return conda(root, "env", "create", *options, status=status)


def python(prefix: Path, code: str) -> str:
    """What code prints in an environment that is activated as Snakemake activates it."""
    activate = prefix.parent / "bin" / "activate"
    line = f"set -euo pipefail; source {activate} '{prefix}'; exec python -c \"$0\""
    return subprocess.run(["bash", "-c", line, code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def prefix(root) -> Path:
    """The environment of the small file."""
    prefix = root / "small"
    create(root, prefix, (root / "small.yaml").read_text())
    return prefix


def test_a_package_brings_what_it_needs_and_nothing_else(prefix):
    code = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
    candidates = ["jinja2", "markupsafe", "tqdm", "pip", "numpy", "torch", "yaml", "rattler", "pytest", "blurdiff"]
    assert python(prefix, code.format(candidates)) == "['jinja2', 'markupsafe', 'tqdm', 'pip']"


def test_the_interpreter_and_its_packages_are_the_environments(prefix):
    assert python(prefix, "import sys; print(sys.prefix, sys.executable)") == f"{prefix} {prefix / 'bin' / 'python'}"
    for package in ("jinja2", "tqdm"):
        file = python(prefix, f"import {package}; print({package}.__file__)")
        assert Path(file).is_relative_to(prefix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("jinja2==", "jinja2==9"), "No candidates were found for jinja2 ==9"),
        (("jinja2==", "absent=="), "No candidates were found for absent"),
        (("jinja2==", "jinja2 "), "missing range specifier"),
        (("nodefaults", "conda-forge"), "UnavailableInvalidChannel: defaults"),
        (("conda-forge", "bioconda"), "UnavailableInvalidChannel: bioconda"),
        (("tqdm==", "tqdm==9"), "Pip failed"),
        (("tqdm==", "jsonschema!="), "Pip failed"),
        ((" pip==25.3,", ""), "No module named pip"),
        (("dependencies", "prefix: elsewhere\ndependencies"), "unknown in an environment file: prefix"),
    ],
)
def test_an_environment_that_cannot_be_made_says_why(root, tmp_path, change, message):
    content = (root / "small.yaml").read_text()
    assert change[0] in content
    assert message in create(root, tmp_path / "bad", content.replace(*change), status=1)


def test_other_calls_are_refused(root):
    assert "no such call: conda update --all" in conda(root, "update", "--all", status=1)
