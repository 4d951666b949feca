"""docs/evidence/run.py on a toy: stopped by its time limit, continued, and what it keeps."""

import csv
import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from running import run_python
from tiny import tiny_config

ROOT = Path(__file__).resolve().parents[2]
TOY = tiny_config(
    datasets={"rooms": {"synthetic": "bedroom", "n_images": 12}},
    runs=[{"dataset": "rooms"}],
    seeds=[5],
    figures={"figure4": ["rooms_none"], "samples": ["rooms_none"]},
)


def evidence(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """The script in `folder`, for the targets that matter here."""
    return run_python(
        ROOT / "docs/evidence/run.py", "--configfile", "toy.yaml", "--output", "kept", "--cores", "2", *options, "--",
        "--snakefile", ROOT / "Snakefile", "--", "results/table1.csv", "results/figures/figure4.png", cwd=folder,
    )  # fmt: skip


@pytest.mark.skipif("BLURDIFF_SLOW" not in os.environ, reason="a minute of whole runs; BLURDIFF_SLOW=1 runs it")
def test_evidence(tmp_path):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    stopped = evidence(tmp_path, "--minutes", "0.15")
    assert stopped.returncode == 75, stopped.stderr
    assert "time is up with 0 of 1 seeds" in stopped.stderr
    assert not (tmp_path / "kept").exists()
    done = evidence(tmp_path)
    assert done.returncode == 0, done.stderr
    # No samples.png: it shows images of the data set.
    names = ["config.yaml", "figure4.md", "figure4.png", "provenance.json", "table1.csv", "table1.md", "timings.csv"]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == names
    with open(tmp_path / "kept" / "table1.csv", newline="") as file:
        assert [row["seeds"] for row in csv.DictReader(file)] == ["1"]
    with open(tmp_path / "kept" / "timings.csv", newline="") as file:
        jobs = [(row["rule"], row["job"]) for row in csv.DictReader(file)]
    assert ("train", "rooms_none.seed5") in jobs
    provenance = json.loads((tmp_path / "kept" / "provenance.json").read_text())
    assert provenance["seeds"] == [5]
    assert provenance["images"]["rooms"]["n_used"] == 12


@pytest.mark.parametrize("figure", ["samples", "forward"])
def test_photographs_are_not_kept(tmp_path, figure):
    toy = {**TOY, "datasets": {"rooms": {"lmdb": "photos_lmdb"}}, "figures": {figure: ["rooms_none"]}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy))
    refused = evidence(tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == f"error: toy.yaml: figures.{figure} shows photographs of the data set; remove it\n"


def test_caption_follows_the_table_of_the_same_name(tmp_path):
    spec = importlib.util.spec_from_file_location("run", ROOT / "docs/evidence/run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/tilt.md").write_text("How far.\n")
    (tmp_path / "figures/figure1.md").write_text("A way.\n")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "tilt.md").write_text("| p |\n")
    for name in ("tilt.md", "figure1.md"):
        run.keep_figure(tmp_path / "figures" / name, kept)
    assert (kept / "tilt.md").read_text() == "| p |\n\nHow far.\n"
    assert (kept / "figure1.md").read_text() == "A way.\n"
