"""Which device a job takes; GPUs are played by names and by a patched torch.cuda."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from blurdiff.errors import UserError
from blurdiff.runtime import devices

JOB = """
import sys
from pathlib import Path
from blurdiff.runtime.gpus import claim
print(claim(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path):
    """A function that starts a job on fake GPUs, waits until it has its own, and returns (process, index)."""
    started = []

    def start(*names: str) -> tuple[subprocess.Popen, int]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", JOB, str(tmp_path / "gpus"), *names]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_has_a_gpu_of_its_own(job):
    first, index = job("GPU-a", "GPU-b")
    _, other = job("GPU-a", "GPU-b")
    assert {index, other} == {0, 1}
    # Under a scheduler a job sees its own GPU only, whatever others have.
    assert job("GPU-c")[1] == 0
    # A job too many shares, and a killed one has nothing any more.
    first.kill()
    first.wait()
    assert job("GPU-a", "GPU-b")[1] == index
    assert {job("GPU-a", "GPU-b")[1], job("GPU-a", "GPU-b")[1]} == {0, 1}


def test_a_process_claims_once(monkeypatch, tmp_path):
    chosen = []
    monkeypatch.setattr(devices, "_own_gpu", devices.cache(devices._own_gpu.__wrapped__))
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda k: SimpleNamespace(uuid=f"uuid-{2 - k}"))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    (folder,) = [tmp_path / f"blurdiff-gpus-{os.getuid()}"]
    assert devices.claim(["uuid-2"], folder) == 0  # taken by another user of the same GPUs
    assert devices.pick_device("cuda", 1) == devices.pick_device("cuda", 1) == torch.device("cuda", 1)
    assert chosen == [1, 1]


def test_no_place_for_locks(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices._own_gpu.__wrapped__() == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    with pytest.raises(UserError, match="PyTorch sees no GPU here; set device to cpu"):
        devices.pick_device("cuda", 1)
    assert devices.pick_device("cpu", 1) == torch.device("cpu")
