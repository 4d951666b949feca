"""One pipeline through Snakemake, killed again and again; the same command line must bring it to the same results."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from fault_helpers import ITERATIONS, STORE, TABLE, check_same, checkpoints, maps_lmdb, prepare

SNAKEFILE = Path(__file__).resolve().parents[2] / "workflow" / "Snakefile"
MARK = "BLURDIFF_FAULT_TEST"
SEED = os.environ.get("BLURDIFF_FAULT_SEED", "1")
KILLS = int(os.environ.get("BLURDIFF_KILLS", 10))  # of which a pipeline has ten
PATIENCE = 200  # seconds without anything happening, after which a test gives up

# A round's faults by the stage that is at work when they strike, in an order drawn anew: ten SIGKILLs, among others.
ROUND = {
    "preprocess": ["SIGKILL preprocess", "SIGKILL preprocess", "SIGKILL a worker of preprocess"],
    "train": ["SIGKILL train", "SIGKILL train", "SIGKILL train", "SIGTERM train"],
    "sample": ["SIGKILL sample", "SIGKILL sample"],
}
# Each in a stage of its own, drawn too. SIGTERM goes to all processes, as a batch system ends a job.
ANYWHERE = ["SIGKILL Snakemake", "SIGKILL Snakemake, and the clock jumps", "SIGTERM Snakemake and its jobs"]
SECOND = "a second Snakemake in the same folder"


def draw_faults(rng: random.Random) -> list[tuple[str, str]]:
    """A round's faults as (stage, fault), in the order in which they strike."""
    # What hits Snakemake comes last in a stage: jobs that outlive it, or go on while it starts, may end the stage.
    of_snakemake = dict(zip(rng.sample(list(ROUND), len(ANYWHERE)), ANYWHERE, strict=True))
    schedule = []
    for stage, faults in ROUND.items():
        schedule += [(stage, fault) for fault in [*rng.sample(faults, len(faults)), of_snakemake[stage]]]
    return [*schedule, ("sample", SECOND)]


