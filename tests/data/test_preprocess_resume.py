"""Killed, stopped, out of room: the next run goes on, and its files are those of a run that nothing disturbed."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pictures
from blurdiff.data import preprocess as stage
from blurdiff.data import unfinished
from blurdiff.errors import UserError
from blurdiff.runtime.signals import EXIT_INTERRUPTED
from pictures import encode, key, noise

N, CHUNK, BAD = 40, 4, (5, 22)

# The command, with a journal a chunk. At the given call of a function it kills itself, or it waits in every call.
DRIVER = f"""
import os, signal, sys, time
from blurdiff import cli
from blurdiff.data import preprocess, unfinished
from blurdiff.runtime import parallel

preprocess.CHUNK_RECORDS, unfinished.JOURNAL_SECONDS = {CHUNK}, 0
owner, name, call = sys.argv[1].split(":")
owner = {{"work": unfinished.Unfinished, "unfinished": unfinished, "preprocess": preprocess}}[owner]
original, calls, read = getattr(owner, name), 0, 0

def wrapped(*arguments, **keywords):
    global calls, read
    calls += 1
    if call == "wait":
        time.sleep(0.2)
    elif call == "group":
        if calls == 4:  # as if the signal had been to the workers too, and they were faster
            os.kill(os.getpid(), signal.SIGTERM)
            raise parallel.WorkerDied("a worker process died")
    elif calls == int(call):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "add":
        read += len(arguments[1]) + len(arguments[2])
    return original(*arguments, **keywords)

