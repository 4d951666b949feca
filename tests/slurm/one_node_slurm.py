"""A real Slurm of one node with a fake GPU, for as long as a test needs it: munged, slurmctld and slurmd as processes.

Everything lies below one folder and listens on loopback. /etc/slurm is not touched: all programs find the configuration
by SLURM_CONF, and a `srun` in the cluster's own bin/ puts it back, since the plugin's job step drops it.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "setpriv")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REAL_CONFIGS = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/usr/local/etc/slurm.conf")

# The node is larger than this machine: config_overrides lets Slurm believe it. A job at its limit gets SIGTERM, and
# SIGKILL KillWait seconds later. One that was pre-empted waits for cred_expire seconds before it starts again. Jobs in
# `batch` pre-empt those in `spare`.
CONFIG = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={root}/bin/hide_gpus
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
MinJobAge=3600
KillWait=5
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=64000 Gres=gpu:1
PartitionName=batch Nodes=localhost Default=YES PriorityTier=2 PreemptMode=OFF
PartitionName=spare Nodes=localhost PriorityTier=1
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None when it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed"
    if os.geteuid() != 0:
        return "starting a Slurm of its own needs root"
    real = [path for path in REAL_CONFIGS if os.path.exists(path)]
    if real or "SLURM_CONF" in os.environ or "SLURM_JOB_ID" in os.environ:
        return f"this machine belongs to a Slurm cluster already ({(real or ['SLURM_*'])[0]})"
    return None


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment(root: Path) -> dict[str, str]:
    """The variables with which programs find this cluster."""
    return {"PATH": f"{root}/bin:{PATH}", "SLURM_CONF": f"{root}/slurm.conf", "HOME": str(root), "LANG": "C.UTF-8"}


def slurm(root: Path, *command: str) -> str:
    """What a Slurm command says."""
    done = subprocess.run(command, env=environment(root), capture_output=True, text=True, timeout=60)
    return done.stdout


@contextlib.contextmanager
def running(root: Path) -> Iterator[Path]:
    """Start the cluster in `root`, an empty folder, and stop it at the end whatever happens."""
    host, (ctld_port, slurmd_port) = socket.gethostname().split(".")[0], free_ports(2)
    (root / "slurm.conf").write_text(CONFIG.format(root=root, host=host, ctld_port=ctld_port, slurmd_port=slurmd_port))
    (root / "gres.conf").write_text("NodeName=localhost Name=gpu Count=1 File=/dev/null\n")
    (root / "munge.key").write_bytes(os.urandom(1024))
    (root / "munge.key").chmod(stat.S_IRUSR)
    for name in ("state", "spool", "bin"):
        (root / name).mkdir()
    srun = shutil.which("srun", path=PATH)
    scripts = {
        "srun": f'SLURM_CONF={root}/slurm.conf exec {srun} "$@"',
        "hide_gpus": "echo export CUDA_VISIBLE_DEVICES=",  # the fake GPU must not turn out to be a real one
    }
    for name, line in scripts.items():
        (root / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (root / "bin" / name).chmod(0o755)

    commands = [
        ["munged", "--foreground", "--force", f"--key-file={root}/munge.key", f"--socket={root}/munge.socket",
         f"--pid-file={root}/munged.pid", f"--seed-file={root}/munged.seed", f"--log-file={root}/munged.log"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "localhost"],
    ]  # fmt: skip
    end_with_us = ["setpriv", "--pdeathsig", "TERM"]  # even when this process is killed
    daemons = {}

    def up(condition) -> bool:
        ended = [name for name, daemon in daemons.items() if daemon.poll() is not None]
        assert not ended, f"{ended[0]} has ended: {(root / f'{ended[0]}.out').read_text()[-2000:]}"
        return condition()

    try:
        for command in commands:
            with open(root / f"{command[0]}.out", "wb") as output:
                daemons[command[0]] = subprocess.Popen(
                    end_with_us + command, env=environment(root), stdout=output, stderr=output
                )
            if command[0] == "munged":
                wait_for(lambda: up((root / "munge.socket").exists), "munged's start")
        wait_for(lambda: up(lambda: slurm(root, "sinfo", "-h", "-o", "%T", "-p", "batch") == "idle\n"), "Slurm's start")
        own = set(processes(root))  # more than the three: slurmctld has a helper
        try:
            yield root
        finally:
            slurm(root, "scancel", "--signal=KILL", "--full", "--user=root")
            with contextlib.suppress(AssertionError):
                wait_for(lambda: own.issuperset(processes(root)), "the jobs' end")
    finally:
        for daemon in reversed(daemons.values()):
            daemon.terminate()
        for daemon in daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
        for pid in processes(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in daemons.values():
            daemon.wait()


def processes(root: Path) -> list[int]:
    """The processes of this cluster: all that were started with its SLURM_CONF."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if f"SLURM_CONF={root}/slurm.conf".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def wait_for(condition, what: str, seconds: float = 30) -> None:
    """Wait until `condition()`; AssertionError when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {seconds:g} s"
        time.sleep(0.1)
