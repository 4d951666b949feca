"""The stage `download` against a server on this machine that drops connections, changes its file, and lies."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from archive_server import ArchiveServer, make_zip

from blurdiff import cli
from blurdiff.config import runs as config
from blurdiff.data import download as stage
from blurdiff.data import fetch
from blurdiff.data.lsun_facts import LSUN_ARCHIVES
from blurdiff.errors import UserError
from blurdiff.runtime.signals import EXIT_INTERRUPTED
from pictures import encode, key, noise, write_lmdb
from running import run_snakemake

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    """The data.mdb of eight images that do not compress, 1 MB."""
    rng = np.random.default_rng(0)
    folder = write_lmdb(tmp_path_factory.mktemp("lmdb"), {key(n): encode(noise(rng, 200, 200)) for n in range(8)})
    return (folder / "data.mdb").read_bytes()


@pytest.fixture(scope="module")
def whole(data) -> bytes:
    """The zip of it, as LSUN's are."""
    return make_zip({"photos_lmdb/": b"", "photos_lmdb/data.mdb": data, "photos_lmdb/lock.mdb": bytes(8192)})


@pytest.fixture
def server(whole, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ArchiveServer(whole) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that would have been waited, which are not; and small pieces, so that a small file has many."""
    waited: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waited.append)
    monkeypatch.setattr(fetch, "PIECE", 1 << 12)
    return waited


@pytest.fixture
def run(server, waits, tmp_path, capsys):
    """Call the stage in this process; gives (exit status, stderr)."""

    def call(*options: str, url: str | None = None) -> tuple[int, str]:
        command = ["download", "--output", str(tmp_path / "out" / "photos_lmdb"), "--url", url or server.url]
        status = cli.main([*command, *options])
        return status, capsys.readouterr().err

    return call


def left(tmp_path) -> list[str]:
    """All that is there, below the folder of the data."""
    return sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))


def assert_done(tmp_path, data):
    assert left(tmp_path) == ["photos_lmdb", "photos_lmdb/data.mdb"]
    assert (tmp_path / "out" / "photos_lmdb" / "data.mdb").read_bytes() == data


def the_error(outcome: tuple[int, str]) -> str:
    """The one error line of a run that failed; lines before it tell what was tried."""
    status, text = outcome
    *before, line = text.splitlines()
    assert status == 1
    assert line.startswith("error: ") and not any(other.startswith(("error", "Traceback")) for other in before)
    return line


def test_a_zip_becomes_a_folder_with_data_mdb_alone(run, server, tmp_path, data, whole):
    status, text = run()
    assert status == 0
    assert_done(tmp_path, data)
    assert server.log == [[None, None, 200, len(whole)]]
    assert "download: 100%" in text and "unpack: 100%" in text


def test_what_is_there_is_not_downloaded_again(run, server, tmp_path, data):
    run()
    server.log.clear()
    (tmp_path / "out" / "photos_lmdb.zip.part").write_bytes(b"what a process left that was killed at its very end")
    (tmp_path / "out" / "photos_lmdb.zip.part.json").write_text("{}")
    assert run()[0] == run()[0] == 0
    assert server.log == []
    assert_done(tmp_path, data)


def test_what_a_process_left_that_was_killed_while_it_unpacked_is_removed(run, tmp_path, data):
    """The complete zip, and a folder of the name that atomic_folder gives."""
    left_over = tmp_path / "out" / ".photos_lmdb.a1b2c3d4"
    left_over.mkdir(parents=True)
    (left_over / "data.mdb").write_bytes(data[:1000])
    assert run()[0] == 0
    assert_done(tmp_path, data)


@pytest.mark.parametrize("seed", range(4))
def test_dropped_connections_lose_one_piece_each_at_most(run, server, tmp_path, data, whole, seed):
    rng = random.Random(seed)
    cuts = [rng.randrange(200_000) for _ in range(6)]
    server.faults = [{"cut": cut} for cut in cuts]
    status, text = run("--digest", hashlib.sha256(whole).hexdigest())
    assert status == 0
    assert_done(tmp_path, data)
    assert text.count("trying again") == len(cuts)
    assert [entry[2] for entry in server.log[1:]].count(200) <= sum(cut < 1 << 12 for cut in cuts)
    assert all(entry[1] == '"first"' for entry in server.log if entry[0])  # If-Range goes with every Range
    # What a cut loses: less than a piece here, and what the server had sent when the connection broke.
    assert server.sent() < len(whole) + len(cuts) * ((1 << 12) + (1 << 14))


CUT = {"cut": 300_000}
FIRST, DATE = '"first"', "Sat, 01 Jan 2022 00:00:00 GMT"
# What the server does, given the zip; what is told; and (If-Range, status) of each request.
MISHAPS: dict[str, tuple] = {
    "it cannot resume": (lambda whole: [CUT, {"ignore_range": True}], "the server cannot resume: starting over",
                         [(None, 200), (FIRST, 200)]),
    "its file changes on the way": (
        lambda whole: [{"new": (bytes(reversed(whole)), '"old"'), **CUT}, {"new": (whole, '"new"')}],
        "the file on the server has changed: starting over", [(None, 200), ('"old"', 200)]),
    "its file became shorter": (
        lambda whole: [{"new": (whole + bytes(500_000), FIRST), "cut": len(whole) + 100_000}, {"new": (whole, FIRST)}],
        "shorter", [(None, 200), (FIRST, 416), (None, 200)]),
    **{f"a part that was not asked for: {headers}": (
        lambda whole, headers=headers: [CUT, {"headers": headers}], "another part or file",
        [(None, 200), (FIRST, 206), (None, 200)])
       for headers in ({"ETag": '"other"'}, {"Content-Range": "bytes 0-99/100"}, {"Content-Range": "bytes 7-9/*"},
                       {"Content-Range": None})},
    "without a strong ETag the date is the validator": (
        lambda whole: [CUT | {"headers": {"ETag": 'W/"weak"', "Last-Modified": DATE}}], "",
        [(None, 200), (DATE, 200)]),  # of dates this server knows nothing: it sends the whole file
    "without any validator the size must be the same": (
        lambda whole: [CUT | {"headers": {"ETag": None}}, {"headers": {"ETag": None}}], "", [(None, 200), (None, 206)]),
}  # fmt: skip


@pytest.mark.parametrize("mishap", MISHAPS)
def test_mishaps_that_are_got_over(run, server, tmp_path, data, whole, mishap):
    faults, words, requests = MISHAPS[mishap]
    server.faults = faults(whole)
    status, text = run()
    assert status == 0
    assert words in text
    assert [tuple(entry[1:3]) for entry in server.log] == requests
    assert_done(tmp_path, data)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_refusal_is_an_error_at_once(run, server, tmp_path, code):
    server.faults = [{"status": code}]
    assert f"answers {code}" in the_error(run())
    assert len(server.log) == 1
    assert left(tmp_path) == []


def test_a_busy_server_is_tried_again_after_ever_longer_waits(run, server, waits, tmp_path, data):
    server.faults = [{"status": code} for code in (503, 500, 429, 503)]
    status, text = run()
    assert status == 0
    assert waits == [1, 2, 4, 8]
    assert "the server answers 503 Service Unavailable" in text
    assert_done(tmp_path, data)


def test_attempts_without_progress_are_bounded(run, server, waits, tmp_path):
    server.faults = [{"status": 503}] * 50
    assert "503 Service Unavailable, 11 times in a row" in the_error(run())
    assert len(server.log) == 11
    assert max(waits) == 60
    assert left(tmp_path) == []


def test_starting_over_is_no_progress(run, server, tmp_path):
    """A server that neither resumes nor ever comes to the end would keep us for ever."""
    server.faults = [{"ignore_range": True, "cut": 300_000}] * 50
    assert "4 times in a row" in the_error(run("--retries", "3"))
    assert len(server.log) == 4


def test_what_is_there_survives_a_failure_and_is_gone_on_from(run, server, tmp_path, data, whole):
    server.faults = [{"cut": 700_000}, {"status": 503}, {"status": 404}]
    assert "404" in the_error(run())
    assert left(tmp_path) == ["photos_lmdb.zip.part", "photos_lmdb.zip.part.json"]
    have = (tmp_path / "out" / "photos_lmdb.zip.part").stat().st_size
    assert have >= 600_000
    server.log.clear()
    assert run()[0] == 0
    assert [entry[:3] for entry in server.log] == [[f"bytes={have}-", '"first"', 206]]
    assert_done(tmp_path, data)


def test_bytes_of_another_address_are_not_gone_on_from(run, server, tmp_path, data):
    server.faults = [{"cut": 300_000}, {"status": 404}]
    the_error(run())
    state = tmp_path / "out" / "photos_lmdb.zip.part.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"url": "http://elsewhere/photos_lmdb.zip"}))
    server.log.clear()
    assert run()[0] == 0
    assert [entry[0] for entry in server.log] == [None]
    assert_done(tmp_path, data)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"url": 1, "size": "x", "validator": null}'])
def test_bytes_of_unknown_origin_are_not_gone_on_from(run, server, tmp_path, data, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photos_lmdb.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / "out" / "photos_lmdb.zip.part.json").write_text(text)
    assert run()[0] == 0
    assert server.log[0][0] is None
    assert_done(tmp_path, data)


@pytest.mark.parametrize(
    ("headers", "words"),
    [({"Content-Length": None}, "does not say how large"), ({"Content-Encoding": "gzip"}, "compresses it")],
)
def test_answers_that_cannot_be_checked_are_refused(run, server, tmp_path, headers, words):
    server.faults = [{"headers": headers}]
    assert words in the_error(run())
    assert left(tmp_path) == []


def test_a_length_that_is_too_large_never_counts_as_complete(run, server, tmp_path, whole):
    server.faults = [{"headers": {"Content-Length": len(whole) + 1}}, {}] * 20
    assert "times in a row" in the_error(run("--retries", "2"))
    assert [entry[2] for entry in server.log] == [200, 206, 200]
    assert not (tmp_path / "out" / "photos_lmdb").exists()


def test_a_length_that_is_too_small_gives_a_damaged_zip_which_is_deleted(run, server, tmp_path, whole):
    server.faults = [{"headers": {"Content-Length": len(whole) - 1000}}]
    assert "no whole zip file" in the_error(run())
    assert left(tmp_path) == []


def test_nobody_there(run, tmp_path, waits):
    with socket.socket() as unused:  # bound, not listening: nothing else gets the port
        unused.bind(("127.0.0.1", 0))
        line = the_error(run("--retries", "2", url=f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip"))
    assert "Connection refused, 3 times" in line.replace("[Errno 111] ", "").replace(")", "")
    assert waits == [1, 2]
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_the_checksum_is_verified(run, server, tmp_path, data, whole, name):
    right = hashlib.new(name, whole).hexdigest()
    line = the_error(run("--digest", hashlib.new(name, b"other").hexdigest()))
    assert right in line and {"sha256": "SHA-256", "md5": "MD5"}[name] in line
    assert left(tmp_path) == []
    assert run("--digest", right.upper())[0] == 0
    assert_done(tmp_path, data)


@pytest.mark.parametrize("name", ["../data.mdb", "/tmp/data.mdb", "photos_lmdb/../../data.mdb"])
def test_a_zip_that_leads_out_of_its_folder_is_refused_and_deleted(run, server, tmp_path, data, name):
    server.content = make_zip({"photos_lmdb/data.mdb": data, name: data})
    assert "leads out of the folder" in the_error(run())
    assert left(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_zip_that_was_fetched_by_hand_is_used_and_kept(run, server, tmp_path, data, whole):
    archive = tmp_path / "out" / "photos_lmdb.zip"
    archive.parent.mkdir()
    archive.write_bytes(whole[:-1])
    assert f"{archive}: " in the_error(run())
    assert archive.read_bytes() == whole[:-1]  # not ours to delete
    archive.write_bytes(whole)
    assert "MD5" in the_error(run("--digest", "0" * 32))
    assert left(tmp_path) == ["photos_lmdb.zip"]
    assert run("--digest", hashlib.md5(whole).hexdigest())[0] == 0
    assert server.log == []
    assert left(tmp_path) == ["photos_lmdb", "photos_lmdb.zip", "photos_lmdb/data.mdb"]


def test_the_zip_is_kept_on_request(run, tmp_path, whole):
    assert run("--keep-archive")[0] == 0
    assert left(tmp_path) == ["photos_lmdb", "photos_lmdb.zip", "photos_lmdb/data.mdb"]
    assert (tmp_path / "out" / "photos_lmdb.zip").read_bytes() == whole


def test_a_folder_with_something_else_in_it_is_left_alone(run, server, tmp_path):
    folder = tmp_path / "out" / "photos_lmdb"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    assert "something else" in the_error(run())
    assert (left(tmp_path), server.log) == (["photos_lmdb", "photos_lmdb/mine.txt"], [])


def test_a_link_to_a_folder_on_another_disk(run, tmp_path, data):
    (tmp_path / "large" / "photos").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photos_lmdb").symlink_to(tmp_path / "large" / "photos")
    assert run()[0] == 0
    assert (tmp_path / "large" / "photos" / "data.mdb").read_bytes() == data
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == ["photos"]


def free(monkeypatch, *values: int) -> None:
    """Let the disk have these bytes free, one value a question, the last from then on."""
    values = list(values)
    usage = type("Usage", (), {"free": property(lambda _: values.pop(0) if values[1:] else values[0])})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage())


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_written(run, server, tmp_path, whole, monkeypatch):
    free(monkeypatch, 2 * len(whole) - 1)
    line = the_error(run())
    assert "make room" in line and str(tmp_path) in line
    assert left(tmp_path) == []


def test_a_disk_that_fills_before_unpacking_keeps_the_zip(run, server, tmp_path, data, whole, monkeypatch):
    free(monkeypatch, 10**9, 1000)
    assert "unpacked" in the_error(run())
    assert left(tmp_path) == ["photos_lmdb.zip.part", "photos_lmdb.zip.part.json"]
    server.log.clear()
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert run()[0] == 0
    assert server.log == []
    assert_done(tmp_path, data)


# --- real processes ---------------------------------------------------------------------------------------------------


def start(server, tmp_path, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "src"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "blurdiff", "download", "--url", server.url, "--output"]
    command.append(str(tmp_path / "out" / "photos_lmdb"))
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, **options)


def wait_for(condition) -> None:
    """Poll until it holds; the test's own time limit ends it otherwise."""
    while not condition():
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_download_goes_on_where_it_stopped(server, tmp_path, data, whole, number):
    server.faults = [{"hold": 600_000}]
    part = tmp_path / "out" / "photos_lmdb.zip.part"
    process = start(server, tmp_path)
    wait_for(lambda: part.exists() and part.stat().st_size >= 2 * fetch.PIECE)
    process.send_signal(number)
    text = process.communicate()[1]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else EXIT_INTERRUPTED)
    assert "Traceback" not in text
    have = part.stat().st_size
    lock = ["photos_lmdb.zip.part.lock"] if number == signal.SIGKILL else []
    assert left(tmp_path) == ["photos_lmdb.zip.part", "photos_lmdb.zip.part.json", *lock]
    server.release.set()
    second = start(server, tmp_path)
    assert f"going on at {have / 1e3:.0f} kB of {len(whole) / 1e3:.0f} kB" in second.communicate()[1]
    assert second.returncode == 0
    assert_done(tmp_path, data)
    assert [entry[:3] for entry in server.log][-1] == [f"bytes={have}-", '"first"', 206]
    assert server.log[-1][3] == len(whole) - have


