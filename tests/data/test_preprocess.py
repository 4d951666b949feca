import hashlib
import json
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.lsun import LSUNClass
from torchvision.transforms import Resize

from blurdiff import cli
from blurdiff.data import lsun, unfinished
from blurdiff.data import preprocess as stage
from blurdiff.data.manifest import read_manifest
from blurdiff.data.preprocess import preprocess, squash
from blurdiff.errors import UserError
from blurdiff.runtime import arrays
from pictures import encode, key


def picture(width, height, seed=0):
    """Smooth and sharp parts: a filter that differs anywhere shows."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(small).copy()
    pixels[rng.random((height, width)) < 0.1] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


RECORDS = {
    key(1): encode(picture(90, 60), "WEBP"),
    key(2): encode(picture(60, 90), "JPEG", quality=95),
    key(3): encode(picture(16, 16), "PNG"),  # has the size already: torchvision leaves it as it is
    key(4): encode(picture(7, 5), "PNG"),  # must grow
    key(5): encode(picture(300, 200), "JPEG"),
    key(6): encode(picture(40, 41).convert("L"), "PNG"),
    key(7): encode(picture(50, 33).quantize(9), "PNG"),
    key(8): encode(picture(50, 33).convert("CMYK"), "JPEG"),
    key(9): encode(picture(50, 33).convert("RGBA"), "PNG"),
    key(10): encode(Image.fromarray(np.arange(1500, dtype=np.uint16).reshape(30, 50) * 40), "PNG"),
    key(11): encode(picture(16, 80), "PNG"),
    key(12): encode(picture(1, 1), "PNG"),
    key(13): encode(picture(50, 33), "GIF", save_all=True, append_images=[picture(50, 33, 1)]),
}


def run(folder, tmp_path, **options):
    output, manifest = tmp_path / "out" / "images.npy", tmp_path / "out" / "manifest.json"
    options = {"resolution": 16, "workers": 1} | options
    return preprocess(folder, output, manifest, **options), np.load(output), manifest, output


def test_bit_for_bit_what_torchvision_makes_of_the_lmdb(write_lmdb, tmp_path, monkeypatch):
    """The whole way: torchvision's LSUN class reads and decodes, its Resize squashes."""
    folder = write_lmdb(RECORDS)
    _, images, _, _ = run(folder, tmp_path)
    monkeypatch.chdir(tmp_path)  # torchvision writes its key cache into the working folder
    dataset = LSUNClass(str(folder), transform=Resize((16, 16)))
    expected = np.stack([np.asarray(image) for image, _ in dataset])
    dataset.env.close()
    assert images.dtype == np.uint8
    deep = list(RECORDS).index(key(10))  # 16 bits, of which torchvision makes white
    kept = [k for k in range(len(RECORDS)) if k != deep]
    assert np.array_equal(images[kept], expected[kept])
    assert expected[deep].mean() > 250 > images[deep].mean()


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (64, 63), (341, 256), (256, 400), (3, 1000), (1, 1), (63, 63)])
@pytest.mark.parametrize("resolution", [1, 32, 64])
def test_squash_is_torchvisions_resize(size, resolution):
    image = picture(*size)
    expected = Resize((resolution, resolution))(image)
    assert squash(image, resolution).tobytes() == expected.tobytes()


def test_the_number_of_workers_changes_nothing(write_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "CHUNK_RECORDS", 3)
    records = {key(n): encode(picture(20 + n % 7, 20, n), "WEBP", quality=50) for n in range(40)}
    records[key(17)] = b"no image"
    folder = write_lmdb(records)
    one = run(folder, tmp_path, workers=1, max_corrupt_fraction=0.1)
    first, text = one[3].read_bytes(), one[2].read_text()
    two = run(folder, tmp_path, workers=3, max_corrupt_fraction=0.1)
    assert two[3].read_bytes() == first
    assert two[2].read_text() == text
    assert len(one[1]) == 39


