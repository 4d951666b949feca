"""What all tests share: no display, one thread, no downloads, the same random examples every time."""

import os

# Before anything imports numpy or torch: several threads on small arrays only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

from blurdiff.runtime.machine import available_cores

# `faults.tally` prints the fault suite's tally; under xdist only this file is read in time.
pytest_plugins = ["tiny", "faults.tally"]

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: the tests of Slurm wait most of the time."""
    return available_cores() + 1
