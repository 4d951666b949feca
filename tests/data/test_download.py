"""The stage `download` against a server on this machine that drops connections, changes its file, and lies."""

import hashlib
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
def call(server, waits, tmp_path, capsys):
    """Call the stage in this process; gives (exit status, stderr)."""

    def call_stage(*options: str, url: str | None = None) -> tuple[int, str]:
        command = ["download", "--output", str(tmp_path / "out" / "photos_lmdb"), "--url", url or server.url]
        status = cli.main([*command, *options])
        return status, capsys.readouterr().err

    return call_stage


@pytest.fixture
def run(call, tmp_path, data):
    """Call the stage, which makes the folder and leaves nothing else beside it than `beside`; gives stderr."""

    def succeed(*options: str, beside: tuple[str, ...] = ()) -> str:
        status, text = call(*options)
        assert status == 0
        assert_done(tmp_path, data, *beside)
        return text

    return succeed


@pytest.fixture
def fail(call, tmp_path):
    """Call the stage, which leaves these files alone; gives its one error line. Lines before tell what was tried."""

    def call_in_vain(*options: str, leaves: tuple[str, ...] = (), url: str | None = None) -> str:
        status, text = call(*options, url=url)
        *before, line = text.splitlines()
        assert status == 1
        assert line.startswith("error: ") and not any(other.startswith(("error", "Traceback")) for other in before)
        assert left(tmp_path) == [*leaves]
        return line

    return call_in_vain


PARTIAL = ("photos_lmdb.zip.part", "photos_lmdb.zip.part.json")


def left(tmp_path) -> list[str]:
    """All that is there, below the folder of the data."""
    return sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))


def assert_done(tmp_path, data, *beside):
    assert left(tmp_path) == sorted(["photos_lmdb", "photos_lmdb/data.mdb", *beside])
    assert (tmp_path / "out" / "photos_lmdb" / "data.mdb").read_bytes() == data