def test_the_manifest_says_what_was_made(write_lmdb, tmp_path):
    folder = write_lmdb(RECORDS)
    manifest, images, path, output = run(folder, tmp_path, label="thirteen", synthetic=True)
    assert read_manifest(path) == manifest
    assert json.loads(path.read_text()) == {
        "source": str(folder),
        "label": "thirteen",
        "synthetic": True,
        "resolution": 16,
        "crop": None,
        "n_keys": 13,
        "max_images": None,
        "n_used": 13,
        "skipped": [],
        "sha256": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    assert sorted(file.name for file in output.parent.iterdir()) == ["images.npy", "manifest.json"]
    assert run(folder, tmp_path)[0].label == "some_lmdb"


def test_max_images_takes_the_first_keys(write_lmdb, tmp_path):
    folder = write_lmdb(RECORDS)
    everything = run(folder, tmp_path)[1]
    manifest, images, _, _ = run(folder, tmp_path, max_images=4)
    assert np.array_equal(images, everything[:4])
    assert (manifest.n_keys, manifest.n_used, manifest.max_images) == (13, 4, 4)
    assert run(folder, tmp_path, max_images=100)[0].n_used == 13


def test_bad_records_are_left_out_and_named(write_lmdb, tmp_path):
    good = encode(picture(30, 30), "JPEG")
    records = {key(n): encode(picture(30, 30, n), "PNG") for n in range(10)}
    bad = {key(2): b"", key(3): b"text", key(8): good[: len(good) // 2]}
    manifest, images, _, _ = run(write_lmdb(records | bad), tmp_path, max_corrupt_fraction=0.3)
    assert [record["key"] for record in manifest.skipped] == [name.decode() for name in bad]
    assert manifest.skipped[0]["reason"] == "empty value"
    assert all(record["reason"] for record in manifest.skipped)
    assert manifest.n_used == len(images) == 7
    assert manifest.sha256 == hashlib.sha256(images.tobytes()).hexdigest()
    kept = [n for n in range(10) if key(n) not in bad]
    for image, n in zip(images, kept, strict=True):
        assert np.array_equal(image, np.asarray(Resize((16, 16))(picture(30, 30, n))))


def test_too_many_bad_records_are_an_error_and_leave_what_was_there(write_lmdb, tmp_path, capsys):
    records = {key(n): encode(picture(30, 30), "PNG") for n in range(10)} | {key(3): b"text", key(7): b""}
    folder = write_lmdb(records)
    output, manifest = tmp_path / "out" / "images.npy", tmp_path / "out" / "manifest.json"
    output.parent.mkdir()
    output.write_text("older")
    with pytest.raises(UserError) as error:
        preprocess(folder, output, manifest, resolution=16, max_corrupt_fraction=0.1, workers=1)
    message = str(error.value)
    assert str(folder) in message
    assert key(3).decode() in message
    assert "--max-corrupt-fraction" in message
    assert output.read_text() == "older"
    assert sorted(file.name for file in output.parent.iterdir()) == [".images.npy.partial", "images.npy"]
    # What was read is not read again when the fraction is raised.
    assert preprocess(folder, output, manifest, resolution=16, max_corrupt_fraction=0.2, workers=1).n_used == 8
    assert "going on after record 10 of 10: 8 images are there" in capsys.readouterr().err
    assert sorted(file.name for file in output.parent.iterdir()) == ["images.npy", "manifest.json"]


@pytest.mark.parametrize(
    ("records", "match"), [({key(1): b""}, "no record decodes"), (RECORDS | {b"holiday.jpg": b""}, "holiday.jpg")]
)
def test_no_good_record_at_all_and_a_key_that_is_not_hexadecimal_are_errors(write_lmdb, tmp_path, records, match):
    with pytest.raises(UserError, match=match):
        run(write_lmdb(records), tmp_path, max_corrupt_fraction=1)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [("resolution", 0), ("workers", 0), ("max_images", 0), ("max_images", -3), ("max_corrupt_fraction", 1.5),
     ("max_corrupt_fraction", float("nan"))],
)  # fmt: skip
def test_numbers_out_of_range_name_the_option(write_lmdb, tmp_path, option, value):
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')}"):
        run(write_lmdb(RECORDS), tmp_path, **{option: value})


def test_a_disk_that_is_too_small_is_an_error_at_once(write_lmdb, tmp_path):
    with pytest.raises(UserError, match="free; make room"):
        run(write_lmdb(RECORDS), tmp_path, resolution=10_000_000)


def test_lack_of_memory_is_an_error_not_a_skipped_record(write_lmdb, monkeypatch):
    def fail(_):
        raise MemoryError

    folder = write_lmdb(RECORDS)
    monkeypatch.setattr(stage.lsun, "decode_image", fail)
    with closing(lsun.Lmdb(folder)) as reader, pytest.raises(UserError, match=f"memory to decode {key(1).decode()}"):
        stage.read_images(reader, 16, None, list(reader.records(0, 1)))


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """The parent alone, fed with 200 chunks of 1.2 MB: it may hold a few, not all. A record of each is skipped."""
    chunk, bad = np.zeros((100, 64, 64, 3), np.uint8), [{"key": "0" * 40, "reason": "empty value"}]
    work = unfinished.Unfinished(tmp_path, {}, 64)
    with closing(work):
        tracemalloc.start()
        for n in range(200):
            chunk[:] = n
            work.add(chunk, bad, key(n).decode())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * chunk.nbytes
        work.publish(tmp_path / "x.npy")
    images = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert images.shape == (20_000, 64, 64, 3)
    assert np.array_equal(images[:, 5, 5, 1], np.repeat(np.arange(200), 100))
    assert len(work.position.skipped) == 200


def test_a_chunk_in_which_nothing_decodes(write_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "CHUNK_RECORDS", 2)
    records = {key(n): b"" if n in (2, 3, 6, 7) else encode(picture(9, 9, n), "PNG") for n in range(9)}
    manifest, images, _, _ = run(write_lmdb(records), tmp_path, max_corrupt_fraction=0.5)
    assert [record["key"] for record in manifest.skipped] == [key(n).decode() for n in (2, 3, 6, 7)]
    expected = [np.asarray(Resize((16, 16))(picture(9, 9, n))) for n in (0, 1, 4, 5, 8)]
    assert np.array_equal(images, np.stack(expected))


@pytest.mark.parametrize("n_used", [1, 9, 10, 99_999, 3_033_042])
def test_the_header_keeps_its_length_whatever_was_skipped(n_used):
    assert len(arrays.header(n_used, 64)) == len(arrays.header(3_033_042, 64)) == arrays.offset(0, 64)


def test_the_command(write_lmdb, tmp_path, capsys):
    arguments = ["preprocess", "--resolution", "8", "--workers", "1", "--output", str(tmp_path / "images.npy"),
                 "--manifest", str(tmp_path / "manifest.json"), "--lmdb"]  # fmt: skip
    assert cli.main([*arguments, str(write_lmdb(RECORDS))]) == 0
    assert np.load(tmp_path / "images.npy").shape == (13, 8, 8, 3)
    assert "13 images, 0 records skipped" in capsys.readouterr().out
    assert cli.main([*arguments, str(tmp_path / "bedroom_train_lmdb")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