class Pipeline:
    """Snakemake in a folder, and all processes that come from it, also those that outlive it."""

    def __init__(self, folder: Path):
        self.folder, self.mark, self.n_started = folder, uuid.uuid4().hex, 0
        self.snakemake: subprocess.Popen | None = None
        self.known: dict[int, psutil.Process | None] = {}  # by process id; None: not one of these

    def call(self, *arguments: str) -> tuple[subprocess.Popen, Path]:
        """Start Snakemake; its process, and the file of its output."""
        kept = {key: value for key, value in os.environ.items() if key in ("HOME", "TMPDIR", "LANG")}
        cache = str(self.folder / "cache")
        environment = kept | {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache, MARK: self.mark}
        options = ["--snakefile", str(SNAKEFILE), "--configfile", "config.yaml", "--cores", "2", *arguments]
        self.n_started += 1
        output = self.folder / f"snakemake{self.n_started}.txt"
        with open(output, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *options], cwd=self.folder, env=environment, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return process, output

    def start(self) -> None:
        """What a user types; a job that fails is tried again, as the Slurm profile has it."""
        self.snakemake, self.output = self.call("--retries", "3", "--", TABLE)

    def start_again(self) -> None:
        """After Snakemake has given up. It does so where an input is from the future, and says which: touch it."""
        if "clock skew" in self.output.read_text():
            for path in (self.folder / "results").rglob("*"):
                if path.stat().st_mtime > time.time():
                    path.touch()
        self.start()

    def unlock(self) -> None:
        """What a user types when Snakemake itself was killed and its lock is left."""
        process, output = self.call("--unlock")
        assert process.wait(PATIENCE) == 0, output.read_text()

    def processes(self) -> list[psutil.Process]:
        """All that live, oldest first; told by a variable of their environment."""
        before, self.known = self.known, {}
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error):  # it has ended, or is another user's
                process = before[pid] if pid in before else psutil.Process(pid)
                if pid not in before and process.environ().get(MARK) != self.mark:
                    process = None
                self.known[pid] = process
        ours = [process for process in self.known.values() if process and lives(process)]
        return sorted(ours, key=lambda process: (process.create_time(), process.pid))

    def stages(self, stage: str) -> list[psutil.Process]:
        """The processes of a stage, oldest first, without their workers."""
        return [process for process in self.processes() if words(process)[1:4] == ["-m", "blurdiff", stage]]

    def wait(self) -> None:
        """Until neither Snakemake nor a process that outlived one is left."""
        self.snakemake.wait(PATIENCE)
        _, alive = psutil.wait_procs(self.processes(), PATIENCE)
        assert not alive

    def kill_all(self) -> None:
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, 10)
        if self.snakemake:
            self.snakemake.wait()

    def moment(self, stage: str, progress: float) -> psutil.Process | None:
        """A process of the stage that is in the midst of its work, or None. Training must have reached `progress`, a
        fraction, and saved something since it was started."""
        for process in self.stages(stage):
            try:
                if stage == "preprocess" and any(maps_lmdb(worker.pid) for worker in process.children()):
                    return process
                if stage == "sample" and os.stat(f"/proc/{process.pid}/fd/2").st_size > 0:  # the progress bar
                    return process
                if stage == "train" and (found := checkpoints(self.folder)):
                    iteration, path = list(found.items())[-1]
                    if iteration >= progress * ITERATIONS and path.stat().st_mtime > process.create_time() + 0.5:
                        return process
            except (psutil.Error, OSError):  # it has just ended, or a checkpoint has just been replaced
                continue
        return None


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def strike(pipeline: Pipeline, fault: str, victim: psutil.Process, rng: random.Random) -> None:
    """Let the fault happen; Snakemake is left running, or started again. psutil.NoSuchProcess when the victim has just
    ended by itself."""
    if fault == SECOND:
        second, output = pipeline.call("--", TABLE)
        assert second.wait(PATIENCE) == 1
        assert "cannot be locked" in output.read_text()
        return
    name, target = fault.split(" ", 1)
    number = signal.Signals[name]
    if not target.startswith("Snakemake"):
        if target.startswith("a worker"):
            victim = rng.choice([child for child in victim.children() if maps_lmdb(child.pid)] or [victim])
        victim.send_signal(number)
        return
    for process in [pipeline.snakemake] if number == signal.SIGKILL else pipeline.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    pipeline.snakemake.wait(PATIENCE)
    if number == signal.SIGKILL:
        pipeline.unlock()
    if target.endswith("the clock jumps"):
        for top in ("results", STORE):
            for path in (pipeline.folder / top).rglob("*"):
                moved = time.time() + rng.choice([-1, 1]) * rng.uniform(1, 400 * 86400)
                with contextlib.suppress(FileNotFoundError):  # jobs that outlived Snakemake are still at work
                    os.utime(path, (moved, moved))
    pipeline.start()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("round_of_kills", range(-(-KILLS // 10)))
def test_killed_again_and_again(tmp_path, undisturbed, faults, round_of_kills):
    rng = random.Random(f"{SEED} {round_of_kills}")
    print(f"BLURDIFF_FAULT_SEED={SEED}, round {round_of_kills}")
    schedule = draw_faults(rng)
    progress = sorted(rng.uniform(0.1, 0.85) for stage, _ in schedule if stage == "train")
    prepare(tmp_path)
    pipeline = Pipeline(tmp_path)
    begun, ends = time.monotonic(), 0
    try:
        pipeline.start()
        while schedule or pipeline.snakemake.poll() != 0:
            if pipeline.snakemake.poll() is not None:
                pipeline.wait()
                ends += 1
                assert ends < 8, pipeline.output.read_text()
                if pipeline.snakemake.returncode == 0:
                    print(f"the pipeline ended before {schedule[0]}: all over again, for what is left")
                    for name in ("results", ".blurdiff", ".snakemake"):
                        shutil.rmtree(tmp_path / name)
                pipeline.start_again()
            stage, fault = schedule[0] if schedule else (None, None)
            victim = stage and pipeline.moment(stage, progress[0] if stage == "train" else 0)
            if victim is None:
                time.sleep(0.01)
                continue
            delay = rng.uniform(0, {"preprocess": 0.2, "train": 0.05, "sample": 0.3}[stage])
            time.sleep(delay)
            if not lives(victim):
                continue
            try:
                strike(pipeline, fault, victim, rng)
            except psutil.NoSuchProcess:
                continue
            faults.inject(fault)
            print(f"{time.monotonic() - begun:6.2f} s: {stage} had worked for {delay:.3f} s: {fault}", flush=True)
            del schedule[0]
            if stage == "train":
                del progress[0]
        pipeline.wait()
    finally:
        pipeline.kill_all()
    check_same(tmp_path, undisturbed)
    faults.settle()
