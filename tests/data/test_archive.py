"""What a zip may hold, and what becomes of one that is damaged: nothing outside the folder, nothing half-made."""

import hashlib
import random
import shutil
import stat
import struct
import zipfile

import pytest
from archive_server import make_zip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blurdiff.data import archive
from blurdiff.data.archive import BadArchive, unpack_lmdb
from blurdiff.errors import UserError
from pictures import key, write_lmdb


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    """A small data.mdb, of values that do not compress."""
    rng = random.Random(0)
    folder = write_lmdb(tmp_path_factory.mktemp("lmdb"), {key(n): rng.randbytes(3000) for n in range(9)})
    return (folder / "data.mdb").read_bytes()


def unpack(tmp_path, content: bytes):
    """Unpack these bytes; gives the folder, of which nothing but itself may be left, also after an error."""
    path, folder = tmp_path / "x.zip", tmp_path / "out" / "x_lmdb"
    path.write_bytes(content)
    try:
        unpack_lmdb(path, folder)
    finally:
        rest = sorted(str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*"))
        whole = ["out/x_lmdb", "out/x_lmdb/data.mdb"] if folder.exists() else []
        assert [entry for entry in rest if entry not in ("x.zip", "out")] == whole
    return folder


def refused(tmp_path, content: bytes) -> str:
    with pytest.raises(BadArchive) as caught:
        unpack(tmp_path, content)
    return str(caught.value)


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("folder", ["", "church_lmdb/", "a/b/"])
def test_data_mdb_alone_is_taken_from_wherever_it_stands(tmp_path, data, folder, compression):
    content = make_zip({f"{folder}lock.mdb": b"lock", f"{folder}data.mdb": data, "README": b"text"}, compression)
    assert (unpack(tmp_path, content) / "data.mdb").read_bytes() == data


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (entry("../escaped"), "leads out"),
        (entry("a/../../escaped"), "leads out"),
        (entry("/tmp/escaped"), "leads out"),
        (entry("..\\escaped"), "leads out"),
        (entry("C:\\escaped"), "leads out"),
        (entry("link", stat.S_IFLNK | 0o777), "link"),
        (entry("pipe", stat.S_IFIFO | 0o666), "link or a special file"),
        (entry("device", stat.S_IFCHR | 0o666), "link or a special file"),
    ],
    ids=lambda value: value.filename if isinstance(value, zipfile.ZipInfo) else "",
)
def test_an_archive_with_an_entry_that_could_do_harm_is_refused_as_a_whole(tmp_path, data, other, word):
    assert word in refused(tmp_path, make_zip({"x_lmdb/data.mdb": data, other: b"/etc/passwd"}))


def test_data_mdb_itself_may_be_no_link(tmp_path):
    assert "link" in refused(tmp_path, make_zip({entry("data.mdb", stat.S_IFLNK | 0o777): b"/etc/passwd"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused(tmp_path, data):
    assert "twice" in refused(tmp_path, make_zip({entry("a/data.mdb"): data, entry("a/data.mdb"): data}))
    assert "twice" in refused(tmp_path, make_zip({"a/data.mdb": data, "a//data.mdb": data}))


@pytest.mark.parametrize(
    ("entries", "words"),
    [({}, "no data.mdb"), ({"lock.mdb": b""}, "no data.mdb"), ({"data.mdb/": b""}, "1 of data.mdb"),
     ({"a/data.mdb": b"", "b/data.mdb": b""}, "2 of data.mdb")],
)  # fmt: skip
def test_there_must_be_one_data_mdb(tmp_path, entries, words):
    assert words in refused(tmp_path, make_zip(entries))


@pytest.mark.parametrize("content", [b"", b"no LMDB at all", bytes(8192)])
def test_data_mdb_must_be_an_lmdb(tmp_path, content):
    text = refused(tmp_path, make_zip({"photos/data.mdb": content}))
    assert text.startswith("photos/data.mdb in it is") and str(tmp_path) not in text


def test_a_truncated_lmdb_in_a_whole_zip_is_refused(tmp_path, data):
    assert "truncated" in refused(tmp_path, make_zip({"data.mdb": data[:-1]}))


def in_directory(content: bytes, offset: int, layout: str, *values: int) -> bytes:
    """The zip with fields of its first entry in the central directory replaced."""
    start = content.index(b"PK\x01\x02") + offset
    packed = struct.pack(layout, *values)
    return content[:start] + packed + content[start + len(packed) :]


def test_an_encrypted_entry_is_refused(tmp_path, data):
    content = make_zip({"data.mdb": data})
    assert "encrypted" in refused(tmp_path, in_directory(content, 8, "<H", 1))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, data, monkeypatch):
    def fail(*_):
        raise AssertionError("unpacked")

    monkeypatch.setattr(archive, "_pieces", fail)
    content = make_zip({"data.mdb": data})
    assert "claims 4,294,967,294 bytes" in refused(tmp_path, in_directory(content, 24, "<I", 0xFFFFFFFE))
    # One that claims what a real one might is refused by the disk.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": len(data) - 1}))
    with pytest.raises(UserError, match="unpacked, but its disk has"):
        unpack(tmp_path, content)


def test_an_entry_that_holds_more_than_it_claims_is_cut_off_and_refused(tmp_path, data):
    content = make_zip({"data.mdb": data + bytes(50_000_000)})
    assert len(content) < 200_000
    text = refused(tmp_path, in_directory(content, 24, "<I", len(data)))
    assert "data.mdb in it is damaged" in text


def test_an_entry_that_holds_less_than_it_claims_is_refused(tmp_path, data):
    content = make_zip({"data.mdb": data})
    assert "data.mdb in it is damaged" in refused(tmp_path, in_directory(content, 24, "<I", len(data) + 4096))


def test_an_unknown_compression_is_refused(tmp_path, data):
    content = make_zip({"data.mdb": data})
    assert "data.mdb in it is damaged" in refused(tmp_path, in_directory(content, 10, "<H", 77))


@pytest.mark.parametrize("kind", ["empty", "text", "half", "without its last byte", "shifted"])
def test_what_is_no_whole_zip_is_refused(tmp_path, data, kind):
    content = make_zip({"data.mdb": data})
    damaged = {"empty": b"", "text": b"<html>404</html>" * 99, "half": content[: len(content) // 2],
               "without its last byte": content[:-1], "shifted": content[100:]}[kind]  # fmt: skip
    assert refused(tmp_path, damaged)


def test_a_missing_zip_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        unpack_lmdb(tmp_path / "absent.zip", tmp_path / "out")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4),
    from_end=st.booleans(),
)
def test_flipped_bytes_are_refused_or_harmless(tmp_path_factory, data, flips, from_end):
    """Near the end, where the directory is, and everywhere."""
    content = bytearray(make_zip({"x_lmdb/data.mdb": data, "x_lmdb/lock.mdb": b"lock"}))
    for place, mask in flips:
        content[-1 - place % 180 if from_end else place % len(content)] ^= mask
    try:
        folder = unpack(tmp_path_factory.mktemp("flips"), bytes(content))
    except (BadArchive, UserError):
        return
    assert hashlib.sha256((folder / "data.mdb").read_bytes()).digest() == hashlib.sha256(data).digest()
