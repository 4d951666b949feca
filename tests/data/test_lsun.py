import os
import struct
from contextlib import closing

import lmdb
import numpy as np
import pytest
from PIL import Image

from blurdiff.data import lmdb_header, lsun
from blurdiff.data.sources import Record
from blurdiff.errors import UserError
from pictures import encode, key


def name(number):
    return key(number).decode()


def test_keys_come_in_order_and_are_counted(write_lmdb):
    folder = write_lmdb({key(n): b"value" for n in (5, 1, 3, 2**100)} | {key(1): b"another"})
    with closing(lsun.Lmdb(folder)) as reader:
        assert reader.identify()["entries"] == 4
        for (start, stop, after), expected in {
            (0, 9, None): [1, 3, 5, 2**100], (0, 2, None): [1, 3], (1, 3, None): [3, 5], (4, 9, None): [],
            (1, 3, name(1)): [3, 5], (3, 9, name(5)): [2**100],
        }.items():  # fmt: skip
            assert [record.key for record in reader.records(start, stop, after)] == [name(n) for n in expected]
        with pytest.raises(UserError, match=f"no key {name(4)}"):
            list(reader.records(0, 9, after=name(4)))
        assert [reader.read(Record(name(n))) for n in (3, 1)] == [b"value", b"another"]
        with pytest.raises(UserError, match=name(4)):
            reader.read(Record(name(4)))


def test_opening_leaves_no_file_behind(write_lmdb):
    folder = write_lmdb({key(1): b"value"})
    lsun.open_lmdb(folder).close()
    lsun.open_lmdb(folder).close()  # and a closed one can be opened again
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]


@pytest.mark.parametrize("name", ["bedroom_train", "church_outdoor_val", "my photographs"])
def test_missing_folder_names_the_download(tmp_path, name):
    known = "<category>_<split>" if name == "my photographs" else name
    with pytest.raises(UserError, match=f"http://dl.yf.io/lsun/scenes/{known}_lmdb.zip"):
        lsun.open_lmdb(tmp_path / f"{name}_lmdb")


def test_what_is_not_an_lmdb_is_refused(tmp_path):
    file = tmp_path / "bedroom_train_lmdb.zip"
    file.write_bytes(b"PK")
    with pytest.raises(UserError, match="is a file"):
        lsun.check_lmdb(file)
    with pytest.raises(UserError, match="no data.mdb"):
        lsun.check_lmdb(tmp_path)
    data = tmp_path / "data.mdb"
    data.write_bytes(b"")
    with pytest.raises(UserError, match="0 bytes"):
        lsun.check_lmdb(tmp_path)
    for content in (b"short", b"<html>not found</html>" * 1000, bytes(8192)):
        data.write_bytes(content)
        with pytest.raises(UserError, match="not an LMDB"):
            lsun.check_lmdb(tmp_path)


def test_an_lmdb_without_entries_is_refused(write_lmdb):
    with pytest.raises(UserError, match="without entries"):
        lsun.open_lmdb(write_lmdb({}))


def test_another_state_of_an_lmdb_is_told_apart(write_lmdb):
    """By what its own header says, not by its length and time alone."""
    folder = write_lmdb({key(1): b"value"})
    with closing(lsun.Lmdb(folder)) as reader:
        before = reader.identify()
        assert reader.identify() == before
    assert before["entries"] == 1
    assert before["size"] == (folder / "data.mdb").stat().st_size
    write_lmdb({key(1): b"other"}, {key(2): b""})  # into the same folder
    os.utime(folder / "data.mdb", ns=(before["mtime_ns"], before["mtime_ns"]))
    with closing(lsun.Lmdb(folder)) as reader:
        after = reader.identify()
    assert {what for what in before if before[what] != after[what]} >= {"last_transaction", "entries"}
    assert before["mtime_ns"] == after["mtime_ns"]


