"""The workflow's rules through a real Slurm of one node: jobs that succeed, fail, meet their limit, are pre-empted."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import small_slurm
import yaml
from small_slurm import Cluster, one_machine, running, wait_for

from tiny import tiny_config

REASON = small_slurm.why_not()
# Two minutes, mostly of waiting: Slurm's shortest time limit is one, and jobs beyond theirs are looked for twice in it.
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "workflow" / "profiles" / "slurm"
IMAGES = "results/data/rooms/images.npy"
ITERATIONS = 120
TINY = tiny_config(
    store="store",
    datasets={"rooms": {"synthetic": "bedroom", "n_images": 12, "seed": 1}},
    training={"iterations": ITERATIONS, "checkpoint_every": 5, "batch_size": 2, "learning_rate": 0.001,
                 "ema_decay": 0.5, "log_every": 10, "threads": 1},
    runs=[{"dataset": "rooms", "f_type": "none"}],
    seeds=[0, 1, 2],
    figures={},
)  # fmt: skip
WARNED, STOPPED, PREEMPTED = TINY["seeds"]


def model(seed: int) -> str:
    """The target that trains this seed."""
    return f"results/runs/rooms_none/seed{seed}/model.safetensors"


def start_snakemake(folder: Path, cluster: Cluster, config: dict, *arguments: str) -> subprocess.Popen:
    """Snakemake in `folder`, from where the cluster is seen; it writes snakemake.out."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = cluster.environment() | {"XDG_CACHE_HOME": f"{cluster.root}/cache", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    command += ["--configfile", "tiny.yaml", *arguments]
    with open(folder / "snakemake.out", "wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        return cluster.on(next(iter(cluster.nodes)), command, folder, env=environment, **streams)


def train_here(cluster: Cluster, folder: Path, config: dict) -> Path:
    """Train the models of all seeds in `folder` without Slurm, each in one process; returns the folder."""
    local = ["--workflow-profile", "none", "--cores", "1", "--", *map(model, config["seeds"])]
    assert start_snakemake(folder, cluster, config, *local).wait() == 0, (folder / "snakemake.out").read_text()
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with one_machine(tmp_path_factory.mktemp("slurm")) as cluster, running(cluster):
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory) -> Path:
    """A folder in which the same models were trained without Slurm and without interruption."""
    return train_here(cluster, tmp_path_factory.mktemp("undisturbed"), TINY)


@pytest.fixture(scope="module")
def runs(cluster, undisturbed, tmp_path_factory):
    """Folders of two runs through Slurm at the same time, as most of it is waiting; `(folder, exit status)` by name."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("plain", "disturbed")}
    quick = ["--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1", "--slurm-keep-successful-logs"]
    # From nothing, with the profile as it is, up to a training that wants a GPU: Slurm has one, PyTorch sees none.
    plain = ["--workflow-profile", str(PROFILE), "--set-resources", "preprocess:gpu=1", "--retries", "0"]
    on_gpu = TINY | {"training": TINY["training"] | {"device": "cuda"}}
    # Three trainings; what the three need differently is laid over the profile.
    shutil.copytree(undisturbed / "results" / "data", folders["disturbed"] / "results" / "data")
    disturbed = ["--workflow-profile", str(write_profile_of_disturbed(folders["disturbed"]))]

    with contextlib.ExitStack() as stack:
        processes = {
            "plain": start_snakemake(folders["plain"], cluster, on_gpu, *plain, *quick, "--", IMAGES, model(0)),
            "disturbed": start_snakemake(
                folders["disturbed"], cluster, TINY, *disturbed, *quick, "--", *map(model, TINY["seeds"])
            ),
        }
        for process in processes.values():
            stack.callback(process.wait)
            stack.callback(process.kill)  # the jobs end with the cluster
        for disturb in (warn, stop, preempt):
            threading.Thread(target=disturb, args=(folders["disturbed"], cluster), daemon=True).start()
        yield {name: (folders[name], process.wait(800)) for name, process in processes.items()}


def write_profile_of_disturbed(folder: Path) -> Path:
    """The project's profile, but one training gets no warning of its limit and another one can be pre-empted."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    train = profile["set-resources"]["train"]
    train["slurm_extra"] = f"'' if wildcards.seed == '{STOPPED}' else {train['slurm_extra']}"
    train["mem_mb"] = f"40000 if wildcards.seed == '{PREEMPTED}' else 500"
    train["slurm_partition"] = f"'spare' if wildcards.seed == '{PREEMPTED}' else 'batch'"
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder / "profile"


