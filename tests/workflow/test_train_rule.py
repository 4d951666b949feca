"""How the rule starts a training: alone, or by torchrun with a process a GPU."""

import json
import re

import pytest
from test_workflow import TINY, run_snakemake

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
        return re.search(r"python -m .*?blurdiff train", rule)[0], re.search(r"gpu=(\d+)", rule)[1], rule

    return show


def test_one_process(command):
    line, gpus, rule = command()
    assert (line, gpus) == ("python -m blurdiff train", "0")
    assert "srun" not in rule


def test_several_gpus(command):
    line, gpus, rule = command("--resources", "gpu=2", gpus=2, device="cuda")
    place = "--standalone --local-addr 127.0.0.1"
    assert line == f"python -m torch.distributed.run {place} --nproc-per-node=2 -m blurdiff train"
    assert gpus == "2"
    assert "OMP_NUM_THREADS=2" in rule
    assert "--threads 4" in rule


def test_several_nodes(command):
    line, gpus, rule = command("--resources", "gpu=8", gpus=1, nodes=2, device="cuda")
    assert "--nnodes=2 --rdzv-backend=c10d" in line
    assert line.endswith("--nproc-per-node=1 -m blurdiff train")
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
