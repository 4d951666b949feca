"""On what machine, by which code and with which packages something was made."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def available_cores() -> int:
    """The number of cores that this process may use (a batch system or a container may grant fewer than exist)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Iterable[str]) -> str:
    """Python and these packages, as "name version; …"; a dash for one that is not installed."""
    found = [f"python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} –")
    return "; ".join(found)


def commit() -> str:
    """The commit of the code, "+" if files of it were changed since; empty outside of a git repository."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD")
        return head + "+" * bool(head and git("status", "--porcelain", "--", "../.."))
    except (OSError, subprocess.SubprocessError):
        return ""


def name_of_device(device: str) -> str:
    """What the processor or the GPU calls itself."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_name() -> str:
    """The processor's name and how many cores this process may use."""
    cores = available_cores()
    return f"{name_of_device('cpu')}, {cores} core{'s' * (cores > 1)}"
