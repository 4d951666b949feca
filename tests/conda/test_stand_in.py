"""The stand-in for conda, called as Snakemake calls it, for one small environment file."""

import importlib.metadata
import subprocess
from pathlib import Path

import conda_stand_in
import pytest

JINJA2, TQDM = map(importlib.metadata.version, ("jinja2", "tqdm"))
SMALL = f"""
channels: [conda-forge, nodefaults]
dependencies: [python==3.12.12, jinja2=={JINJA2}, pip==25.3, pip: [tqdm=={TQDM}]]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("conda")
    conda_stand_in.install(root)
    return root


def conda(root: Path, *arguments: str, status: int = 0) -> str:
    """One call; returns stderr."""
    done = subprocess.run([root / "bin" / "conda", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr


def create(root: Path, prefix: Path, content: str, status: int = 0) -> str:
    """`conda env create` as Snakemake calls it."""
    file = prefix.with_suffix(".yaml")
    file.write_text(content)
    options = ["--quiet", "--no-default-packages", "--file", str(file), "--prefix", str(prefix)]
    return conda(root, "env", "create", *options, status=status)


def test_an_environment_has_what_its_packages_need_and_nothing_else(root):
    """And that from itself, once it is activated as Snakemake activates it."""
    prefix = root / "small"
    create(root, prefix, SMALL)
    candidates = ["jinja2", "markupsafe", "tqdm", "pip", "numpy", "torch", "yaml", "rattler", "pytest", "blurdiff"]
    code = f"""
import importlib.util, sys
found = {{name: importlib.util.find_spec(name) for name in {candidates}}}
print(sys.prefix, sys.executable, *(f"{{name}}={{spec.origin}}" for name, spec in found.items() if spec), sep="\\n")
"""
    line = f"set -euo pipefail; source {root / 'bin' / 'activate'} '{prefix}'; exec python -c \"$0\""
    printed = subprocess.run(["bash", "-c", line, code], capture_output=True, text=True, check=True).stdout
    ours, executable, *modules = printed.splitlines()
    assert (ours, executable) == (str(prefix), str(prefix / "bin" / "python"))
    origins = dict(module.split("=") for module in modules)
    assert list(origins) == ["jinja2", "markupsafe", "tqdm", "pip"]
    assert all(Path(origin).is_relative_to(prefix) for origin in origins.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("jinja2==", "jinja2==9"), "No candidates were found for jinja2 ==9"),
        (("jinja2==", "absent=="), "No candidates were found for absent"),
        (("jinja2==", "jinja2 "), "No candidates were found for jinja2 "),
        (("nodefaults", "defaults"), "UnavailableInvalidChannel: conda-forge, defaults"),
        (("tqdm==", "tqdm==9"), "No candidates were found for tqdm ==9"),
        ((f"tqdm=={TQDM}", f"jsonschema=={importlib.metadata.version('jsonschema')}"), "Pip failed"),
        ((" pip==25.3,", ""), "No module named pip"),
        (("dependencies", "prefix: elsewhere\ndependencies"), "unknown in an environment file: channels, prefix"),
    ],
)
def test_an_environment_that_cannot_be_made_says_why(root, tmp_path, change, message):
    assert change[0] in SMALL
    assert message in create(root, tmp_path / "bad", SMALL.replace(*change), status=1)


def test_other_calls_are_refused(root):
    assert "no such call: conda update --all" in conda(root, "update", "--all", status=1)
