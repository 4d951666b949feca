import fcntl
import os
import subprocess

import fault_helpers
import pytest


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A folder in which every stage has run by hand, undisturbed; the processes of pytest-xdist share one."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "undisturbed"
    with open(base / "undisturbed.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            begun = tmp_path_factory.mktemp("begun")
            fault_helpers.prepare(begun)
            fault_helpers.run_by_hand(begun)
            begun.rename(folder)
    return folder


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of the undisturbed folder, to be damaged."""
    folder = tmp_path / "finished"
    subprocess.run(["cp", "-a", str(undisturbed), str(folder)], check=True)  # hard links stay hard links
    return folder