def write(folder, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_zip_becomes_a_folder_with_data_mdb_alone(run, server, whole):
    text = run()
    assert server.log == [[None, None, 200, len(whole)]]
    assert "download: 100%" in text and "unpack: 100%" in text


def test_what_is_there_is_not_downloaded_again(run, server, tmp_path):
    run()
    server.log.clear()
    left_over = b"what a process left that was killed at its very end"
    write(tmp_path / "out", {"photos_lmdb.zip.part": left_over, "photos_lmdb.zip.part.json": b"{}"})
    run()
    run()
    assert server.log == []


def test_what_a_process_left_that_was_killed_while_it_unpacked_is_removed(run, tmp_path, data):
    """The complete zip, and a folder of the name that atomic_folder gives."""
    write(tmp_path / "out", {".photos_lmdb.a1b2c3d4/data.mdb": data[:1000]})
    run()


@pytest.mark.parametrize("seed", range(4))
def test_dropped_connections_lose_one_piece_each_at_most(run, server, whole, seed):
    rng = random.Random(seed)
    cuts = [rng.randrange(200_000) for _ in range(6)]
    server.faults = [{"cut": cut} for cut in cuts]
    text = run("--digest", hashlib.sha256(whole).hexdigest())
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
def test_mishaps_that_are_got_over(run, server, whole, mishap):
    faults, words, requests = MISHAPS[mishap]
    server.faults = faults(whole)
    assert words in run()
    assert [tuple(entry[1:3]) for entry in server.log] == requests


def test_a_busy_server_is_tried_again_after_ever_longer_waits(run, server, waits):
    server.faults = [{"status": code} for code in (503, 500, 429, 503)]
    assert "the server answers 503 Service Unavailable" in run()
    assert waits == [1, 2, 4, 8]


# What the server does, given the zip; what is told; the status of each request.
FAILURES: dict[str, tuple] = {
    **{f"a refusal ends it at once: {code}": (lambda whole, code=code: [{"status": code}], f"answers {code}", [code])
       for code in (403, 404, 410)},
    "attempts without progress are bounded": (
        lambda whole: [{"status": 503}] * 50, "503 Service Unavailable, 11 times in a row", [503] * 11),
    "no length": (lambda whole: [{"headers": {"Content-Length": None}}], "does not say how large", [200]),
    "compressed on the way": (lambda whole: [{"headers": {"Content-Encoding": "gzip"}}], "compresses it", [200]),
    "a length that is too small gives a damaged zip, which is deleted": (
        lambda whole: [{"headers": {"Content-Length": len(whole) - 1000}}], "no whole zip file", [200]),
    **{f"a zip that leads out: {name}": (
        lambda whole, name=name: [{"new": (make_zip({"photos_lmdb/data.mdb": b"", name: b""}), FIRST)}],
        "leads out of the folder", [200]) for name in ("../data.mdb", "/tmp/data.mdb", "photos_lmdb/../../data.mdb")},
}  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(fail, server, waits, tmp_path, whole, failure):
    faults, words, statuses = FAILURES[failure]
    server.faults = faults(whole)
    assert words in fail()
    assert [entry[2] for entry in server.log] == statuses
    assert max(waits, default=60) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_starting_over_is_no_progress(call, server):
    """A server that neither resumes nor ever comes to the end would keep us for ever."""
    server.faults = [{"ignore_range": True, "cut": 300_000}] * 50
    status, text = call("--retries", "3")
    assert (status, len(server.log)) == (1, 4) and "4 times in a row" in text


def test_a_length_that_is_too_large_never_counts_as_complete(fail, server, whole):
    server.faults = [{"headers": {"Content-Length": len(whole) + 1}}, {}] * 20
    assert "times in a row" in fail("--retries", "2", leaves=PARTIAL)
    assert [entry[2] for entry in server.log] == [200, 206, 200]


def test_what_is_there_survives_a_failure_and_is_gone_on_from(run, fail, server, tmp_path):
    server.faults = [{"cut": 700_000}, {"status": 503}, {"status": 404}]
    assert "404" in fail(leaves=PARTIAL)
    have = (tmp_path / "out" / PARTIAL[0]).stat().st_size
    assert have >= 600_000
    server.log.clear()
    run()
    assert [entry[:3] for entry in server.log] == [[f"bytes={have}-", '"first"', 206]]


OTHERS = ["", "{", "[]", "{}", '{"url": 1, "size": "x", "validator": null}']
OTHERS.append('{"url": "http://elsewhere/photos_lmdb.zip", "size": 1100000, "validator": "\\"first\\""}')


@pytest.mark.parametrize("state", OTHERS)
def test_bytes_of_unknown_origin_or_another_address_are_not_gone_on_from(run, server, tmp_path, state):
    write(tmp_path / "out", {PARTIAL[0]: b"x" * 1000, PARTIAL[1]: state.encode()})
    run()
    assert server.log[0][0] is None


def test_nobody_there(fail, waits):
    with socket.socket() as unused:  # bound, not listening: nothing else gets the port
        unused.bind(("127.0.0.1", 0))
        line = fail("--retries", "2", url=f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip")
    assert "Connection refused, 3 times" in line.replace("[Errno 111] ", "").replace(")", "")
    assert waits == [1, 2]


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_the_checksum_is_verified(run, fail, whole, name):
    right = hashlib.new(name, whole).hexdigest()
    line = fail("--digest", hashlib.new(name, b"other").hexdigest())
    assert right in line and {"sha256": "SHA-256", "md5": "MD5"}[name] in line
    run("--digest", right.upper())


def test_a_zip_that_was_fetched_by_hand_is_used_and_kept(run, fail, server, tmp_path, whole):
    archive = tmp_path / "out" / "photos_lmdb.zip"
    write(tmp_path / "out", {archive.name: whole[:-1]})
    assert f"{archive}: " in fail(leaves=(archive.name,))
    assert archive.read_bytes() == whole[:-1]  # not ours to delete
    archive.write_bytes(whole)
    assert "MD5" in fail("--digest", "0" * 32, leaves=(archive.name,))
    run("--digest", hashlib.md5(whole).hexdigest(), beside=(archive.name,))
    assert server.log == []


def test_the_zip_is_kept_on_request(run, tmp_path, whole):
    run("--keep-archive", beside=("photos_lmdb.zip",))
    assert (tmp_path / "out" / "photos_lmdb.zip").read_bytes() == whole


def test_a_folder_with_something_else_in_it_is_left_alone(fail, server, tmp_path):
    write(tmp_path / "out", {"photos_lmdb/mine.txt": b"mine"})
    assert "something else" in fail(leaves=("photos_lmdb", "photos_lmdb/mine.txt"))
    assert server.log == []


def test_a_link_to_a_folder_on_another_disk(call, tmp_path, data):
    (tmp_path / "large" / "photos").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photos_lmdb").symlink_to(tmp_path / "large" / "photos")
    assert call()[0] == 0
    assert (tmp_path / "large" / "photos" / "data.mdb").read_bytes() == data
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == ["photos"]


def free(monkeypatch, *values: int) -> None:
    """Let the disk have these bytes free, one value a question, the last from then on."""
    values = list(values)
    usage = type("Usage", (), {"free": property(lambda _: values.pop(0) if values[1:] else values[0])})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage())


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_written(fail, tmp_path, whole, monkeypatch):
    free(monkeypatch, 2 * len(whole) - 1)
    line = fail()
    assert "make room" in line and str(tmp_path) in line


def test_a_disk_that_fills_before_unpacking_keeps_the_zip(run, fail, server, monkeypatch):
    with monkeypatch.context() as patch:
        free(patch, 10**9, 1000)
        assert "unpacked" in fail(leaves=PARTIAL)
    server.log.clear()
    run()
    assert server.log == []


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
    mirror = "https://mirror/x.zip"
    assert stage.source_of(Path(f"data/{name}_lmdb"), mirror, None) == (mirror, None, None)


def test_lsun_has_scenes_without_a_known_digest():
    assert stage.source_of(Path("kitchen_train_lmdb"), None, None)[1:] == (None, None)


@pytest.mark.parametrize(
    ("options", "word"),
    [("photos_lmdb", "--url"), ("x --url ftp://host/x.zip", "ftp"), ("x --url file:///etc/passwd", "file:"),
     ("x --url http://", "http"), ("x --url http://host/x.zip --digest abc", "abc"),
     ("x --url http://host/x.zip --retries -1", "--retries"), ("/ --url http://host/x.zip", "--output")],
)  # fmt: skip
def test_bad_options_are_one_line(options, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["download", "--output", *options.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and word in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_than_lsuns_is_refused_at_once(server, tmp_path, waits, whole):
    with pytest.raises(UserError, match=f"{len(whole):,} bytes on the server, not 5,957,308"):
        stage.download(tmp_path / "church_outdoor_val_lmdb", server.url, size=5_957_308)


def raw_config(**datasets: dict) -> dict:
    return {"datasets": datasets, "training": {"iterations": 1}, "runs": [{"dataset": next(iter(datasets))}]}


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
    with pytest.raises(UserError, match=rf"^c: datasets\.photos\.{key}: .*{word}"):
        config.check_config(raw_config(photos=dataset), "c")


def test_one_folder_is_not_downloaded_from_two_places():
    sets = {"a": LMDB | {"download": URL}, "b": {"lmdb": "data/./photos_lmdb", "download": f"{URL}?2"}}
    with pytest.raises(UserError, match=r"^c: datasets\.b\.download: differs from that of a"):
        config.check_config(raw_config(**sets), "c")


def test_a_missing_file_that_is_to_be_downloaded_is_not_missed():
    dataset = {"lmdb": "nowhere/church_outdoor_train_lmdb"}
    with pytest.raises(UserError, match=r"or set datasets\.church\.download: lsun"):
        config.check_files(config.check_config(raw_config(church=dataset)))
    config.check_files(config.check_config(raw_config(church=dataset | {"download": "lsun"})))


# --- through Snakemake ------------------------------------------------------------------------------------------------

IMAGES = "results/data/photos/images.npy"


def snakemake(folder: Path, raw: dict, *options: str, status: int = 0) -> str:
    (folder / "c.yaml").write_text(yaml.safe_dump(raw))
    return run_snakemake(folder, "--configfile", "c.yaml", "--cores", "1", *options, "--", IMAGES, status=status)


def test_the_rule_makes_what_is_missing_and_never_touches_what_is_there(server, tmp_path, data, whole):
    dataset = LMDB | {"download": server.url, "download_digest": hashlib.sha256(whole).hexdigest()}
    raw = raw_config(photos=dataset) | {"resolution": 8}
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
