"""A data set in parts, made by as many jobs, and joined: byte for byte what one pass gives."""

import json
import shutil

import numpy as np
import pytest

import pictures
from blurdiff import cli
from blurdiff.data.join import join
from blurdiff.data.preprocess import preprocess
from blurdiff.errors import UserError
from pictures import encode, key, noise


def records(n, bad=()):
    rng = np.random.default_rng(0)
    return {key(7 * k): b"bad" if k in bad else encode(noise(rng, 9, 12)) for k in range(n)}


def make_part(folder, source, part, **options):
    paths = folder / f"{part[0]}.npy", folder / f"{part[0]}.json"
    options = {"resolution": 4, "workers": 1, "max_corrupt_fraction": 0.5} | options
    preprocess(source, *paths, part=part, **options)
    return paths


def joined(folder, source, n_parts, fraction=0.5, **options):
    parts = [make_part(folder / "parts", source, (k, n_parts), **options) for k in range(n_parts)]
    arrays, manifests = zip(*parts, strict=True)
    return join(arrays, manifests, folder / "images.npy", folder / "manifest.json", fraction)


pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with three parts of seven records."""
    folder = tmp_path_factory.mktemp("made")
    source = pictures.write_lmdb(folder / "some_lmdb", records(7))
    for k in range(3):
        make_part(folder / "parts", source, (k, 3))
    return folder / "parts"


@pytest.fixture
def three(made, tmp_path):
    """The files of three parts, to be damaged: (arrays, manifests)."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return [[tmp_path / f"{k}.{suffix}" for k in range(3)] for suffix in ("npy", "json")]


@pytest.mark.parametrize(
    ("n", "n_parts", "bad", "max_images"),
    [(10, 3, (), None), (10, 3, (0, 3, 4, 9), None), (9, 2, (1, 2), 5), (3, 5, (), None), (4, 4, (2,), 100),
     (2, 1, (), None)],
)  # fmt: skip
def test_the_parts_are_one_pass(write_lmdb, tmp_path, n, n_parts, bad, max_images):
    source = write_lmdb(records(n, bad))
    options = {"max_images": max_images, "label": "some photos", "synthetic": True}
    manifest = joined(tmp_path, source, n_parts, **options)
    one = tmp_path / "one"
    options |= {"resolution": 4, "workers": 1, "max_corrupt_fraction": 0.5}
    assert preprocess(source, one / "images.npy", one / "manifest.json", **options) == manifest
    for name in ("images.npy", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (one / name).read_bytes()
    assert len(manifest.skipped) == len([k for k in bad if k < (max_images or n)])
    assert manifest.n_used + len(manifest.skipped) == min(n, max_images or n)


def test_a_part_says_what_it_is(three):
    manifest = json.loads(three[1][1].read_text())
    assert (manifest["part"], manifest["parts"], manifest["n_keys"], manifest["n_used"]) == (1, 3, 7, 2)
    assert manifest["state"]["entries"] == 7
    assert len(np.load(three[0][1])) == 2


def test_the_allowed_fraction_is_of_the_whole(write_lmdb, tmp_path):
    """Two bad of twelve are a sixth, although they are two thirds of their part."""
    source = write_lmdb(records(12, bad=(3, 4)))
    manifest = joined(tmp_path, source, 4, max_corrupt_fraction=0.2, fraction=0.2)
    assert len(manifest.skipped) == 2
    with pytest.raises(UserError, match="--max-corrupt-fraction"):
        make_part(tmp_path / "other", source, (1, 4), max_corrupt_fraction=0.1)


@pytest.mark.parametrize(
    ("n", "bad", "fraction", "match"),
    [(12, (0, 11), 0.1, f"2 of 12 records do not decode.*{key(0).decode()}"), (2, (0, 1), 1, "no record decodes")],
)
def test_what_no_part_has_too_much_of_the_whole_may_have(write_lmdb, tmp_path, n, bad, fraction, match):
    with pytest.raises(UserError, match=match):
        joined(tmp_path, write_lmdb(records(n, bad)), 2, max_corrupt_fraction=fraction, fraction=fraction)
    assert not (tmp_path / "images.npy").exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def edit(**changes):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("kind", "damage", "match"),
    [
        ("array", flip, "1.npy is not what its manifest describes"),
        ("array", cut, "1.npy has .* bytes, which does not fit"),
        ("array", lambda path: path.unlink(), "cannot read .*1.npy"),
        ("manifest", lambda path: path.unlink(), "cannot read .*1.json"),
        ("manifest", lambda path: path.write_text(path.read_text()[:40]), "cannot read .*1.json"),
        ("manifest", edit(n_used=3), "1.npy holds 2 images, its manifest says 3"),
        ("manifest", edit(part=2), "1.json is not of part 1 of 3"),
        ("manifest", edit(parts=4), "1.json is not of part 1 of 3"),
        ("manifest", edit(state={}), "different sources or settings"),
        ("manifest", edit(resolution=8), "different sources or settings"),
    ],
)
def test_a_part_that_is_not_right_is_named(three, tmp_path, kind, damage, match):
    arrays, manifests = three
    damage(arrays[1] if kind == "array" else manifests[1])
    (tmp_path / "images.npy").write_text("older")
    with pytest.raises(UserError, match=match):
        join(arrays, manifests, tmp_path / "images.npy", tmp_path / "manifest.json")
    assert (tmp_path / "images.npy").read_text() == "older"
    assert not (tmp_path / "manifest.json").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_parts_must_be_complete_and_in_order(three, tmp_path):
    arrays, manifests = three
    for choice in ([0, 1], [1, 0, 2], [0, 0, 1]):
        with pytest.raises(UserError, match="is not of part"):
            join([arrays[k] for k in choice], [manifests[k] for k in choice], tmp_path / "x.npy", tmp_path / "x.json")
    with pytest.raises(UserError, match="3 files and --manifests 2"):
        join(arrays, manifests[:2], tmp_path / "x.npy", tmp_path / "x.json")