def test_two_downloaders_of_one_file_exclude_each_other(server, tmp_path, data, whole):
    server.faults = [{"hold": 600_000}]
    part = tmp_path / "out" / "photos_lmdb.zip.part"
    first = start(server, tmp_path)
    wait_for(lambda: part.exists() and part.stat().st_size > 0)
    second = start(server, tmp_path)
    assert f"is being downloaded by process {first.pid} on " in second.stderr.readline()
    server.release.set()
    assert [first.wait(), second.wait()] == [0, 0]
    first.stderr.close()
    second.stderr.close()
    assert [entry[2] for entry in server.log] == [200]
    assert_done(tmp_path, data)


def test_a_file_system_that_takes_no_more_is_one_line_and_keeps_what_is_there(server, tmp_path, data):
    limited = start(server, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2))
    text = limited.communicate()[1]
    assert limited.returncode == 1
    assert text.splitlines()[-1].startswith(f"error: cannot write {tmp_path / 'out' / 'photos_lmdb.zip.part'}: ")
    assert "Traceback" not in text
    assert (tmp_path / "out" / "photos_lmdb.zip.part").stat().st_size == 300_000
    second = start(server, tmp_path)
    second.communicate()
    assert second.returncode == 0
    assert server.log[-1][0] == "bytes=300000-"
    assert_done(tmp_path, data)


