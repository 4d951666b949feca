"""One model that two nodes of a real Slurm train together, by the recipe of config/README.md."""

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import yaml
from small_slurm import Cluster, running, two_machines, why_not, why_not_two
from test_slurm import PROFILE, TINY, checkpoints, model, start_snakemake, train_here

REASON = why_not() or why_not_two()
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(900)]

ALONE = TINY | {"seeds": [0], "training": TINY["training"] | {"iterations": 60}}
TOGETHER = ALONE | {"training": ALONE["training"] | {"nodes": 2}}
LOG = Path("results") / "logs" / "train" / "rooms_none.seed0.log"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with two_machines(tmp_path_factory.mktemp("two")) as cluster, running(cluster):
        yield cluster


@pytest.fixture(scope="module")
def alone(cluster, tmp_path_factory) -> Path:
    """A folder in which one process trained the model."""
    return train_here(cluster, tmp_path_factory.mktemp("alone"), ALONE)


@pytest.fixture
def submit(cluster, alone, tmp_path):
    """A function that trains on both nodes in tmp_path, with so many retries; returns Snakemake's exit status."""
    shutil.copytree(alone / "results" / "data", tmp_path / "results" / "data")
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    profile["set-resources"]["train"] |= {"nodes": 2, "tasks": 2, "tasks_per_gpu": 0, "mpi": "srun"}
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    quick = ["--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1"]
    arguments = ["--workflow-profile", str(tmp_path / "profile"), *quick]

    def run(retries: int) -> int:
        process = start_snakemake(tmp_path, cluster, TOGETHER, *arguments, "--retries", str(retries), "--", model(0))
        try:
            return process.wait(500)
        finally:
            process.kill()

    return run


def test_a_name_that_leads_nowhere(cluster, submit, tmp_path):
    """What Debian does to a machine's own name; torchrun and Gloo would wait for minutes."""
    hosts = (cluster.root / "hosts").read_text()
    (cluster.root / "hosts").write_text(hosts.replace("192.0.2.2", "127.0.1.1"))
    try:
        assert submit(retries=0) == 1
    finally:
        (cluster.root / "hosts").write_text(hosts)
    line = (
        "error: on the node two, the name two does not lead to an address that other nodes reach; mend its /etc/hosts"
    )
    assert line in (tmp_path / LOG).read_text()


def test_one_node_loses_its_trainer_and_a_retry_goes_on(cluster, submit, alone, tmp_path):
    threading.Thread(target=kill_the_second, args=(tmp_path, cluster), daemon=True).start()
    assert submit(retries=2) == 0, (tmp_path / "snakemake.out").read_text()
    failed = (tmp_path / "snakemake.out").read_text()
    assert "another process of this training ended" in failed
    log = (tmp_path / LOG).read_text()
    assert re.search(r"waiting for torchrun on all 2 nodes to meet at one:\d+; after 600 s it gives up", log)
    assert int(re.search(r"going on after iteration (\d+) of 60", log)[1]) >= 5
    one, both = (safetensors.torch.load_file(folder / model(0)) for folder in (alone, tmp_path))
    scale = max(value.abs().max() for value in one.values())
    assert (
        max((one[name] - both[name]).abs().max() for name in one) < 2e-4 * scale
    )  # as in training/test_distributed.py


def kill_the_second(folder: Path, cluster: Cluster) -> None:
    """End the trainer of the second node by SIGKILL, once a checkpoint is there."""
    while not checkpoints(folder, 0):
        time.sleep(0.02)
    for pid in cluster.processes():
        with contextlib.suppress(OSError):  # it has ended
            variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            if b"SLURM_NODEID=1" in variables and b"LOCAL_RANK=0" in variables:
                os.kill(pid, signal.SIGKILL)
