import errno
import fcntl
import hashlib
import math
import os
import subprocess
import sys

import pytest

from blurdiff.data import unfinished
from blurdiff.errors import UserError
from blurdiff.runtime import files, locks
from blurdiff.store.store import locked, publish


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


def test_file_appears_only_when_whole(tmp_path, umask):
    path = tmp_path / "deep" / "er" / "a.txt"
    with files.atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError])
def test_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_clear_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UserError, match="cannot write .*a.txt: No space left"), files.atomic_path(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def refuse(monkeypatch, name, number, folders=False):
    """Make a function of os fail, as on file systems that do not have it; with `folders` for folders alone."""
    real = getattr(os, name)

    def function(target, *arguments, **options):
        if not folders or os.path.isdir(target):
            raise OSError(number, os.strerror(number))
        return real(target, *arguments, **options)

    monkeypatch.setattr(os, name, function)


NICETIES = [
    ("fsync", errno.EINVAL, True), ("fsync", errno.ENOSYS, False), ("fsync", errno.EOPNOTSUPP, False),
    ("chmod", errno.EPERM, False), ("chmod", errno.EOPNOTSUPP, False), ("link", errno.EPERM, False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "number", "folders"), NICETIES)
def test_what_a_file_system_does_not_offer_stops_no_write(tmp_path, monkeypatch, name, number, folders):
    refuse(monkeypatch, name, number, folders)
    files.write_text(tmp_path / "a.txt", "whole")
    with files.atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a.txt").write_text("whole")
    publish(tmp_path / "a.txt", tmp_path / "b.txt")
    assert {path.read_text() for path in tmp_path.rglob("*.txt")} == {"whole"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "a.txt", "b.txt", "folder"]


@pytest.mark.parametrize("number", files.LOST)
def test_a_write_that_did_not_reach_the_disk_is_an_error(tmp_path, monkeypatch, number):
    refuse(monkeypatch, "fsync", number)
    with pytest.raises(UserError, match="cannot write .*a.txt"):
        files.write_text(tmp_path / "a.txt", "lost")
    assert list(tmp_path.iterdir()) == []


def test_without_locks_writing_goes_on_and_what_needs_them_says_so(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    files.write_text(tmp_path / "a.txt", "whole")
    with unfinished.held(tmp_path / "images.npy"):
        assert "cannot be locked" in capsys.readouterr().err
    (tmp_path / "lock").write_text("process 1 on a host that is long gone")
    assert locks.lock_holder(tmp_path) is None
    for hold in (locks.held, locked):
        with pytest.raises(UserError, match="cannot lock .*lock: No locks available"), hold(tmp_path):
            raise AssertionError("not reached")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*a.txt"), files.atomic_path(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(UserError, match="cannot write .*folder"), files.atomic_folder(tmp_path / "file" / "folder"):
        pass


def test_renamed_by_content(tmp_path):
    with files.atomic_path(tmp_path / "a.txt", rename_to=lambda p: tmp_path / f"{p.read_text()}.txt") as temporary:
        temporary.write_text("b")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_folder_appears_only_when_whole(tmp_path, umask):
    path = tmp_path / "deep" / "folder"
    with files.atomic_folder(path) as temporary:
        (temporary / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "a.txt").read_text() == "a"
    assert path.stat().st_mode & 0o777 == 0o750
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="exists already"), files.atomic_folder(path):
        raise AssertionError("not reached")
    with pytest.raises(UserError, match="exists already"), files.atomic_folder(path / "a.txt"):
        raise AssertionError("not reached")
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "other") as temporary:
        (temporary / "a.txt").write_text("a")
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["deep"]


WRITER = """
import os, signal, sys, time
from blurdiff.runtime import files
make = getattr(files, sys.argv[1])
with make(sys.argv[2]) as temporary:
    (temporary / "a" if temporary.is_dir() else temporary).write_text("half")
    print(temporary.name, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("make", ["atomic_path", "atomic_folder"])
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path, make):
    path = tmp_path / "images.npy"
    others = [tmp_path / ".images.other.abcdefgh.npy", tmp_path / ".images.note.npy", tmp_path / ".more.abcdefgh.npy"]
    for other in others:
        other.write_text("not ours")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WRITER, make, str(path)]
    writer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        half = tmp_path / writer.stdout.readline().strip()
        for attempt in range(2):  # one beside a living writer, one after its death
            with getattr(files, make)(path) as temporary:
                assert half.exists() == (attempt == 0)
                (temporary / "a" if temporary.is_dir() else temporary).write_text("whole")
            assert ((path / "a") if path.is_dir() else path).read_text() == "whole"
            writer.kill()
            writer.wait()
            if make == "atomic_folder":
                path.rename(tmp_path / f"earlier{attempt}")
    finally:
        writer.kill()
        writer.communicate()
    assert not half.exists()
    assert all(other.exists() for other in others)


def test_json(tmp_path):
    path = tmp_path / "a.json"
    value = {"a": [1, 0.1, None, "ε̄"], "b": {"c": True}}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError):
        files.write_json(path, {"a": math.nan})
    assert files.read_json(path) == value


def test_unreadable_json(tmp_path):
    for name, content in {"cut.json": b'{"a": 1', "bytes.json": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            files.read_json(tmp_path / name)
    with pytest.raises(UserError, match="cannot read .*absent.json"):
        files.read_json(tmp_path / "absent.json")


def test_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a.bin").write_bytes(content)
    assert files.sha256_file(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()
