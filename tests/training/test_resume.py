"""A training that is stopped, killed, damaged or prolonged ends with the same weights, bit for bit."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from blurdiff.store import store
from blurdiff.training import state
from blurdiff.training import train as training


def result(folder):
    """What training must reproduce: the weights' file and the history without its clock."""
    with open(folder / "history.csv", newline="") as file:
        rows = [
            {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]
    return store.sha256_file(folder / "model.safetensors"), rows


@pytest.fixture
def train_until(settings, train, monkeypatch):
    """A function that trains until this process gets a signal in an iteration, counted from 1; returns the status."""

    def run(iteration, number=signal.SIGTERM):
        update = state.TrainingState.update_ema

        def patched(self):
            if self.iteration + 1 == iteration:
                os.kill(os.getpid(), number)
            update(self)

        with monkeypatch.context() as patch:
            patch.setattr(state.TrainingState, "update_ema", patched)
            return train(settings)

    return run


@pytest.fixture
def steps(monkeypatch):
    """The iterations that training goes through, counted from 0."""
    done, update = [], state.TrainingState.update_ema
    monkeypatch.setattr(state.TrainingState, "update_ema", lambda self: (done.append(self.iteration), update(self)))
    return done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_saves_and_exits_75(settings, straight, train, train_until, tmp_path, folder, capsys, number):
    handler = signal.getsignal(number)
    assert train_until(7, number) == 75
    assert signal.getsignal(number) == handler
    assert f"stopped by {number.name} after iteration 7" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert list(store.find(folder(), "checkpoint", ".pt")) == [4, 7]
    assert train(settings) == 0
    assert result(tmp_path / "run") == result(straight)


def test_signal_in_the_last_iteration_finishes(train_until, tmp_path):
    assert train_until(12) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


KILLED = """
import os, signal, sys, torch
real = torch.save
def save(value, file):
    if value["iteration"] == 8:
        file.write(b"half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(value, file)
torch.save = save
from blurdiff.cli import main
sys.exit(main(sys.argv[1:]))
"""


def python(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True, **options)


def test_killed_while_it_writes_a_checkpoint(settings, straight, arguments, train, tmp_path, folder):
    process = python("-c", KILLED, *arguments(settings))
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert list(store.find(folder(), "checkpoint", ".pt")) == [4]
    assert len(list(folder().glob(".checkpoint-*"))) == 1
    assert train(settings) == 0
    assert not list(folder().glob(".checkpoint-*"))
    assert result(tmp_path / "run") == result(straight)


def test_terminated_from_outside(settings, arguments, train, tmp_path, folder):
    """As Snakemake or Slurm would: another process, at no chosen moment."""
    settings["training"].update(iterations=1_000_000, log_every=1_000_000)
    process = python("-m", "blurdiff", *arguments(settings))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob("store/models/*/checkpoint-*.pt")):
        time.sleep(0.02)
    process.terminate()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75
    reached = max(store.find(folder(), "checkpoint", ".pt"))
    assert f"stopped by SIGTERM after iteration {reached}; the state is saved" in text
    settings["training"]["iterations"] = reached + 3
    assert train(settings) == 0
    assert train(settings, "straight", "other") == 0
    assert result(tmp_path / "run") == result(tmp_path / "straight")


def test_dropout_resumes_exactly(settings, train, train_until, tmp_path):
    settings["network"]["dropout"] = 0.4
    assert train(settings, "straight", "other") == 0
    assert train_until(6) == 75
    torch.manual_seed(99)  # nothing may depend on what was drawn before
    assert train(settings) == 0
    assert result(tmp_path / "run") == result(tmp_path / "straight")
    settings["network"]["dropout"] = 0.0
    assert train(settings, "without", "another") == 0
    assert result(tmp_path / "without")[0] != result(tmp_path / "straight")[0]


def test_longer_training_goes_on_from_a_shorter_one(settings, train, tmp_path, steps):
    settings["training"]["iterations"] = 6
    assert train(settings, "short") == 0
    settings["training"]["iterations"] = 10
    assert train(settings, "long") == 0
    assert steps == list(range(10))
    assert train(settings, "straight", "other") == 0
    assert result(tmp_path / "long")[0] == result(tmp_path / "straight")[0]
    # Both lengths stay, and neither is trained again.
    steps.clear()
    for iterations, name in ((6, "short"), (10, "long")):
        settings["training"]["iterations"] = iterations
        before = result(tmp_path / name)
        assert train(settings, name) == 0
        assert result(tmp_path / name) == before
    assert not steps


