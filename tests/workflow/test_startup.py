"""docs/evidence/startup.py on the two first jobs of a toy."""

import json
from pathlib import Path

import yaml

from running import run_python
from tiny import tiny_config

ROOT = Path(__file__).resolve().parents[2]
TOY = tiny_config(datasets={"rooms": {"synthetic": "bedroom", "n_images": 12}}, runs=[{"dataset": "rooms"}])


def test_startup(tmp_path):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    arguments = ["--configfile", "toy.yaml", "--output", "kept/startup.json", "results/data/rooms/images.npy"]
    done = run_python(ROOT / "docs/evidence/startup.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "kept/startup.json").read_text())
    assert {rule: part["jobs"] for rule, part in found["import_seconds_by_rule"].items()} == {
        "preprocess": 1, "synthesize": 1,
    }  # fmt: skip
    assert found["jobs"] == 2 and found["import_seconds"] > 0.1  # numpy and Pillow alone take as much
    assert 0 < found["snakemake_seconds"] < found["cpu_seconds"] < 100 * found["wall_seconds"]