def test_a_truncated_file_is_refused_before_it_is_mapped(write_lmdb):
    folder = write_lmdb({key(n): bytes(5000) for n in range(20)})
    data = folder / "data.mdb"
    content = data.read_bytes()
    for size in (len(content) - 1, len(content) // 2, 8192, 4096, 5000):
        data.write_bytes(content[:size])
        with pytest.raises(UserError, match="truncated"):
            lsun.open_lmdb(folder)
    data.write_bytes(content + bytes(4096))
    lsun.open_lmdb(folder).close()


@pytest.mark.parametrize("n_transactions", [2, 3])
def test_the_newer_of_the_two_headers_counts(write_lmdb, n_transactions):
    """Whichever of the two pages it stands on, and although the older one would find the file long enough."""
    first = [{key(n): bytes(5000)} for n in range(n_transactions - 1)]
    before = (write_lmdb(*first, name="before") / "data.mdb").stat().st_size
    folder = write_lmdb(*first, {key(n): bytes(5000) for n in range(50, 90)})
    data = folder / "data.mdb"
    data.write_bytes(data.read_bytes()[: before + 4096])
    with pytest.raises(UserError, match="truncated"):
        lsun.check_lmdb(folder)


def test_the_header_is_read_as_lmdb_reads_it(write_lmdb):
    folder = write_lmdb({key(n): bytes(3000) for n in range(7)}, {key(9): b""})
    with lmdb.open(str(folder), readonly=True, lock=False) as environment:
        page, info = environment.stat()["psize"], environment.info()
    metas = lmdb_header.read_metas(folder / "data.mdb")
    assert lmdb_header.newest(metas) == (page, info["last_pgno"], info["last_txnid"])


def overwrite(folder, start, content):
    with open(folder / "data.mdb", "r+b") as file:
        file.seek(start)
        file.write(content)


def test_a_damaged_second_header_page_is_refused(write_lmdb):
    folder = write_lmdb({key(1): b"value"})
    overwrite(folder, 4096 + 16, bytes(4))
    with pytest.raises(UserError, match="damaged"):
        lsun.check_lmdb(folder)


def test_damage_inside_the_file_is_an_error_not_a_crash(write_lmdb):
    folder = write_lmdb({key(n): bytes(100) for n in range(2000)})
    overwrite(folder, 8192, bytes((folder / "data.mdb").stat().st_size - 8192))
    with pytest.raises(UserError, match="damaged"), closing(lsun.Lmdb(folder)) as reader:
        list(reader.records(0, 2000))


@pytest.mark.parametrize("bad", [b"photo.jpg", b"g" * 40, b"0" * 41, b"\xff\x00"])
def test_the_first_key_that_is_not_hexadecimal_is_named(write_lmdb, bad):
    folder = write_lmdb({key(0): b"", bad: b"", b"\xff\xff": b""})
    with closing(lsun.Lmdb(folder)) as reader, pytest.raises(UserError) as error:
        list(reader.records(0, 3))
    assert repr(bad)[1:] in str(error.value)


def tiff(dtype, bits=16, photometric=1, data=None):
    """A grey TIFF of 16×1 pixels in this byte order and number format; RAMP unless `data` are given."""
    dtype = np.dtype(dtype)
    order, data = "<>"[dtype.str[0] == ">"], RAMP.astype(dtype).tobytes() if data is None else data
    kind = {"u": 1, "i": 2, "f": 3}[dtype.kind]
    tags = {256: 16, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(data), 339: kind}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    start = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4)


RAMP = np.arange(16, dtype=np.uint16) * 4369  # 0 to 65535: of 8 bits it is 0, 17, … 255
GREY16 = Image.fromarray(RAMP[None])
TWELVE = "".join(f"{value >> 4:03x}" for value in RAMP.tolist())
DEEP = {
    "16.png": encode(GREY16, "PNG"),
    "16.jp2": encode(GREY16, "JPEG2000"),
    "16 packed.tiff": encode(GREY16, "TIFF", compression="tiff_lzw"),
    "16 little-endian.tiff": tiff("<u2"),
    "16 big-endian.tiff": tiff(">u2"),
    "16 white is zero.tiff": tiff("<u2", photometric=0, data=(65535 - RAMP).tobytes()),
    "12.tiff": tiff("<u2", bits=12, data=bytes.fromhex(TWELVE)),
    "16.ppm": b"P5 16 1 65535 " + RAMP.astype(">u2").tobytes(),
    "12.ppm": b"P5 16 1 4095 " + (RAMP >> 4).astype(">u2").tobytes(),
    "16 RGB.ppm": b"P6 16 1 65535 " + RAMP.repeat(3).astype(">u2").tobytes(),
    "16 text.ppm": b"P2 16 1 65535 " + " ".join(map(str, RAMP)).encode(),
}
NO_WHITE = {
    "signed 16": tiff("<i2"),
    "32 bits": tiff("<u4", bits=32),
    "signed 32": tiff(">i4", bits=32),
    "floating-point": tiff("<f4", bits=32),
    "floating-point PPM": b"Pf 16 1 1.0 " + RAMP.astype(">f4").tobytes(),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_eight_bits_are_scaled(name):
    decoded = np.asarray(lsun.decode_image(DEEP[name]))
    assert np.abs(decoded[0].astype(int) - np.arange(16)[:, None] * 17).max() <= 1


@pytest.mark.parametrize("name", NO_WHITE)
def test_numbers_without_a_known_white_are_no_image(name):
    with pytest.raises(lsun.CorruptRecord, match=r"mode [IF]\).*8 or 16 bits"):
        lsun.decode_image(NO_WHITE[name])


def test_lack_of_memory_is_not_a_corrupt_record(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        lsun.decode_image(DEEP["16.png"])
