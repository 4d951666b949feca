import os
import platform
import subprocess
import sys

import pytest

from blurdiff.runtime import allocator

GLIBC = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
FAULTS = """
import resource
import statistics
import sys
import torch
from blurdiff.runtime.devices import pick_device
if sys.argv[1] == "ours":
    pick_device("cpu", 1)
faults = []
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 << 20)  # 40 MiB: glibc by itself maps anew whatever is larger than 32
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(statistics.median(faults[20:])))  # at first the heap grows
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
    assert faults["ours"] < 10 < faults["plain"]  # 0 and 10,240 pages of 4 KiB, or 20 of 2 MiB
