"""The files in envs/: exactly pinned, as in requirements.txt, and each with what its rules import and no more."""

import sys
import tomllib
from importlib.metadata import packages_distributions, requires

import pytest
from env_files import DISTRIBUTIONS, ROOT, read_env_files, read_rules
from import_closure import SOURCE, external_imports
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from blurdiff.cli import module_name

ENV_FILES = read_env_files()
RULES = read_rules()


def pinned_by_pip() -> dict[str, str]:
    """Versions in the files of requirements, and in constraints.txt for what those bring along."""
    versions = {}
    for name in ("constraints.txt", "requirements-dev.txt", "requirements.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and line[0] not in "#-":
                requirement = Requirement(line)
                versions[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return versions


@pytest.mark.parametrize("name", ENV_FILES)
def test_every_spec_parses_strictly_and_pins_exactly(name):
    """`=1.2` in conda is any version that begins so; `==1.2` is one version."""
    rattler = pytest.importorskip("rattler", reason="needs py-rattler")
    assert ENV_FILES[name].channels == ["conda-forge", "nodefaults"]
    for spec in ENV_FILES[name].specs:
        parsed = rattler.MatchSpec(spec, strict=True)
        package, _, version = spec.partition("==")
        assert parsed.name.normalized == package
        assert str(parsed.version) == f"=={rattler.Version(version)}", spec
        assert spec == f"{package}=={version}", f"{spec}: write {package}==VERSION, without spaces or a build"


@pytest.mark.parametrize("name", ENV_FILES)
def test_versions_are_those_of_the_requirements(name):
    pins = pinned_by_pip()
    for distribution, version in ENV_FILES[name].distributions.items():
        if distribution != "pip":
            assert version == pins[distribution], f"envs/{name}.yaml: {distribution}"


@pytest.mark.parametrize("name", ENV_FILES)
def test_python_is_one_that_the_library_runs_on(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(ENV_FILES[name].conda["python"])


def test_every_rule_names_a_file_that_exists_and_every_file_is_used():
    assert {rule.env for rule in RULES} == {env_file.path for env_file in ENV_FILES.values()}


@pytest.mark.parametrize("name", ENV_FILES)
def test_an_environment_lists_what_its_rules_import_and_no_more(name):
    env_file = ENV_FILES[name]
    stages = {rule.stage for rule in RULES if rule.env.stem == name}
    distribution_of = {module: canonicalize_name(owners[0]) for module, owners in packages_distributions().items()}
    # A package that is not installed here goes by the name of its module.
    needed = {
        distribution_of.get(module, module): f"{stage} imports {module}"
        for stage in stages
        for module in external_imports(module_name(stage))
    }
    # pip must find all that its packages want, or it would fetch it from PyPI beside conda's.
    wanted_by_pip = {"pip"} if env_file.pip else set()
    for package in env_file.pip:
        for requirement in map(Requirement, requires(package) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted_by_pip.add(canonicalize_name(requirement.name))
    listed = set(env_file.distributions)
    missing = {package: why for package, why in needed.items() if package not in listed}
    assert not missing, f"envs/{name}.yaml lacks {missing}"
    superfluous = listed - needed.keys() - wanted_by_pip
    assert not superfluous, f"envs/{name}.yaml lists what {sorted(stages)} never import: {superfluous}"


def test_the_source_is_read_as_python_runs_it(tmp_path, monkeypatch):
    """Modules of their own: what is imported at the top, in functions that are reached, and in those that are not."""
    package = tmp_path / "blurdiff"
    package.mkdir()
    (package / "__init__.py").write_text("import always\n")
    (package / "stage.py").write_text(
        "import os\nfrom typing import TYPE_CHECKING\n\n"
        "from blurdiff import tools\nfrom blurdiff.other import TABLE\n\n"
        "if TYPE_CHECKING:\n    import only_for_types\n\n"
        "def add_arguments(parser):\n    pass\n\n"
        "def run(arguments):\n    import inner.part\n    tools.used()\n    return TABLE\n\n"
        "def never():\n    import unreached\n"
    )
    (package / "tools.py").write_text(
        "import top\n\ndef used():\n    helper()\n\ndef helper():\n    import deep as d\n\n"
        "def unused():\n    import unreached\n"
    )
    (package / "other.py").write_text(
        "def entry():\n    from reached_by import table\n\nTABLE = {1: entry}\n\ndef unused():\n    import unreached\n"
    )
    monkeypatch.setattr("import_closure.SOURCE", tmp_path)
    monkeypatch.setattr("import_closure.read", sys.modules["import_closure"].read.__wrapped__)
    assert external_imports("blurdiff.stage") == {"always", "inner", "top", "deep", "reached_by"}


def test_the_library_is_where_imports_are_read():
    assert (SOURCE / "blurdiff" / "cli.py").exists()
    assert set(DISTRIBUTIONS) <= {name for env_file in ENV_FILES.values() for name in env_file.conda}
