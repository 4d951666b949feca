"""A real Slurm with fake GPUs, for as long as a test needs it: munged, slurmctld and slurmd as processes.

Everything lies below one folder. /etc/slurm is not touched: all programs find the configuration by SLURM_CONF, and a
`srun` in the cluster's own bin/ puts it back, since the plugin's job step drops it.

A cluster of one node listens on loopback. Each of several nodes has a network, an own name and an /etc/hosts of its own
(Linux namespaces), and a cable to the next that nothing else is connected to.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "setpriv")
END_WITH_US = ["setpriv", "--pdeathsig", "TERM"]  # even when this process is killed
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REAL_CONFIGS = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/usr/local/etc/slurm.conf")

# A node is larger than this machine: config_overrides lets Slurm believe it. A job at its limit gets SIGTERM, and
# SIGKILL KillWait seconds later. One that was pre-empted waits for cred_expire seconds before it starts again. Jobs in
# `batch` pre-empt those in `spare`.
CONFIG = """\
ClusterName=test
SlurmctldHost={first}({address})
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
CommunicationParameters={communication}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
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
{nodes}
PartitionName=batch Nodes=ALL Default=YES PriorityTier=2 PreemptMode=OFF
PartitionName=spare Nodes=ALL PriorityTier=1
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


@dataclass
class Node:
    address: str
    hostname: str
    inside: list[str]  # the start of a command line that runs there


@dataclass
class Cluster:
    root: Path  # holds all that is its own
    nodes: dict[str, Node]  # by Slurm's names; the first has slurmctld

    def environment(self) -> dict[str, str]:
        """The variables with which programs find this cluster."""
        path, configuration = f"{self.root}/bin:{PATH}", f"{self.root}/slurm.conf"
        return {"PATH": path, "SLURM_CONF": configuration, "HOME": str(self.root), "LANG": "C.UTF-8"}

    def on(self, node: str, command: list[str], folder: Path | None = None, **options) -> subprocess.Popen:
        """Start a command on a node, in a folder (the cluster's, unless told); `options` are Popen's."""
        stay = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder or self.root)]
        return subprocess.Popen([*self.nodes[node].inside, *stay, *command], **{"env": self.environment()} | options)

    def slurm(self, *command: str) -> str:
        """What a Slurm command says on the first node."""
        with self.on(next(iter(self.nodes)), list(command), stdout=subprocess.PIPE, text=True) as process:
            return process.communicate(timeout=60)[0]

    def processes(self) -> list[int]:
        """All that were started with this cluster's SLURM_CONF."""
        found, wanted = [], f"SLURM_CONF={self.root}/slurm.conf".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def one_machine(root: Path) -> Iterator[Cluster]:
    """This one."""
    yield Cluster(root, {"localhost": Node("127.0.0.1", socket.gethostname().split(".")[0], [])})


@contextlib.contextmanager
def two_machines(root: Path) -> Iterator[Cluster]:
    """Two machines called one and two that see each other and nothing else; they share this one's files."""
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    (root / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {name}\n" for name, a in addresses.items()))
    set_up = f'hostname "$0" && mount --bind {root}/hosts /etc/hosts && ip link set lo up && echo up && exec cat'
    cluster = Cluster(root, {})
    with contextlib.ExitStack() as stack:
        for name, address in addresses.items():
            command = [*END_WITH_US, "unshare", "--net", "--uts", "--mount", "sh", "-c", set_up, name]
            machine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(machine)  # ends with its standard input
            assert machine.stdout.readline() == b"up\n"
            inside = ["nsenter", f"--target={machine.pid}", "--net", "--uts", "--mount"]
            cluster.nodes[name] = Node(address, name, inside)
        cable = f"ip link add cable type veth peer name cable netns {machine.pid}"
        assert cluster.on("one", cable.split()).wait() == 0
        for name, address in addresses.items():
            line = f"ip addr add {address}/24 dev cable && ip link set cable up"
            assert cluster.on(name, ["sh", "-c", line]).wait() == 0
        yield cluster


def why_not_two() -> str | None:
    """Why no cluster of two nodes can be started here; None when it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with two_machines(Path(folder)):
                return None
        except (OSError, AssertionError):
            return "network namespaces are not allowed here (or ip, unshare or nsenter is missing)"


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[None]:
    """Start Slurm on a cluster's nodes, and stop it at the end whatever happens."""
    root, first, (ctld_port, slurmd_port) = cluster.root, next(iter(cluster.nodes)), free_ports(2)
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={node.hostname} NodeAddr={node.address} CPUs=64 RealMemory=64000 Gres=gpu:1"
        for name, node in cluster.nodes.items()
    )
    communication = "NoAddrCache" if cluster.nodes[first].inside else "NoCtldInAddrAny,NoInAddrAny"
    text = CONFIG.format(root=root, first=first, address=cluster.nodes[first].address, communication=communication,
                         ctld_port=ctld_port, slurmd_port=slurmd_port, nodes=nodes)  # fmt: skip
    (root / "slurm.conf").write_text(text)
    (root / "gres.conf").write_text("Name=gpu Count=1 File=/dev/null\n")
    (root / "munge.key").write_bytes(os.urandom(1024))
    (root / "munge.key").chmod(stat.S_IRUSR)
    for name in ("state", "bin", *(f"spool-{node}" for node in cluster.nodes)):
        (root / name).mkdir()
    srun = shutil.which("srun", path=PATH)
    scripts = {
        "srun": f'SLURM_CONF={root}/slurm.conf exec {srun} "$@"',
        "hide_gpus": "echo export CUDA_VISIBLE_DEVICES=",  # the fake GPU must not turn out to be a real one
    }
    for name, line in scripts.items():
        (root / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (root / "bin" / name).chmod(0o755)

    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={root}/munge.{end}" for name, end in files.items())]
    commands = [("munged", first, munged), ("slurmctld", first, ["slurmctld", "-D", "-c"])]
    commands += [(f"slurmd-{node}", node, ["slurmd", "-D", "-N", node]) for node in cluster.nodes]
    daemons = {}

    def up(condition) -> bool:
        ended = [name for name, daemon in daemons.items() if daemon.poll() is not None]
        assert not ended, f"{ended[0]} has ended: {(root / f'{ended[0]}.out').read_text()[-2000:]}"
        return condition()

    def all_idle() -> bool:
        return cluster.slurm("sinfo", "-h", "-N", "-o", "%T", "-p", "batch").split() == ["idle"] * len(cluster.nodes)

    try:
        for name, node, command in commands:
            with open(root / f"{name}.out", "wb") as output:
                daemons[name] = cluster.on(node, END_WITH_US + command, stdout=output, stderr=output)
            if name == "munged":
                wait_for(lambda: up((root / "munge.socket").exists), "munged's start")
        wait_for(lambda: up(all_idle), "Slurm's start")
        own = set(cluster.processes())  # more than these: slurmctld has a helper
        try:
            yield
        finally:
            cluster.slurm("scancel", "--signal=KILL", "--full", "--user=root")
            with contextlib.suppress(AssertionError):
                wait_for(lambda: own.issuperset(cluster.processes()), "the jobs' end")
    finally:
        for daemon in reversed(daemons.values()):
            daemon.terminate()
        for daemon in daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
        for pid in cluster.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in daemons.values():
            daemon.wait()


def wait_for(condition, what: str, seconds: float = 30) -> None:
    """Wait until `condition()`; AssertionError when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {seconds:g} s"
        time.sleep(0.1)