# The time limits are set when a trainer has come so far, since nobody knows how long that takes on a busy machine.


def warn(folder: Path, cluster: Cluster) -> None:
    """Let a job come near its limit. Slurm's warning wakes the trainer; held again, it is one whose step is long."""
    pid = hold(folder, WARNED)
    limit_to_minutes_from_now(cluster, pid, 2)
    wait_for(lambda: not is_held(pid), "Slurm's warning", 120)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(pid, signal.SIGCONT)


def stop(folder: Path, cluster: Cluster) -> None:
    """Let a job run into its limit, without a warning."""
    limit_to_minutes_from_now(cluster, hold(folder, STOPPED), 0)


def preempt(folder: Path, cluster: Cluster) -> None:
    """Submit a job that goes before the one of a trainer, and needs its memory."""
    hold(folder, PREEMPTED)
    cluster.slurm("sbatch", "--partition=batch", "--mem=40000", "--output=/dev/null", "--wrap=true")


def limit_to_minutes_from_now(cluster: Cluster, pid: int, minutes: int) -> None:
    """Set the time limit of a process's job, which is counted in whole minutes from its start."""
    [number] = re.findall(rb"\0SLURM_JOB_ID=(\d+)\0", Path(f"/proc/{pid}/environ").read_bytes())
    elapsed = cluster.slurm("squeue", "-h", "-o", "%M", "-j", number.decode()).strip()
    limit = int(elapsed.split(":")[-2]) + 1 + minutes
    cluster.slurm("scontrol", "update", f"JobId={number.decode()}", f"TimeLimit={limit}")


def hold(folder: Path, seed: int) -> int:
    """Stop this seed's trainer (SIGSTOP) soon after it has written a checkpoint; returns its process id."""
    end = time.monotonic() + 500
    while time.monotonic() < end:
        pid, before = trainer(folder, seed), checkpoints(folder, seed)
        while pid and pid == trainer(folder, seed):
            if checkpoints(folder, seed) - before:
                os.kill(pid, signal.SIGSTOP)
                return pid
            time.sleep(0.02)
        time.sleep(0.2)
    raise AssertionError(f"no trainer of seed {seed} wrote a checkpoint")


def trainer(folder: Path, seed: int) -> int | None:
    """The process id of this seed's trainer that runs in `folder`."""
    wanted = f"/seed{seed}/settings.json".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if b"\0blurdiff\0train\0" in words and wanted in words and os.readlink(process / "cwd") == str(folder):
                return int(process.name)
        except OSError:  # it has ended
            continue
    return None


def checkpoints(folder: Path, seed: int) -> set[str]:
    """Names of this seed's checkpoints in the store."""
    for path in folder.glob("store/models/*/settings.json"):
        if json.loads(path.read_text())["seed"] == seed:
            return {checkpoint.name for checkpoint in path.parent.glob("checkpoint-*")}
    return set()


def is_held(pid: int) -> bool:
    """Whether a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def jobs_of(cluster: Cluster, output: str, rule: str) -> list[dict[str, str]]:
    """What Slurm knows of a run's jobs of a rule, in the order of their submission."""
    jobs = []
    for number in re.findall(rf"SLURM jobid (\d+) \(log: \S+/rule_{rule}/", output):
        text = cluster.slurm("scontrol", "--details", "show", "job", number)
        jobs.append(dict(word.split("=", 1) for word in text.split() if "=" in word))
    return jobs


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_jobs_succeed(runs, cluster, undisturbed):
    folder, _ = runs["plain"]
    output = (folder / "snakemake.out").read_text()
    for rule in ("synthesize", "preprocess"):
        [job] = jobs_of(cluster, output, rule)
        assert job["JobState"] == "COMPLETED", output
    assert sha256(folder / IMAGES) == sha256(undisturbed / IMAGES)


