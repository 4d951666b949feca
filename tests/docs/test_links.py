"""The documents point to what is there: relative links, paths of this repository in backticks, commands of blurdiff."""

import re
from pathlib import Path

import pytest

from blurdiff.cli import STAGES

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "workflow" / "src" / "blurdiff"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "evidence" / "README.md",
]
# Folders whose paths are checked, and endings by which a path of a source is told without its folder. What a run makes
# (results/, data/, a bare name.csv or name.md) need not be there.
FOLDERS = ("config", "docs", "envs", "tests", "workflow", ".ci", ".github")
SOURCES = (".py", ".smk", ".toml", ".cff")


def anchors(path: Path) -> set[str]:
    """What a link may name behind #: the headings of a document, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lost_links(text: str, folder: Path) -> list[str]:
    """Targets of links that are neither addresses nor there, seen from the document's folder."""
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        linked = folder / path if path else None
        if linked and not linked.exists() or linked and anchor and anchor not in anchors(linked):
            lost.append(target)
    return lost


def lost_paths(text: str, folder: Path) -> list[str]:
    """Paths in backticks that look like some of this repository and are not: from here, its root, or the package's."""
    lost = []
    for word in " ".join(re.findall(r"`([^`\n]+)`", text)).split():
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*/?", word):
            continue
        if (word.split("/")[0] in FOLDERS and "/" in word) or word.endswith(SOURCES):
            places = (folder, ROOT, PACKAGE)
            if not any((place / word).exists() for place in places):
                lost.append(word)
    return lost


def lost_commands(text: str) -> list[str]:
    """Names behind `blurdiff` that are no stage."""
    named = re.findall(r"(?:`|^ +|-m |srun )blurdiff ([a-z][a-z-]*)", text, flags=re.MULTILINE)
    return [name for name in named if name not in STAGES]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_points_to_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert lost_links(text, path.parent) == []
    assert lost_paths(text, path.parent) == []
    assert lost_commands(text) == []


def test_what_is_lost_is_found():
    text = """See [this](docs/no.md), [that](docs/audit.md#no), [the audit](docs/audit.md), [web](https://example.org/no),
`docs/no.md`, `tests/*.py`, `results/no.csv`, `no.csv`, `nothing.py`, `network/unet.py`,
`snakemake --configfile config/no.yaml`, `blurdiff vanish`, `blurdiff STAGE` and

    blurdiff train --settings no.json
    torchrun -m blurdiff perish
"""
    assert lost_links(text, ROOT) == ["docs/no.md", "docs/audit.md#no"]
    assert lost_paths(text, ROOT) == ["docs/no.md", "nothing.py", "config/no.yaml"]
    assert lost_commands(text) == ["vanish", "perish"]