def test_shorter_training_beside_a_longer_one_resumes_too(settings, train, train_until, tmp_path, steps):
    """Its checkpoints must survive beside the longer one's newer ones."""
    settings["training"].update(iterations=10, checkpoint_every=5)
    assert train(settings, "long") == 0
    settings["training"].update(iterations=4, checkpoint_every=100)
    assert train_until(2) == 75
    steps.clear()
    assert train(settings) == 0
    assert steps == [2, 3]
    assert train(settings, "straight", "other") == 0
    assert result(tmp_path / "run") == result(tmp_path / "straight")


def test_finished_model_is_not_trained_again(settings, train, tmp_path, monkeypatch, capsys):
    assert train(settings) == 0
    first = result(tmp_path / "run")
    monkeypatch.setattr(training, "train", None)
    (tmp_path / "run" / "model.safetensors").unlink()
    assert train(settings) == 0
    assert "the store has this model" in capsys.readouterr().err
    settings["label"] = "another label"
    settings["training"]["log_every"] = 1
    assert train(settings, "again") == 0
    assert result(tmp_path / "again") == result(tmp_path / "run") == first


def test_output_is_the_stored_file_and_deleting_it_loses_nothing(settings, train, tmp_path, folder):
    assert train(settings) == 0
    (stored,) = store.find(folder(), "model", ".safetensors").values()
    assert os.path.samefile(stored, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "model.safetensors").unlink()
    assert store.intact(stored)


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def test_damaged_newest_checkpoint(settings, straight, train, train_until, tmp_path, folder, capsys):
    assert train_until(11) == 75
    found = store.find(folder(), "checkpoint", ".pt")
    assert list(found) == [8, 11]
    flip_byte(found[11])
    capsys.readouterr()
    assert train_until(11) == 75
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert f"{found[11]} is damaged" in warnings[0]
    # The same iteration is there again, now whole; the damaged file may not stand in its way.
    (whole,) = folder().glob("checkpoint-00000011-*.pt")
    assert store.intact(whole)
    assert train(settings) == 0
    assert "damaged" not in capsys.readouterr().err
    assert result(tmp_path / "run") == result(straight)


def test_all_checkpoints_damaged(settings, straight, train, train_until, tmp_path, folder, capsys):
    assert train_until(11) == 75
    for path in store.find(folder(), "checkpoint", ".pt").values():
        path.write_bytes(path.read_bytes()[:1000])
    assert train(settings) == 0
    assert capsys.readouterr().err.count("is damaged") == 2
    assert result(tmp_path / "run") == result(straight)


def test_damaged_model_is_made_again_without_training(settings, train, tmp_path, folder, steps, capsys):
    assert train(settings) == 0
    first = result(tmp_path / "run")
    (path,) = store.find(folder(), "model", ".safetensors").values()
    flip_byte(path)
    steps.clear()
    assert train(settings) == 0
    assert f"{path} is damaged" in capsys.readouterr().err
    assert result(tmp_path / "run") == first
    assert not steps


HOLDER = """
import sys, time
from pathlib import Path
from blurdiff.store import store
with store.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_second_trainer_says_who_has_the_model_and_waits(settings, train, arguments, tmp_path, folder):
    assert train(settings) == 0
    before = sorted(folder().iterdir())
    holder = python("-c", HOLDER, str(folder()), stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == "locked\n"
        second = python("-m", "blurdiff", *arguments(settings, "second"))
        line = second.stderr.readline()
        assert line.startswith(f"{folder()} is being trained by process {holder.pid} on ")
        assert line.endswith("waiting for it to end\n")
        assert second.poll() is None
        assert sorted(folder().iterdir()) == before
        assert not (tmp_path / "second").exists()
    finally:
        holder.kill()
        holder.communicate()
    second.communicate(timeout=60)
    assert second.returncode == 0  # the lock died with its holder
    assert (tmp_path / "second" / "model.safetensors").exists()
