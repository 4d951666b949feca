"""A folder and a zip of pictures: what an LMDB of the same pictures gives, and one line for what cannot be read."""

import contextlib
import io
import json
import os
import random
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from blurdiff import cli
from blurdiff.data import files, lsun, unfinished
from blurdiff.data.preprocess import preprocess, squash
from blurdiff.data.sources import SOURCES
from blurdiff.errors import UserError
from pictures import encode, key, noise

pytestmark = pytest.mark.usefixtures("in_process")


def picture(seed, kind="PNG", size=(30, 20)):
    return encode(noise(np.random.default_rng(seed), *size), kind)


# In the order in which they are to be read: that of the names' bytes.
PICTURES = {
    "00000/img00000000.png": picture(0),
    "00000/img00000001.png": picture(1, size=(20, 30)),
    "B.JPG": picture(2, "JPEG", (31, 20)),
    "a b/deep/er/x.webp": picture(3, "WEBP"),
    "a-b.gif": picture(4, "GIF"),
    "a/b.tif": picture(5, "TIFF", (7, 12)),
    "a/c.png": picture(6, "JPEG"),  # what it is, not what it is called
    "ärger/été.bmp": picture(7, "BMP"),
    "дом.ppm": picture(8, "PPM"),
    "写真/山.jp2": picture(9, "JPEG2000"),
    "🏠.avif": picture(10, "AVIF", (20, 30)),
}
BESIDE = {
    "dataset.json": b'{"labels": null}',
    "00000/labels.txt": b"0",
    "no suffix": picture(11),
    ".hidden.png": picture(12),
    ".thumbnails/x.png": picture(13),
    "a/._b.tif": b"AppleDouble",
}
GOOD = {f"{n}.png": picture(n) for n in range(5)}


@pytest.fixture
def write(tmp_path):
    """A function that writes names and contents as a data set of a kind, and returns its path."""

    def write_files(kind, contents, method=zipfile.ZIP_STORED):
        path = tmp_path / f"pictures.{kind}"
        items = list(contents.items())
        random.Random(0).shuffle(items)
        if kind == "zip":
            with zipfile.ZipFile(path, "w", method) as archive:
                for name, value in items:
                    archive.writestr(name, value)
        for name, value in items if kind == "folder" else ():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(value)
        return path

    return write_files


def run(source, kind, out, **options):
    options = {"resolution": 8, "workers": 1, "label": "pictures"} | options
    manifest = preprocess(source, out / "images.npy", out / "manifest.json", kind=kind, **options)
    return manifest, (out / "images.npy").read_bytes()


@pytest.mark.parametrize("crop", [None, "center"])
def test_all_kinds_give_the_same_array(write_lmdb, write, tmp_path, crop, capsys):
    lmdb = write_lmdb({key(n): value for n, value in enumerate(PICTURES.values())})
    expected = run(lmdb, "lmdb", tmp_path / "of lmdb", crop=crop)
    folder, stored = write("folder", PICTURES | BESIDE), write("zip", PICTURES | BESIDE)
    made = {kind: run(path, kind, tmp_path / f"of {kind}", crop=crop) for kind, path in
            {"folder": folder, "zip": stored}.items()}  # fmt: skip
    made["deflated"] = run(write("zip", PICTURES, zipfile.ZIP_DEFLATED), "zip", tmp_path / "deflated", crop=crop)
    for manifest, content in made.values():
        assert content == expected[1]
        assert vars(manifest) | {"source": ""} == vars(expected[0]) | {"source": ""}
    assert expected[0].n_used == len(PICTURES) and expected[0].crop == crop
    # And it is what torchvision makes of the files.
    images = []
    for value in PICTURES.values():
        image = Image.open(io.BytesIO(value)).convert("RGB")
        images.append(np.asarray(Resize((8, 8))(CenterCrop(min(image.size))(image) if crop else image)))
    assert np.array_equal(np.load(tmp_path / "of zip" / "images.npy"), np.stack(images))
    notes = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(notes) == 2  # what is hidden is not told of
    assert all("00000/labels.txt, dataset.json, no suffix (3 in all)" in line for line in notes)


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (64, 67), (341, 256), (3, 1000), (1, 2), (8, 9), (13, 8)])
def test_the_crop_is_torchvisions(size):
    image = Image.open(io.BytesIO(picture(0, size=size)))
    expected = Resize((8, 8))(CenterCrop(min(size))(image))
    assert squash(image, 8, "center").tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_order_is_that_of_the_names(write, kind, monkeypatch):
    """Whatever the file system's is."""
    path, scandir = write(kind, PICTURES), os.scandir
    for seed in range(3):

        def shuffled(folder, seed=seed):
            with scandir(folder) as entries:
                return contextlib.nullcontext(random.Random(seed).sample(found := list(entries), len(found)))

        monkeypatch.setattr(os, "scandir", shuffled)
        reader = getattr(files, kind.capitalize())(path)
        assert [record.key for record in reader.records(0, 100)] == list(PICTURES) == sorted(PICTURES)
        assert [record.key for record in reader.records(2, 4, "00000/img00000001.png")] == list(PICTURES)[2:4]


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_parts_and_a_limit(write, tmp_path, kind, part):
    path = write(kind, PICTURES)
    whole = np.frombuffer(run(path, kind, tmp_path / "whole")[1][128:], np.uint8).reshape(-1, 8, 8, 3)
    manifest, content = run(path, kind, tmp_path / "part", part=(part, 3), max_images=9)
    assert content[128:] == whole[3 * part : 3 * part + 3].tobytes()
    assert (manifest.n_keys, manifest.max_images, manifest.state["entries"]) == (11, 9, 11)