setattr(owner, name, wrapped)
status = cli.main(sys.argv[2:])
print("read", read)
sys.exit(status)
"""


def records(seed=0):
    rng = np.random.default_rng(seed)
    return {key(n): b"bad" if n in BAD else encode(noise(rng, 20, 20 + n % 5)) for n in range(N)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The LMDB, and both files of a run that nothing disturbed: (folder, bytes of images.npy, text of the manifest)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source, output = pictures.write_lmdb(folder / "some_lmdb", records()), folder / "out"
    run(output, source)
    return source, (output / "images.npy").read_bytes(), (output / "manifest.json").read_text()


OPTIONS = {"resolution": 8, "workers": 1, "max_corrupt_fraction": 0.1}


def command(folder, source, point):
    kind = "zip" if source.suffix == ".zip" else "lmdb" if (source / "data.mdb").exists() else "folder"
    options = ["--resolution", "8", "--workers", "1", "--max-corrupt-fraction", "0.1"]
    arguments = ["preprocess", f"--{kind}", source, *options]
    outputs = ["--output", folder / "images.npy", "--manifest", folder / "manifest.json"]
    return [sys.executable, "-c", DRIVER, point, *map(str, arguments + outputs)]


def start(folder, source, point="work:add:wait", **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(folder, source, point), env=environment, text=True, **pipes, **options)


def call(folder, source, point="work:add:0", **options):
    """Run it to its end: (exit status, stdout, stderr)."""
    process = start(folder, source, point, **options)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def kill(folder, source, point):
    assert call(folder, source, point)[0] == -signal.SIGKILL


def journal(folder):
    return json.loads((folder / ".images.npy.partial" / "journal.json").read_text())


def wait_for_journal(folder, process):
    """Until something is kept."""
    while not (folder / ".images.npy.partial" / "journal.json").exists():
        assert process.poll() is None
        time.sleep(0.02)


def assert_as_undisturbed(folder, undisturbed):
    assert (folder / "images.npy").read_bytes() == undisturbed[1]
    assert (folder / "manifest.json").read_text() == undisturbed[2]
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "manifest.json"]


def assert_ends_well(folder, undisturbed, kept):
    """Called again, it reads the rest of the records alone."""
    status, output, errors = call(folder, undisturbed[0])
    assert status == 0, errors
    assert (f"going on after record {kept} of {N}" in errors) == (kept > 0)
    assert f"read {N - kept}\n" in output and "38 images, 2 records skipped" in output
    assert_as_undisturbed(folder, undisturbed)


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        ("work:add:1", 0),
        ("work:add:2", 4),
        ("work:save:3", 8),
        ("unfinished:write_json:7", 24),  # images are on the disk that the journal does not know of
        ("work:publish:1", 40),
        ("preprocess:write_manifest:1", 40),  # images.npy is there, its manifest is not
    ],
)
def test_killed_and_called_again(tmp_path, undisturbed, point, kept):
    kill(tmp_path, undisturbed[0], point)
    assert not (tmp_path / "manifest.json").exists()
    assert (tmp_path / "images.npy").exists() == point.startswith("preprocess")
    assert_ends_well(tmp_path, undisturbed, kept)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_files_are_gone_on_with_too(tmp_path, undisturbed, kind):
    """Killed and called again, they give what the LMDB of the same pictures gives."""
    source, out = tmp_path / ("pictures.zip" if kind == "zip" else "pictures"), tmp_path / "out"
    files = {f"{name.decode()[:39]}/{name.decode()}.png": value for name, value in records().items()}
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for name, value in files.items():
                archive.writestr(name, value)
    for name, value in files.items() if kind == "folder" else ():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(value)
    kill(out, source, "work:add:3")
    status, output, errors = call(out, source)
    assert status == 0, errors
    assert f"going on after record 8 of {N}" in errors and f"read {N - 8}\n" in output
    assert (out / "images.npy").read_bytes() == undisturbed[1]
    manifest = json.loads((out / "manifest.json").read_text())
    assert [Path(record["key"]).stem for record in manifest["skipped"]] == [key(n).decode() for n in BAD]
    assert sorted(path.name for path in out.iterdir()) == ["images.npy", "manifest.json"]


@pytest.mark.timeout(120)
def test_killed_again_and_again(tmp_path, undisturbed):
    """Each run gets two chunks further."""
    for n in range(1, 4):
        kill(tmp_path, undisturbed[0], "work:add:3")
        assert journal(tmp_path)["position"]["records"] == n * 2 * CHUNK
    assert_ends_well(tmp_path, undisturbed, 3 * 2 * CHUNK)


@pytest.mark.parametrize(("number", "to_group"), [("SIGTERM", False), ("SIGTERM", True), ("SIGINT", True)])
def test_a_signal_stops_it_with_everything_kept(tmp_path, undisturbed, number, to_group):
    """To the process alone, as Snakemake does, or to its workers too, as Slurm and a terminal do."""
    process = start(tmp_path, undisturbed[0], start_new_session=True)
    wait_for_journal(tmp_path, process)
    (os.killpg if to_group else os.kill)(process.pid, getattr(signal, number))
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == EXIT_INTERRUPTED, errors
    assert f"preprocess: stopped by {number} after record" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == [".images.npy.partial"]
    kept = journal(tmp_path)["position"]["records"]
    assert 0 < kept < N
    assert_ends_well(tmp_path, undisturbed, kept)


def test_workers_that_a_signal_kills_are_no_error(tmp_path, undisturbed):
    status, _, errors = call(tmp_path, undisturbed[0], "work:add:group")
    assert status == EXIT_INTERRUPTED
    assert f"stopped by SIGTERM after record 12 of {N}" in errors.splitlines()[-1]
    assert journal(tmp_path)["position"]["records"] == 12


def test_a_second_process_waits_and_takes_what_the_first_made(tmp_path, undisturbed):
    first = start(tmp_path, undisturbed[0])
    wait_for_journal(tmp_path, first)
    first.send_signal(signal.SIGSTOP)  # however long the second takes to start
    second = start(tmp_path, undisturbed[0], "work:add:0")
    assert f"images.npy is being made by process {first.pid} on " in second.stderr.readline()
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    output, errors = second.communicate(timeout=60)
    assert first.returncode == second.returncode == 0
    assert "has been made meanwhile" in errors and "read 0\n" in output
    assert_as_undisturbed(tmp_path, undisturbed)


def test_a_second_process_goes_on_when_the_first_is_killed(tmp_path, undisturbed):
    first = start(tmp_path, undisturbed[0])
    wait_for_journal(tmp_path, first)
    second = start(tmp_path, undisturbed[0], "work:add:0")
    assert "is being made by" in second.stderr.readline()
    first.kill()
    first.communicate()
    errors = second.communicate(timeout=60)[1]
    assert second.returncode == 0, errors
    assert "going on after record" in errors
    assert_as_undisturbed(tmp_path, undisturbed)


def test_a_full_disk_leaves_a_state_to_go_on_from(tmp_path, undisturbed):
    """The array may not grow beyond 20 images; the journal is smaller than that."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 20 * 192, resource.RLIM_INFINITY))

    status, _, errors = call(tmp_path, undisturbed[0], preexec_fn=limit)
    assert status == 1
    line = errors.splitlines()[-1]
    assert line.startswith("error: cannot write ") and "File too large; make room" in line
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == [".images.npy.partial"]
    assert_ends_well(tmp_path, undisturbed, 20)


def begun(folder, source, monkeypatch, **options):
    """Begin with five chunks; what went wrong is as it should be. Then everything is as before."""
    original, calls = unfinished.Unfinished.add, []

    def add(self, *arguments):
        calls.append(arguments)
        if len(calls) > 5:
            raise UserError("enough")
        original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "CHUNK_RECORDS", CHUNK)
        patch.setattr(unfinished.Unfinished, "add", add)
        with pytest.raises(UserError, match="enough"):
            run(folder, source, **options)
    assert journal(folder)["position"]["records"] == 20


def run(folder, source, **options):
    return stage.preprocess(source, folder / "images.npy", folder / "manifest.json", **(OPTIONS | options))


