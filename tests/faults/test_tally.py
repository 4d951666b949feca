"""The tally tells the truth: a changed byte is found, and a fault that is not survived fails its test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_helpers import REPRODUCED, check_same, differences, flip_byte

MINIMAL = """
def test_survived(faults):
    for _ in range(3):
        faults.inject("a kill")
    faults.settle()

def test_other_results(faults):
    faults.inject("a kill")
    assert 1 + 1 == 3

def test_never_compared(faults):
    faults.inject("a full disk")

def test_forgotten(faults):
    faults.inject("a kill")
    faults.settle()
    faults.inject("a kill")

def test_no_fault(faults):
    pass
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["here", "in two processes"])
def test_unsettled_faults_fail_and_are_counted(tmp_path, workers):
    (tmp_path / "test_minimal.py").write_text(MINIMAL)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", ".", "-p", "faults.tally", *workers]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert "4 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    counts = {line[:12].strip(): line.split()[-2:] for line in done.stdout.split(" faults =")[1].splitlines()}
    assert (counts["a kill"], counts["a full disk"], counts["all"]) == (["6", "4"], ["1", "0"], ["7", "4"])


@pytest.fixture
def two_folders(tmp_path):
    """Two folders with the same results."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        for name in [*REPRODUCED, ".blurdiff/store/models/0/model-00000120-0123456789abcdef.safetensors"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
    check_same(*folders)
    return folders


@pytest.mark.parametrize("name", REPRODUCED)
def test_a_changed_byte_is_found(two_folders, name):
    flip_byte(two_folders[0] / name)
    assert differences(*two_folders) == [f"{name} differs"]
    with pytest.raises(AssertionError):
        check_same(*two_folders)


@pytest.mark.parametrize("name", ["results/.table1.ab12cd34.csv", ".blurdiff/store/models/0/.checkpoint-4.x.pt"])
def test_a_leftover_is_found(two_folders, name):
    (two_folders[0] / name).touch()
    with pytest.raises(AssertionError):
        check_same(*two_folders)


def test_a_missing_file_is_found(two_folders):
    (two_folders[0] / REPRODUCED[0]).unlink()
    assert differences(*two_folders) == [f"{REPRODUCED[0]} is missing"]
    with pytest.raises(AssertionError):
        check_same(*two_folders)