@pytest.mark.parametrize(
    ("options", "match"),
    [(["--part", "3", "--parts", "3"], "--part must be between 0 and 2"),
     (["--part", "-1", "--parts", "3"], "--part must be"), (["--part", "0", "--parts", "0"], "--parts must be 1"),
     (["--part", "0"], "--part and --parts go together"), (["--parts", "2"], "--part and --parts go together")],
)  # fmt: skip
def test_numbers_of_parts_out_of_range(write_lmdb, tmp_path, capsys, options, match):
    out = tmp_path / "out"
    arguments = ["--lmdb", str(write_lmdb(records(2))), "--resolution", "4", "--output", str(out / "x.npy")]
    assert cli.main(["preprocess", *arguments, "--manifest", str(out / "x.json"), *options]) == 1
    assert match in capsys.readouterr().err
    assert not out.exists()


def test_the_commands(write_lmdb, tmp_path, capsys):
    source = write_lmdb(records(3))
    for k in range(2):
        outputs = ["--output", str(tmp_path / f"{k}.npy"), "--manifest", str(tmp_path / f"{k}.json")]
        options = ["--lmdb", str(source), "--resolution", "4", "--workers", "1", "--part", str(k), "--parts", "2"]
        assert cli.main(["preprocess", *options, *outputs]) == 0
    files = ["--parts", *(str(tmp_path / f"{k}.npy") for k in range(2))]
    files += ["--manifests", *(str(tmp_path / f"{k}.json") for k in range(2))]
    outputs = ["--output", str(tmp_path / "images.npy"), "--manifest", str(tmp_path / "manifest.json")]
    assert cli.main(["join-parts", *files, *outputs]) == 0
    assert "3 images, 0 records skipped" in capsys.readouterr().out
    assert np.load(tmp_path / "images.npy").shape == (3, 4, 4, 3)
