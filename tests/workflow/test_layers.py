"""Which folder may import which: an image's way, from the bottom up, with no import upwards and no circle."""

import ast
from pathlib import Path

import pytest

import blurdiff

PACKAGE = Path(blurdiff.__file__).parent
ROOT_FILES = {"__init__", "__main__", "cli", "errors"}
# A folder may import from itself and from those above it in this list.
LAYERS = [
    "errors", "runtime", "config", "data", "diffusion", "network", "store", "training", "sampling", "evaluation",
    "reporting", "audit", "plan", "benchmark", "commands", "cli", "__main__",
]  # fmt: skip
# For the config's checks. They import next to nothing: what LSUN calls its files, and what a data set may be.
ALLOWED = {("config", "data.lsun_facts"), ("config", "data.sources")}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports anywhere, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "blurdiff":
            inside = node.module.partition(".")[2]
            names = [alias.name for alias in node.names]
            found |= {f"{inside}.{name}".lstrip(".") for name in names} if "." not in inside else {inside}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("blurdiff.")}
    return found - {"__version__"}


def test_the_root_holds_the_command_line_and_its_errors_alone():
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_FILES
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(LAYERS) - ROOT_FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_runs_upwards(path):
    if place(path) == "__init__":
        return
    own = LAYERS.index(place(path))
    for module in imports(path):
        folder = module.split(".")[0]
        if (place(path), module) not in ALLOWED:
            assert folder in LAYERS, f"{module}: which folder is that?"
            assert LAYERS.index(folder) <= own, f"{path.relative_to(PACKAGE)} imports {module}, from above it"


def test_no_circle_inside_a_folder():
    known = {str(path.relative_to(PACKAGE).with_suffix("")).replace("/", "."): path for path in FILES}
    edges = {}
    for name, path in known.items():
        targets = set()
        for module in imports(path):
            targets |= {module} & known.keys() or {module.rpartition(".")[0]} & known.keys()
        edges[name] = targets - {name}
    while edges:
        ends = [name for name, targets in edges.items() if not targets & edges.keys()]
        assert ends, f"these import each other: {', '.join(sorted(edges))}"
        for name in ends:
            del edges[name]
