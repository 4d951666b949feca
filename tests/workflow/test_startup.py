"""docs/evidence/startup.py on the two first jobs of a toy."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOY = """
resolution: 8
datasets: {rooms: {synthetic: bedroom, n_images: 12}}
training: {iterations: 1}
network: {channels: 8, multipliers: [1], n_res_blocks: 1, attention_resolutions: [], n_heads: 2, n_groups: 4}
runs: [{dataset: rooms}]
"""


def test_startup(tmp_path):
    (tmp_path / "toy.yaml").write_text(TOY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(ROOT / "docs/evidence/startup.py"), "--configfile", "toy.yaml",
               "--output", "kept/startup.json", "results/data/rooms/images.npy"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "kept/startup.json").read_text())
    assert {rule: part["jobs"] for rule, part in found["import_seconds_by_rule"].items()} == {
        "preprocess": 1, "synthesize": 1,
    }  # fmt: skip
    assert found["jobs"] == 2 and found["import_seconds"] > 0.1  # numpy and Pillow alone take as much
    assert 0 < found["snakemake_seconds"] < found["cpu_seconds"] < 100 * found["wall_seconds"]
