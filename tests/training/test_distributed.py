"""Two processes on the CPU, started by torchrun as the rule starts them, train what one would."""

import csv
import os
import socket
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from blurdiff.errors import UserError
from blurdiff.store import store
from blurdiff.training import distributed

# What is added up in another order differs in the last bits, and Adam divides by gradients that are nearly 0.
TOLERANCE = 2e-4
MAIN = "import sys\nfrom blurdiff.cli import main\nsys.exit(main(sys.argv[1:]))\n"
# Iteration 7 of one process is disturbed. `signals` has those that it got.
BROKEN = """
import os, signal, time
from blurdiff.training import state, train
signals = []
note = train.StopSignals._note
train.StopSignals._note = lambda self, number, frame: (signals.append(number), note(self, number, frame))
update = state.TrainingState.update_ema
def disturbed(self):
    if self.iteration + 1 == {iteration} and os.environ["RANK"] == "{rank}":
        {action}
    update(self)
state.TrainingState.update_ema = disturbed
"""


def environment(**more):
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def torchrun(tmp_path):
    """A function that trains on two processes, each running `before` first; returns torchrun's status and messages."""

    def run(arguments, before="", within=()):
        script = tmp_path / "main.py"
        script.write_text(before + MAIN)
        command = [*within, sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", "2", str(script)]
        process = subprocess.Popen([*command, *arguments], env=environment(), stderr=subprocess.PIPE, text=True)
        try:
            _, text = process.communicate(timeout=240)
        finally:
            process.kill()
        return process.returncode, text

    return run


@pytest.fixture
def pair(tmp_path):
    """The same without torchrun, so that nobody ends a process but itself; returns each one's status and messages."""

    def run(arguments, before=""):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        command = [sys.executable, "-c", before + MAIN, *arguments]
        started = [
            subprocess.Popen(command, env=environment(RANK=str(k), **shared), stderr=subprocess.PIPE, text=True)
            for k in range(2)
        ]
        try:
            messages = [process.communicate(timeout=240)[1] for process in started]
        finally:
            for process in started:
                process.kill()
        return [(process.returncode, text) for process, text in zip(started, messages, strict=True)]

    return run


def weights(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def losses(folder):
    with open(folder / "history.csv", newline="") as file:
        return [[row[key] for key in row if key.startswith(("iteration", "loss"))] for row in csv.DictReader(file)]


def assert_close(folder, other):
    one, two = weights(folder), weights(other)
    scale = max(value.abs().max() for value in one.values())
    assert max((one[name] - two[name]).abs().max() for name in one) < TOLERANCE * scale
    for a, b in zip(losses(folder), losses(other), strict=True):
        assert [cell == "" for cell in a] == [cell == "" for cell in b]
        assert [float(cell) for cell in a if cell] == pytest.approx([float(cell) for cell in b if cell], rel=1e-4)


NAMELESS = ["unshare", "-n", "-u", "sh", "-c", 'ip link set lo up && hostname node-without-dns && exec "$@"', "sh"]


@pytest.mark.skipif(subprocess.run([*NAMELESS, "true"], capture_output=True).returncode != 0, reason="needs unshare")
def test_a_machine_that_does_not_know_its_own_name(settings, torchrun, arguments, tmp_path):
    settings["training"].update(gpus=2)
    status, text = torchrun(arguments(settings), within=NAMELESS)
    assert status == 0, text
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_who_waits_for_the_others_says_so(settings, arguments):
    settings["training"].update(gpus=2)
    before = "from blurdiff.runtime import waiting\nwaiting.SILENT_SECONDS = 0.1\n"
    alone = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    command = [sys.executable, "-c", before + MAIN, *arguments(settings)]
    process = subprocess.Popen(command, env=environment(**alone), stderr=subprocess.PIPE, text=True)
    try:
        assert "waiting for all 2 processes of this training at 127.0.0.1:" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


def test_two_processes_train_what_one_does(settings, straight, torchrun, arguments, train, tmp_path, folder):
    """Each takes its two images of a batch of four one by one."""
    settings["training"].update(gpus=2, micro_batch_size=1)
    status, text = torchrun(arguments(settings))
    assert status == 0, text
    assert_close(tmp_path / "run", straight)
    assert text.count("100%") == 1  # the first alone prints
    assert list(store.find(folder(), "checkpoint", ".pt")) == [8, 12]
    # One process goes on where two have been: to them it is the same model.
    settings["training"].update(gpus=1, micro_batch_size=None, iterations=14)
    assert train(settings, "longer") == 0
    assert [row[0] for row in losses(tmp_path / "longer")][:-1] == ["5", "10", "12"]
    # What is finished is finished for both.
    (tmp_path / "run" / "model.safetensors").unlink()
    settings["training"].update(gpus=2, iterations=12)
    status, text = torchrun(arguments(settings))
    assert status == 0, text
    assert text.count("the store has this model") == 1
    assert_close(tmp_path / "run", straight)


def test_torchrun_stopped_then_a_process_killed(settings, straight, torchrun, arguments, tmp_path, folder):
    """Nothing is lost, and the end is that of an undisturbed training."""
    settings["training"].update(gpus=2)
    stop = "os.kill(os.getppid(), signal.SIGTERM)\n        while not signals: time.sleep(0.01)"
    status, text = torchrun(arguments(settings), BROKEN.format(iteration=7, rank=1, action=stop))
    assert status != 0
    reached = max(store.find(folder(), "checkpoint", ".pt"))
    assert f"stopped by SIGTERM after iteration {reached}; the state is saved" in text
    assert 7 <= reached < 12

    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    status, text = torchrun(arguments(settings), BROKEN.format(iteration=reached + 2, rank=1, action=kill))
    assert status != 0
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "another process of this training ended" in line
    newest = max(store.find(folder(), "checkpoint", ".pt"))
    assert newest in (reached, reached + 1)

    # The newest checkpoint is damaged now: both go back to the one before.
    (path,) = folder().glob(f"checkpoint-{newest:08d}-*.pt")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    status, text = torchrun(arguments(settings))
    assert status == 0, text
    assert text.count("is damaged") == 1
    assert_close(tmp_path / "run", straight)


def test_signal_to_one_stops_both_after_the_same_step(settings, pair, arguments, folder):
    settings["training"].update(gpus=2)
    kill = "os.kill(os.getpid(), signal.SIGUSR1)"
    (status, text), other = pair(arguments(settings), BROKEN.format(iteration=7, rank=1, action=kill))
    assert status == other[0] == 75
    assert "stopped by a signal to another process after iteration 7; the state is saved" in text
    assert "stopped" not in other[1]
    assert list(store.find(folder(), "checkpoint", ".pt")) == [4, 7]


def test_loss_of_one_that_is_not_finite_ends_both(settings, pair, arguments, folder):
    settings["training"].update(gpus=2)
    nan = "self.parameters[0].detach().fill_(float('nan'))"
    for status, text in pair(arguments(settings), BROKEN.format(iteration=7, rank=1, action=nan)):
        assert status == 1
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: the loss or a weight is not finite at iteration 8 (")
    assert list(store.find(folder(), "checkpoint", ".pt")) == [4]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gpus": 2}, "training.gpus 2 × training.nodes 1 needs 2 processes, 1 is here; start `torchrun --standalone"),
        ({"gpus": 2, "nodes": 2}, "needs 4 processes"),
    ],
)
def test_as_many_processes_as_the_settings_say(settings, train, tmp_path, capsys, keys, message):
    settings["training"].update(keys)
    assert train(settings) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
    assert not (tmp_path / "store").exists()


def test_one_process_agrees_with_itself():
    ranks = distributed.Ranks()
    value = torch.ones(3)
    ranks.reduce_sum(value)
    ranks.barrier()
    assert (ranks.broadcast("a"), ranks.all_reduce_min(2.5), ranks.any(True), ranks.any(False)) == (
        "a",
        2.5,
        True,
        False,
    )
    assert torch.equal(value, torch.ones(3))
    module = torch.nn.Linear(2, 2)
    assert ranks.share_gradients(module) is module


def test_errors_that_have_nothing_to_do_with_the_others_stay():
    with pytest.raises(RuntimeError, match="something else"), distributed._one_line_if_another_ends():
        raise RuntimeError("something else")
    lost = "[/gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1"
    with (
        pytest.raises(UserError, match="another process of this training ended"),
        distributed._one_line_if_another_ends(),
    ):
        raise RuntimeError(lost)