DAMAGES = {
    "an empty journal": ("journal.json", lambda content: b""),
    "a truncated journal": ("journal.json", lambda content: content[:100]),
    "a journal that is a list": ("journal.json", lambda content: b"[]"),
    "a changed number": ("journal.json", lambda content: content.replace(b'"records": 20,', b'"records": 24,')),
    "a flipped bit in a key": ("journal.json", lambda content: content.replace(b'key": "0', b'key": "1')),
    "a flipped bit in the images": ("images.npy", lambda content: content[:500] + b"flip" + content[504:]),
    "truncated images": ("images.npy", lambda content: content[:1000]),
    "no images": ("images.npy", None),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.usefixtures("in_process")
def test_damage_means_to_start_anew(tmp_path, undisturbed, monkeypatch, capsys, damage):
    begun(tmp_path, undisturbed[0], monkeypatch)
    name, change = DAMAGES[damage]
    path = tmp_path / ".images.npy.partial" / name
    if change is None:
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(change(content))
        assert path.read_bytes() != content
    run(tmp_path, undisturbed[0])
    errors = capsys.readouterr().err
    assert "cannot be gone on with" in errors and "it is made anew" in errors
    assert "going on after" not in errors
    assert_as_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("change", ["source", "time", "resolution", "max_images", "pillow", "format"])
@pytest.mark.usefixtures("in_process")
def test_another_identity_means_to_start_anew(tmp_path, write_lmdb, monkeypatch, capsys, change):
    source = write_lmdb(records())
    begun(tmp_path / "out", source, monkeypatch)
    options = {"resolution": {"resolution": 9}, "max_images": {"max_images": 30}}.get(change, {})
    if change == "source":
        source = write_lmdb({key(3): records(1)[key(3)]})
    if change == "time":
        os.utime(source / "data.mdb")
    if change == "pillow":
        monkeypatch.setattr(unfinished.PIL, "__version__", "0.1")
    if change == "format":
        monkeypatch.setattr(unfinished, "FORMAT", 0)
    run(tmp_path / "out", source, **options)
    errors = capsys.readouterr().err
    assert "it is made anew" in errors and "going on after" not in errors
    run(tmp_path / "fresh", source, **options)
    for name in ("images.npy", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_what_does_not_decide_the_images_may_change_on_the_way(tmp_path, undisturbed, monkeypatch, capsys):
    begun(tmp_path, undisturbed[0], monkeypatch)
    manifest = run(tmp_path, undisturbed[0], label="renamed", workers=2, max_corrupt_fraction=0.2)
    assert f"going on after record 20 of {N}" in capsys.readouterr().err
    assert manifest.label == "renamed"
    assert (tmp_path / "images.npy").read_bytes() == undisturbed[1]


@pytest.mark.usefixtures("in_process")
def test_a_source_that_changes_while_it_is_read_is_an_error(tmp_path, write_lmdb, monkeypatch):
    source, original = write_lmdb(records()), unfinished.Unfinished.add

    def add(self, *arguments):
        os.utime(source / "data.mdb")
        original(self, *arguments)

    monkeypatch.setattr(unfinished.Unfinished, "add", add)
    with pytest.raises(UserError, match="changed while it was read"):
        run(tmp_path / "out", source)
    assert not (tmp_path / "out" / "images.npy").exists()


def test_a_source_that_is_truncated_while_it_is_read_is_named(tmp_path, write_lmdb):
    """Whoever reads a page that is gone dies of SIGBUS."""
    source = write_lmdb(records())
    process = start(tmp_path / "out", source)
    wait_for_journal(tmp_path / "out", process)
    os.truncate(source / "data.mdb", 8192)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(f"error: {source / 'data.mdb'} is truncated")
    assert "Traceback" not in errors
    assert not (tmp_path / "out" / "images.npy").exists()


@pytest.mark.usefixtures("in_process")
def test_a_worker_that_dies_is_one_line_and_everything_before_is_kept(tmp_path, undisturbed, monkeypatch, capsys):
    def die(*_):
        raise stage.WorkerDied("a worker process died")

    begun(tmp_path, undisturbed[0], monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(unfinished.Unfinished, "add", die)
        with pytest.raises(UserError, match="a worker process died"):
            run(tmp_path, undisturbed[0])
    run(tmp_path, undisturbed[0])
    assert f"going on after record 20 of {N}" in capsys.readouterr().err
    assert_as_undisturbed(tmp_path, undisturbed)


def test_a_finished_array_is_not_touched_by_a_new_start(tmp_path, undisturbed, monkeypatch):
    """Killed after publication, it has a second name in the folder of what is unfinished."""
    kill(tmp_path, undisturbed[0], "work:forget:1")
    assert (tmp_path / "images.npy").read_bytes() == undisturbed[1]
    (tmp_path / ".images.npy.partial" / "journal.json").write_text("{}")
    begun(tmp_path, undisturbed[0], monkeypatch)
    assert (tmp_path / "images.npy").read_bytes() == undisturbed[1]


@pytest.mark.usefixtures("in_process")
def test_without_locks_it_works_with_a_warning(tmp_path, undisturbed, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run(tmp_path, undisturbed[0])
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err
    assert_as_undisturbed(tmp_path, undisturbed)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, undisturbed):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        run(tmp_path / "out", undisturbed[0])
