"""What the files in envs/ list, and which of them each rule names."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# Packages whose name on conda-forge is not that of their Python distribution.
DISTRIBUTIONS = {"pytorch": "torch", "python-lmdb": "lmdb", "matplotlib-base": "matplotlib"}


@dataclass(frozen=True)
class EnvFile:
    """An environment file: channels, conda specs as written, and versions by name."""

    path: Path
    channels: list[str]
    specs: list[str]
    conda: dict[str, str]  # conda's name: version
    pip: dict[str, str]  # name of the distribution: version

    @property
    def distributions(self) -> dict[str, str]:
        """Versions of all Python distributions that the file names, by their Python name; without Python itself."""
        conda = {DISTRIBUTIONS.get(name, name): version for name, version in self.conda.items() if name != "python"}
        return conda | self.pip


@dataclass(frozen=True)
class Rule:
    """A rule that runs a job: its stage of the command line, and its environment file as the `conda:` line says."""

    name: str
    stage: str
    env: Path


def read_env_file(path: Path) -> EnvFile:
    """Read an environment file. Versions are what follows `==`; "" where a spec has none."""
    content = yaml.safe_load(path.read_text())
    assert content.keys() == {"channels", "dependencies"}, f"unknown in an environment file: {', '.join(content)}"
    specs = [each for each in content["dependencies"] if isinstance(each, str)]
    sections = [each for each in content["dependencies"] if not isinstance(each, str)]
    pip = [Requirement(text) for section in sections for text in section["pip"]]
    return EnvFile(
        path,
        content["channels"],
        specs,
        {name: version for name, _, version in (spec.partition("==") for spec in specs)},
        {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in pip},
    )


def read_env_files(root: Path = ROOT) -> dict[str, EnvFile]:
    """All files of envs/, by their name without suffix."""
    return {path.stem: read_env_file(path) for path in sorted((root / "envs").glob("*.yaml"))}


def read_rules(root: Path = ROOT) -> list[Rule]:
    """All rules that have a `shell:`. One that names no environment, or calls no stage, is an error."""
    rules = []
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        parts = re.split(r"^ *(?:rule|checkpoint) ?(\w*):$", path.read_text(), flags=re.MULTILINE)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            name = name or re.search(r'^ +name:\n +f?"(.+)"$', body, re.MULTILINE)[1]
            if not re.search(r"^ +(shell|run|script|notebook|wrapper):", body, re.MULTILINE):
                continue
            env = re.search(r'^ +conda:\n +"(.+)"$', body, re.MULTILINE)
            stage = re.search(r"\{params\.(?:blurdiff|trainer)\} ([\w-]+) ", body)
            assert env, f"{path.name}: rule {name} names no environment"
            assert stage, f"{path.name}: rule {name} calls no stage of the library"
            rules.append(Rule(name, stage[1], (path.parent / env[1]).resolve()))
        for name, other in re.findall(r"^use rule (\w+) as (\w+) with:$", path.read_text(), flags=re.MULTILINE):
            rules += [dataclasses.replace(rule, name=other) for rule in rules if rule.name == name]
    return rules
