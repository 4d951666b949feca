"""A disk that is full, files that may not grow, folders that are read-only: one clear line, and nothing is lost."""

import ctypes
import os
import resource
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fault_helpers import (
    ITERATIONS,
    STORE,
    checkpoints,
    commands,
    model_folder,
    run_stage,
    run_well,
    shorten_training,
)

from blurdiff.runtime.files import sha256_file

PATHS = {"results": "old", "store": "old/store"}


def limit_files(size: int) -> None:
    """Let no file grow beyond `size` bytes: writing more fails as on a full disk. For the calling process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def drop_capabilities() -> None:
    """Make root obey permissions as everybody must. For the calling process."""
    if os.geteuid() != 0:
        return
    header, none = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)  # version 3, this process: nothing
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


@pytest.fixture
def tmpfs(tmp_path):
    """A file system of 64 MB in memory."""
    folder = tmp_path / "tmpfs"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a file system can be mounted by root only, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_old(folder: Path, stage: str) -> None:
    """Fill `old`, which `stage` is to write anew: its outputs, a store of which the last iterations are missing."""
    if stage == "figure":
        run_well(folder, "figure")
    for path in (folder / output for output in outputs(stage)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("what stood there before")
    shorten_training(folder)
    shutil.copytree(folder / STORE, folder / "old" / "store")


def outputs(stage: str) -> list[str]:
    return commands(**PATHS)[stage][1]


def sizes(folder: Path, stage: str) -> list[int]:
    """How large the stage's outputs are when it succeeds, and its newest checkpoint if it is training."""
    paths = [folder / output for output in commands()[stage][1]]
    paths += list(checkpoints(folder).values())[-1:] if stage == "train" else []
    return [path.stat().st_size for path in paths]


def check_refused(folder: Path, stage: str, hurt: Callable | None = None) -> str:
    """Run a stage that cannot write: the error names what, and all files are what they were. Returns the error."""
    before = contents(folder / "old")
    error = run_stage(folder, commands(**PATHS)[stage][0], hurt).error()
    assert "old/" in error
    assert contents(folder / "old") == before
    return error


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for locks (they say who had them last) and the images that an interrupted
    preprocess has made so far: it goes on with them, and they do not bear the name of a finished array."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    paths = [path for path in paths if ".images.npy.partial" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_again(folder: Path, stage: str) -> None:
    """Run the stage again, now that it can write: its outputs are those that it should have made, and nothing else."""
    run_well(folder, stage, **PATHS)
    made = [f for f in (folder / "old").rglob("*") if f.is_file() and "store" not in f.relative_to(folder).parts]
    assert sorted(made) == sorted(folder / output for output in outputs(stage))
    for output, expected in zip(outputs(stage), commands()[stage][1], strict=True):
        if not output.endswith(("history.csv", ".pdf")):  # they hold durations and dates
            assert sha256_file(folder / output) == sha256_file(folder / expected), output
    assert not list((folder / "old").rglob(".*"))


@pytest.mark.parametrize("stage", ["preprocess", "train", "sample", "gather", "table", "figure"])
def test_files_may_not_grow(finished, faults, stage):
    """Disk full for everybody: no root needed."""
    make_old(finished, stage)
    faults.inject("disk full (RLIMIT_FSIZE)")
    assert "File too large" in check_refused(finished, stage, partial(limit_files, min(sizes(finished, stage)) // 2))
    check_again(finished, stage)
    faults.settle()


@pytest.mark.parametrize("stage", ["preprocess", "train", "sample", "gather"])
def test_disk_full(finished, faults, stage, tmpfs):
    (finished / "old").symlink_to(tmpfs)
    make_old(finished, stage)
    disk = os.statvfs(tmpfs)
    room = max(sizes(finished, stage)) // 2 // disk.f_bsize
    with open(tmpfs / "ballast", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, (disk.f_bavail - room) * disk.f_bsize)
    faults.inject("disk full (tmpfs)")
    error = check_refused(finished, stage)
    assert "No space left" in error or "make room" in error
    (tmpfs / "ballast").unlink()
    check_again(finished, stage)
    faults.settle()


@pytest.mark.parametrize("stage", ["preprocess", "train", "table"])
def test_read_only(finished, faults, stage):
    make_old(finished, stage)
    folders = [finished / "old", *(path for path in (finished / "old").rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    faults.inject("read-only folders")
    try:
        assert "Permission denied" in check_refused(finished, stage, drop_capabilities)
    finally:
        for path in folders:
            path.chmod(0o755)
    check_again(finished, stage)
    faults.settle()


def test_training_is_kept_when_results_are_read_only(finished, faults, undisturbed):
    """The model goes to the store first, and needs no training when there is a place for it."""
    shorten_training(finished)
    command, (model, history) = commands("elsewhere")["train"]
    folder = (finished / model).parent
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    faults.inject("read-only folders")
    error = run_stage(finished, command, drop_capabilities).error()
    assert f"cannot write {history}: Permission denied" in error
    assert list(checkpoints(finished))[-1] == ITERATIONS
    folder.chmod(0o755)
    assert "the store has this model" in run_well(finished, "train", results="elsewhere")
    assert sha256_file(finished / model) == sha256_file(undisturbed / commands()["train"][1][0])
    assert not list(model_folder(finished).glob(".*"))
    faults.settle()