BAD = {
    "empty.png": (b"", "empty"),
    "half.jpg": (picture(0, "JPEG")[:300], "runcated"),
    "text.webp": (b"<html>404</html>", "known format"),
    "写真/half.png": (picture(0)[:600], "runcated"),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_bad_files_are_left_out_and_named(write, tmp_path, kind, capsys):
    path = write(kind, GOOD | {name: value for name, (value, _) in BAD.items()})
    with pytest.raises(UserError) as caught:
        run(path, kind, tmp_path / "out", max_corrupt_fraction=0.1)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "empty.png" in message and "--max-corrupt-fraction" in message
    assert not (tmp_path / "out" / "images.npy").exists()
    manifest, content = run(path, kind, tmp_path / "out", max_corrupt_fraction=0.5)
    assert "going on after record 9 of 9" in capsys.readouterr().err
    assert [record["key"] for record in manifest.skipped] == list(BAD)
    for record in manifest.skipped:
        assert BAD[record["key"]][1] in record["reason"]
    for name in BAD:
        (path / name).unlink() if kind == "folder" else None
    good = path if kind == "folder" else write(kind, GOOD)
    assert content[128:] == run(good, kind, tmp_path / "good")[1][128:]


def test_what_only_a_folder_has(write, tmp_path):
    """Links, to files, folders and nothing; a name that is no UTF-8; a pipe, which nobody may wait for."""
    path, outside = write("folder", GOOD), tmp_path / "outside"
    outside.mkdir()
    (outside / "x.png").write_bytes(PICTURES["a/b.tif"])
    (path / "a").symlink_to(outside)
    (path / "b.png").symlink_to(outside / "x.png")
    (path / "c.png").symlink_to(outside / "gone.png")
    os.mkfifo(path / "d.png")
    (path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    manifest, _ = run(path, "folder", tmp_path / "out", max_corrupt_fraction=0.5)
    assert manifest.n_used == 7
    assert manifest.skipped[0] == {"key": "c.png", "reason": "a link to a file that is not there"}
    assert manifest.skipped[1]["key"] == os.fsdecode(b"caf\xe9.png")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"] == manifest.skipped
    (outside / "loop").symlink_to(path)
    with pytest.raises(UserError, match="a/loop is a link to a folder that it lies in"):
        run(path, "folder", tmp_path / "out")


def test_what_only_a_zip_has(write, tmp_path, monkeypatch):
    """A member with a flipped byte, stored or deflated, and one whose header is gone."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write("zip", GOOD, method)
        with zipfile.ZipFile(path) as archive:
            at = {entry.filename: entry.header_offset for entry in archive.infolist()}
        content = bytearray(path.read_bytes())
        content[at["1.png"] + 500] ^= 255
        content[at["3.png"]] ^= 255
        path.write_bytes(content)
        manifest, _ = run(path, "zip", tmp_path / "out", max_corrupt_fraction=0.5)
        reasons = {record["key"]: record["reason"] for record in manifest.skipped}
        assert list(reasons) == ["1.png", "3.png"]
        assert "in the zip" in reasons["3.png"]
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    for kind in ("folder", "zip"):
        with pytest.raises(UserError, match="0.png: too large"):
            run(write(kind, GOOD), kind, tmp_path / "out")


def encrypted(path):
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.rindex(signature) + place] |= 1
    path.write_bytes(content)


def twice(path):
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("3.png", b"")


def bzipped(path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.png", bytes(1000))


def emptied(path):
    shutil.rmtree(path)
    path.mkdir()


def without_pictures(path):
    emptied(path)
    for name in ("raw.heic", "data.mdb", "b", "c"):
        (path / name).touch()


def replaced(path):
    shutil.rmtree(path)
    path.touch()


UNUSABLE = {
    "folder": [
        (emptied, "no pictures.*nothing else"), (without_pictures, r"no pictures.*4 other files \(b, c, data.mdb, …"),
        (replaced, "a file, not a folder"), (shutil.rmtree, "is missing"),
    ],
    "zip": [
        (encrypted, "encrypted; make the zip again"), (twice, "3.png stands there twice"),
        (bzipped, "x.png is compressed by method 12"), (lambda path: path.write_bytes(b""), "no whole zip"),
        (lambda path: os.truncate(path, 4000), "no whole zip"),
        (lambda path: path.write_bytes(path.read_bytes()[3000:]), "no whole zip .its beginning"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "no pictures"),
        (lambda path: path.unlink(), "cannot read .*correct the path"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder, not a zip"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "match"), [(kind, *case) for kind in UNUSABLE for case in UNUSABLE[kind]])
def test_what_cannot_be_read_as_a_whole_is_one_line(write, tmp_path, kind, spoil, match, capsys):
    path = write(kind, GOOD)
    spoil(path)
    with pytest.raises(UserError, match=match) as caught:
        run(path, kind, tmp_path / "out", max_corrupt_fraction=1)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def renamed(path):
    os.rename(path / "a" / "b.tif", path / "a" / "bb.tif")


def rewritten(path):
    (path / "a" / "b.tif").write_bytes(picture(20))


def added(path):
    (path / "a" / "new").mkdir()
    (path / "a" / "new" / "x.png").write_bytes(picture(20))


def repacked(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("z.png", picture(20))


CHANGES = [("folder", renamed), ("folder", rewritten), ("folder", added), ("zip", repacked)]


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_files_that_change_on_the_way(write, tmp_path, kind, change, monkeypatch, capsys):
    """While they are read, it is an error; between two runs, the work starts anew."""
    path, add = write(kind, PICTURES), unfinished.Unfinished.add

    def add_and_change(self, *arguments):
        add(self, *arguments)
        change(path)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.Unfinished, "add", add_and_change)
        with pytest.raises(UserError, match="changed while it was read"):
            run(path, kind, tmp_path / "out")
    made = run(path, kind, tmp_path / "out")
    assert "it is made anew" in capsys.readouterr().err
    assert made == run(path, kind, tmp_path / "fresh")


def test_a_file_that_disappears_is_no_bad_picture(write, tmp_path):
    path = write("folder", GOOD)
    reader = files.Folder(path)
    [record] = reader.records(2, 3)
    (path / "2.png").unlink()
    with pytest.raises(UserError, match="2.png is gone"):
        reader.read(record)


@pytest.mark.parametrize(("stored", "name"), [("日本.png".encode(), "日本.png"), (b"caf\x82.png", "café.png")])
def test_names_of_programs_that_do_not_say_how_they_are_written(stored, name):
    assert files.name_of(zipfile.ZipInfo(stored.decode("cp437"))) == name


def test_suffixes_are_those_of_the_formats_that_are_decoded():
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in lsun.FORMATS}
    assert known == set(files.SUFFIXES)


def test_one_source_is_asked_for(tmp_path, capsys):
    outputs = ["--resolution", "8", "--output", str(tmp_path / "x.npy"), "--manifest", str(tmp_path / "x.json")]
    for sources in ([], ["--folder", "a", "--zip", "b"]):
        with pytest.raises(SystemExit):
            cli.main(["preprocess", *sources, *outputs])
        error = capsys.readouterr().err
        assert all(f"--{SOURCES[name].option}" in error for name in SOURCES)