def test_what_a_rule_needs_is_asked_for(runs, cluster):
    folder, _ = runs["plain"]
    output = (folder / "snakemake.out").read_text()
    [synthesize] = jobs_of(cluster, output, "synthesize")
    assert synthesize["JOB_GRES"] == "(null)"
    assert synthesize["TRES"].startswith("cpu=8,mem=1000M,")
    assert synthesize["TimeLimit"] == "01:00:00"
    [preprocess] = jobs_of(cluster, output, "preprocess")
    assert preprocess["JOB_GRES"] == "gpu:1"


def test_device_cuda_gets_a_gpu_and_the_profiles_settings(runs, cluster):
    folder, _ = runs["plain"]
    [train] = jobs_of(cluster, (folder / "snakemake.out").read_text(), "train")
    assert train["JOB_GRES"] == "gpu:1"
    assert train["Requeue"] == "1"
    # --set-resources on the command line takes the place of the profile's.
    assert train["MinMemoryNode"] == "4000M"


def test_a_failing_job_shows_its_line_and_costs_nothing_else(runs):
    folder, status = runs["plain"]
    output = (folder / "snakemake.out").read_text()
    assert status == 1
    assert re.search(r"error: .*device: cuda is wanted, but PyTorch sees no GPU", output)
    assert (folder / IMAGES).exists() and not (folder / model(0)).exists()


def test_trainings_that_slurm_ended_come_to_the_same_models(runs, undisturbed):
    folder, status = runs["disturbed"]
    assert status == 0, (folder / "snakemake.out").read_text()
    for seed in TINY["seeds"]:
        assert sha256(folder / model(seed)) == sha256(undisturbed / model(seed))


def resumed_at(folder: Path, seed: int) -> int:
    """At what iteration the job that finished a model began."""
    log = (folder / "results" / "logs" / "train" / f"rooms_none.seed{seed}.log").read_text()
    return int(re.search(rf"going on after iteration (\d+) of {ITERATIONS}", log)[1])


def test_a_training_that_is_warned_saves_and_a_retry_goes_on(runs, cluster):
    folder, _ = runs["disturbed"]
    output = (folder / "snakemake.out").read_text()
    jobs = [job for job in jobs_of(cluster, output, "train") if job["Comment"].endswith(f"_{WARNED}")]
    assert jobs[0]["JobState"] == "FAILED" and jobs[-1]["JobState"] == "COMPLETED"
    assert "DUE TO TIME LIMIT" not in slurm_logs(output, WARNED)
    failed = output.partition(f"Logfile results/logs/train/rooms_none.seed{WARNED}.log:")[2]
    stopped = re.search(r"stopped by SIGTERM after iteration (\d+); the state is saved", failed)
    assert stopped, failed[:2000]
    assert resumed_at(folder, WARNED) == int(stopped[1]) >= 5


def test_a_training_at_its_limit_is_retried_from_a_checkpoint(runs, cluster):
    folder, _ = runs["disturbed"]
    output = (folder / "snakemake.out").read_text()
    assert "SLURM status is: 'TIMEOUT'" in output and "DUE TO TIME LIMIT" in slurm_logs(output, STOPPED)
    assert resumed_at(folder, STOPPED) >= 5


def test_a_preempted_training_is_requeued_and_goes_on(runs, cluster):
    folder, _ = runs["disturbed"]
    output = (folder / "snakemake.out").read_text()
    [job] = [job for job in jobs_of(cluster, output, "train") if job["Partition"] == "spare"]
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    assert resumed_at(folder, PREEMPTED) >= 5


def slurm_logs(output: str, seed: int) -> str:
    """What the jobs of a training wrote, in the order of their submission; printed too (pytest -rP shows it)."""
    paths = re.findall(rf"\(log: (\S+/rule_train/rooms_none_{seed}/\d+\.log)\)", output)
    text = "\n".join(f"== {path}\n{Path(path).read_text()}" for path in paths)
    print(text)
    return text
