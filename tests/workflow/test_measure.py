"""docs/evidence/measure.py at tiny sizes on the CPU: it goes on where it was, and keeps what could be measured."""

import csv
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
import torch

from running import run_python

ROOT = Path(__file__).resolve().parents[2]


def measure(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return run_python(ROOT / "docs/evidence/measure.py", "--output", folder / "kept", *options)


def test_the_checks_that_it_runs_are_there():
    """They move with the folders, and a GPU machine is too dear to find that out on."""
    spec = importlib.util.spec_from_file_location("measure", ROOT / "docs" / "evidence" / "measure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.CHECKS) == 4 and all((ROOT / path).is_file() for path in module.CHECKS)


def test_measure(tmp_path):
    options = ["--device", "cpu", "--threads", "1", "--quick", "--parts", "benchmark", "--stages", "frechet"]
    none = measure(tmp_path, *options, "--minutes", "0.1")
    assert none.returncode == 75, none.stderr
    done = measure(tmp_path, *options, "--minutes", "3")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "kept/measure.json").read_text())
    assert record["device"] == "cpu" and record["device_name"] and "torch " in record["versions"]
    assert record["steps"]["benchmark frechet"]["status"] == 0
    assert (tmp_path / "kept/benchmark.png").exists()
    with open(tmp_path / "kept/benchmark.csv", newline="") as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert stages[-2:] == ["Fréchet distance"] * 2 and set(stages[:-2]) == {"ceilings"}
    # What is there is not measured again; what fails is noted, and leaves it alone.
    again = measure(
        tmp_path, *options[:-3], "benchmark", "evidence", "--stages", "frechet", "--configfile", "absent.yaml"
    )
    assert again.returncode == 1 and "benchmark" not in again.stderr
    both = json.loads((tmp_path / "kept/measure.json").read_text())["steps"]
    assert both["benchmark frechet"] == record["steps"]["benchmark frechet"]
    assert both["evidence"]["status"] == 1 and "absent.yaml" in both["evidence"]["printed"][-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(tmp_path):
    refused = measure(tmp_path, "--device", "cuda")
    assert refused.returncode == 1 and refused.stderr.startswith("error: --device cuda: ")
    assert refused.stderr.count("\n") == 1
