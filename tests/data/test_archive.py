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


def in_directory(content: bytes, offset: int, layout: str, *values: int) -> bytes:
    """The zip with fields of its first entry in the central directory replaced."""
    start = content.index(b"PK\x01\x02") + offset
    packed = struct.pack(layout, *values)
    return content[:start] + packed + content[start + len(packed) :]


LINK, PIPE, DEVICE = stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o666, stat.S_IFCHR | 0o666
HARMFUL = [
    *((entry(name), "leads out") for name in ("../a", "a/../../a", "/tmp/a", "..\\a", "C:\\a")),
    (entry("a", LINK), "link"), (entry("a", PIPE), "link or a special file"), (entry("a", DEVICE), "link or a special"),
]  # fmt: skip
# The bytes of a zip, given those of a data.mdb, and why it is refused as a whole.
REFUSED: dict[str, tuple] = {
    **{f"harmful: {kind} {other.filename}": (lambda data, other=other: make_zip({"x/data.mdb": data, other: b"/etc"}),
       kind) for other, kind in HARMFUL},
    "data.mdb is a link": (lambda data: make_zip({entry("data.mdb", LINK): b"/etc/passwd"}), "link"),
    "one name twice": (lambda data: make_zip({entry("a/data.mdb"): data, entry("a/data.mdb"): data}), "twice"),
    "one name twice, written otherwise": (lambda data: make_zip({"a/data.mdb": data, "a//data.mdb": data}), "twice"),
    "nothing": (lambda data: make_zip({}), "no data.mdb"),
    "no data.mdb": (lambda data: make_zip({"lock.mdb": b""}), "no data.mdb"),
    "a folder data.mdb": (lambda data: make_zip({"data.mdb/": b""}), "1 of data.mdb"),
    "two of data.mdb": (lambda data: make_zip({"a/data.mdb": b"", "b/data.mdb": b""}), "2 of data.mdb"),
    **{f"data.mdb is no LMDB: {content[:5]!r}": (lambda data, content=content: make_zip({"photos/data.mdb": content}),
       "photos/data.mdb in it is") for content in (b"", b"no LMDB at all", bytes(8192))},
    "data.mdb is truncated": (lambda data: make_zip({"data.mdb": data[:-1]}), "data.mdb in it is truncated"),
    "encrypted": (lambda data: in_directory(make_zip({"data.mdb": data}), 8, "<H", 1), "encrypted"),
    "unknown compression": (lambda data: in_directory(make_zip({"data.mdb": data}), 10, "<H", 77), "is damaged"),
    "more than it claims": (
        lambda data: in_directory(make_zip({"data.mdb": data + bytes(50_000_000)}), 24, "<I", len(data)), "is damaged"),
    "less than it claims": (
        lambda data: in_directory(make_zip({"data.mdb": data}), 24, "<I", len(data) + 4096), "data.mdb in it is dama"),
    "an empty file": (lambda data: b"", "no whole zip"),
    "text": (lambda data: b"<html>404</html>" * 99, "no whole zip"),
    "half": (lambda data: (content := make_zip({"data.mdb": data}))[: len(content) // 2], "no whole zip"),
    "without its last byte": (lambda data: make_zip({"data.mdb": data})[:-1], ""),
    "shifted": (lambda data: make_zip({"data.mdb": data})[100:], ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_may_not_be_used_is_refused_as_a_whole(tmp_path, data, kind):
    make, words = REFUSED[kind]
    text = refused(tmp_path, make(data))
    assert text and words in text and str(tmp_path) not in text


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
