"""How the rule starts a training, alone or by torchrun with a process a GPU, and what the terminal then says."""

import json
import re

import pytest
from test_workflow import TINY

from running import run_snakemake

MODEL = "results/runs/rooms_none/seed0/model.safetensors"


@pytest.fixture
def command(tmp_path):
    """A function that gives the rule's command line and its `gpu` resource for keys of `training`."""

    def show(*options, **training):
        config = {**TINY, "datasets": {"rooms": TINY["datasets"]["rooms"]}}
        config["training"] = {**TINY["training"], "threads": 4, **training}
        (tmp_path / "config.json").write_text(json.dumps(config))
        text = run_snakemake(tmp_path, "--configfile", "config.json", "-n", "-p", "--cores", "4", *options, "--", MODEL)
        rule = text[text.index("rule train:") :]
        return re.search(r"python -m .*?blurdiff(?= )", rule)[0], re.search(r"gpu=(\d+)", rule)[1], rule

    return show


def test_one_process(command):
    line, gpus, rule = command()
    assert (line, gpus) == ("python -m blurdiff", "0")
    assert "srun" not in rule


def test_several_gpus(command):
    line, gpus, rule = command("--resources", "gpu=2", gpus=2, device="cuda")
    place = "--standalone --local-addr 127.0.0.1"
    assert line == f"python -m torch.distributed.run {place} --nproc-per-node=2 -m blurdiff"
    assert gpus == "2"
    assert "OMP_NUM_THREADS=2" in rule
    assert "--threads 4" in rule


def test_several_nodes(command):
    line, gpus, rule = command("--resources", "gpu=8", gpus=1, nodes=2, device="cuda")
    assert "--nnodes=2 --rdzv-backend=c10d" in line
    assert line.endswith("--nproc-per-node=1 -m blurdiff")
    assert gpus == "2"
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=4 python -m torch.distributed.run" in rule
    # torchrun waits in silence, so the log says for whom, where and how long.
    assert rule.index('echo "waiting for torchrun on all 2 nodes to meet at $(hostname):') < rule.index("srun --nodes")
    assert "after 600 s it gives up" in rule and "--rdzv-conf=join_timeout=600 " in line


def test_batch_that_cannot_be_shared_out(tmp_path):
    config = {**TINY, "training": {**TINY["training"], "gpus": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = run_snakemake(tmp_path, "--configfile", "config.json", "-n", status=1)
    assert "training.batch_size: 2 cannot be shared out evenly to 3 GPUs" in text


@pytest.mark.parametrize("n_processes", [1, 2])
def test_the_terminal_says_how_far_each_training_is(n_processes, tmp_path, monkeypatch):
    """Whole lines on Snakemake's own output, and the log as it is without them."""
    monkeypatch.setenv("BLURDIFF_TELL_SECONDS", "0")
    training = {**TINY["training"], "iterations": 4, "log_every": 2, "gpus": n_processes, "threads": n_processes}
    (tmp_path / "config.json").write_text(
        json.dumps({**TINY, "datasets": {"rooms": TINY["datasets"]["rooms"]}, "training": training})
    )
    models = [MODEL, MODEL.replace("none", "quartic")] if n_processes == 1 else [MODEL]
    text = run_snakemake(tmp_path, "--configfile", "config.json", "--cores", "2", "--", *models)
    for model in models:
        run = model.split("/")[2]
        told = [line for line in text.splitlines() if f"{run} seed 0:" in line]
        assert len(told) == 3  # none of the first iteration, from which on the rate is measured
        pattern = rf"{run} seed 0: (\d) of 4 iterations,( loss \d\.\d+,)? \d+ images/s, [\d.]+ s left"
        found = [re.fullmatch(pattern, line) for line in told]
        assert [match and match[1] for match in found] == ["2", "3", "4"] and all(match[2] for match in found)
        log = (tmp_path / "results" / "logs" / "train" / f"{run}.seed0.log").read_text()
        assert "4/4" in log and "seed 0:" not in log


def test_quiet_trainings_are_told_of_by_their_logs_alone(command):
    assert "--tell" in command()[2]
    assert "--tell" not in command("--quiet", "progress")[2]
