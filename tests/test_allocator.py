import os
import platform
import subprocess
import sys

import pytest

from blurdiff import allocator

GLIBC = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
FAULTS = """
import resource
import sys
import torch
from blurdiff.devices import pick_device
if sys.argv[1] == "ours":
    pick_device("cpu", 1)
def work():  # 64 MiB: glibc maps anew whatever is larger than 32 MiB, smaller ones depending on what it saw before
    torch.ones(1 << 24)
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_it_is_for_glibc_alone(monkeypatch):
    assert allocator.keep_freed_memory() == GLIBC
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()


@pytest.mark.skipif(not GLIBC, reason="of glibc alone")
def test_a_job_on_the_cpu_gets_its_memory_from_the_system_once():
    faults = {}
    for how in ("ours", "plain"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", FAULTS, how]
        faults[how] = int(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout)
    # 5 × 64 MiB are taken from the system anew, in pages of 4 KiB or 2 MiB, or nothing is.
    assert faults["ours"] < 50 < faults["plain"]