# --- where from -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LSUN_ARCHIVES)
def test_lsun_goes_by_the_name_of_the_folder(name):
    size, digest = LSUN_ARCHIVES[name]
    url = f"http://dl.yf.io/lsun/scenes/{name}_lmdb.zip"
    assert stage.source_of(Path(f"data/{name}_lmdb"), None, None) == (url, digest, size)
    assert stage.source_of(Path(f"data/{name}_lmdb"), "https://mirror/x.zip", None) == (
        "https://mirror/x.zip",
        None,
        None,
    )


def test_lsun_has_scenes_without_a_known_digest():
    assert stage.source_of(Path("kitchen_train_lmdb"), None, None)[1:] == (None, None)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--output", "photos_lmdb"], "--url"),
        (["--output", "x", "--url", "ftp://host/x.zip"], "ftp"),
        (["--output", "x", "--url", "file:///etc/passwd"], "file:"),
        (["--output", "x", "--url", "http://"], "http"),
        (["--output", "x", "--url", "http://host/x.zip", "--digest", "abc"], "abc"),
        (["--output", "x", "--url", "http://host/x.zip", "--retries", "-1"], "--retries"),
        (["--output", "/", "--url", "http://host/x.zip"], "--output"),
    ],
)
def test_bad_options_are_one_line(options, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["download", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and word in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_than_lsuns_is_refused_at_once(server, tmp_path, waits, whole):
    with pytest.raises(UserError, match=f"{len(whole):,} bytes on the server, not 5,957,308"):
        stage.download(tmp_path / "church_outdoor_val_lmdb", server.url, size=5_957_308)


LMDB = {"lmdb": "data/photos_lmdb"}
URL = "http://host/photos.zip"


@pytest.mark.parametrize(
    ("dataset", "key", "word"),
    [
        (LMDB | {"download": "lsun"}, "download", "no photos_lmdb"),
        (LMDB | {"download": "LSUN"}, "download", "neither lsun nor"),
        (LMDB | {"download": "ftp://host/x.zip"}, "download", "neither lsun nor"),
        (LMDB | {"download": True}, "download", "must be text or null"),
        (LMDB | {"download": URL, "download_digest": "xyz"}, "download_digest", "64 hex digits"),
        (LMDB | {"download_digest": "0" * 64}, "download_digest", "give download"),
        ({"synthetic": "bedroom", "download": URL}, "download", "is for lmdb"),
    ],
)
def test_bad_keys_of_the_config(dataset, key, word):
    raw = {"datasets": {"photos": dataset}, "training": {"iterations": 1}, "runs": [{"dataset": "photos"}]}
    with pytest.raises(UserError, match=rf"^c: datasets\.photos\.{key}: .*{word}"):
        config.check_config(raw, "c")


def test_one_folder_is_not_downloaded_from_two_places():
    sets = {"a": LMDB | {"download": URL}, "b": {"lmdb": "data/./photos_lmdb", "download": f"{URL}?2"}}
    raw = {"datasets": sets, "training": {"iterations": 1}, "runs": [{"dataset": "a"}]}
    with pytest.raises(UserError, match=r"^c: datasets\.b\.download: differs from that of a"):
        config.check_config(raw, "c")


def test_a_missing_file_that_is_to_be_downloaded_is_not_missed():
    dataset = {"lmdb": "nowhere/church_outdoor_train_lmdb"}
    raw = {"datasets": {"church": dataset}, "training": {"iterations": 1}, "runs": [{"dataset": "church"}]}
    with pytest.raises(UserError, match=r"or set datasets\.church\.download: lsun"):
        config.check_files(config.check_config(raw))
    dataset["download"] = "lsun"
    config.check_files(config.check_config(raw))


# --- through Snakemake ------------------------------------------------------------------------------------------------

IMAGES = "results/data/photos/images.npy"


def snakemake(folder: Path, raw: dict, *options: str, status: int = 0) -> str:
    (folder / "c.yaml").write_text(yaml.safe_dump(raw))
    return run_snakemake(folder, "--configfile", "c.yaml", "--cores", "1", *options, "--", IMAGES, status=status)


def test_the_rule_makes_what_is_missing_and_never_touches_what_is_there(server, tmp_path, data, whole):
    dataset = LMDB | {"download": server.url, "download_digest": hashlib.sha256(whole).hexdigest()}
    raw = {
        "resolution": 8,
        "datasets": {"photos": dataset},
        "training": {"iterations": 1},
        "runs": [{"dataset": "photos"}],
    }
    raw["network"] = {"channels": 8, "multipliers": [1], "attention_resolutions": [], "n_heads": 1, "n_groups": 1}
    file = tmp_path / "data" / "photos_lmdb" / "data.mdb"

    output = snakemake(tmp_path, raw, "--dry-run")
    assert "rule download_photos:" in output
    assert server.log == [] and not file.exists()

    # The server breaks down on the way. Snakemake removes what the rule declares; what was downloaded is not.
    server.faults = [{"cut": 700_000}, {"status": 404}]
    output = snakemake(tmp_path, raw, status=1)
    assert "the server answers 404" in output
    have = (tmp_path / "data" / "photos_lmdb.zip.part").stat().st_size
    assert have >= 2 * fetch.PIECE and not file.exists()
    snakemake(tmp_path, raw)
    assert server.log[-1][:3] == [f"bytes={have}-", '"first"', 206]
    assert file.read_bytes() == data
    assert np.load(tmp_path / IMAGES).shape == (8, 8, 8, 3)
    assert "download: 100%" in (tmp_path / "results" / "logs" / "download" / "photos.log").read_text()

    # What is there is never fetched again, nor deleted.
    server.log.clear()
    dataset |= {"download": f"{server.url}?elsewhere", "download_digest": None}
    snakemake(tmp_path, raw, "--delete-all-output")
    assert file.exists() and not (tmp_path / IMAGES).exists()
    assert server.log == []
