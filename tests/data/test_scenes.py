import hashlib
import io
from contextlib import closing

import lmdb
import numpy as np
import pytest
from PIL import Image

from blurdiff import cli
from blurdiff.config import made
from blurdiff.data import lsun, scenes
from blurdiff.data.preprocess import squash
from blurdiff.data.scenes import draw_image, synthesize
from blurdiff.data.synthetic import churchyard
from blurdiff.errors import UserError


def records(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


@pytest.fixture(scope="module", params=["bedroom", "church"])
def drawn(request):
    return request.param, [draw_image(request.param, 0, index) for index in range(60)]


def test_the_lmdb_is_one_of_lsuns(tmp_path):
    folder = tmp_path / "new" / "church_lmdb"
    synthesize("church", folder, 7, seed=3, workers=1)
    assert sorted(path.name for path in folder.parent.rglob("*")) == ["church_lmdb", "data.mdb", "scenes.json"]
    assert made.settings_in(folder / "data.mdb") == {"synthetic": "church", "n_images": 7, "seed": 3}
    with closing(lsun.Lmdb(folder)) as reader:
        assert len(list(reader.records(0, 9))) == reader.identify()["entries"] == 7
    for key, value in records(folder).items():
        assert key.decode() == hashlib.sha1(value).hexdigest()
        assert Image.open(io.BytesIO(value)).format == "WEBP"
        assert min(lsun.decode_image(value).size) in scenes.SHORT_SIDES


def test_an_image_depends_on_kind_seed_and_index_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "CHUNK", 4)
    synthesize("bedroom", tmp_path / "one_lmdb", 10, seed=1, workers=1)
    synthesize("bedroom", tmp_path / "two_lmdb", 10, seed=1, workers=2)
    synthesize("bedroom", tmp_path / "fewer_lmdb", 5, seed=1, workers=1)
    one = (tmp_path / "one_lmdb" / "data.mdb").read_bytes()
    assert one == (tmp_path / "two_lmdb" / "data.mdb").read_bytes()
    assert records(tmp_path / "fewer_lmdb").items() <= records(tmp_path / "one_lmdb").items()
    expected = {hashlib.sha1(scenes.draw_files("bedroom", 1, [index])[0]).hexdigest() for index in range(10)}
    assert {key.decode() for key in records(tmp_path / "one_lmdb")} == expected


def test_what_was_there_is_replaced_or_kept(tmp_path, monkeypatch):
    folder = tmp_path / "bedroom_lmdb"
    synthesize("bedroom", folder, 3, workers=1)
    before = (folder / "data.mdb").read_bytes()

    def interrupted(*_):
        yield [b"an image"]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scenes, "ordered_map", interrupted)
        synthesize("bedroom", folder, 40, workers=1)
    assert (folder / "data.mdb").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["data.mdb", "scenes.json"]
    synthesize("bedroom", folder, 5, workers=1)
    assert len(records(folder)) == 5


def test_no_image_is_empty_and_the_set_is_varied(drawn):
    kind, images = drawn
    assert len({image.tobytes() for image in images}) == 60
    assert len({image.size for image in images}) > 20
    assert draw_image(kind, 0, 5).tobytes() == images[5].tobytes() != draw_image(kind, 1, 5).tobytes()
    pixels = np.stack([np.asarray(squash(image, 32), float) / 255 for image in images])
    grey = pixels.mean(axis=3)
    assert (grey.std(axis=(1, 2)) > 0.04).all()
    assert 0.35 < pixels.mean() < 0.65  # LSUN bedrooms have 0.52, photographs of churches 0.42
    assert pixels.mean(axis=(1, 2, 3)).std() > 0.04
    assert np.isin(pixels, (0, 1)).mean() < 0.1
    # The mean image explains little: the scenes are not one scene with other colours.
    assert (grey - grey.mean(axis=0)).var() > 0.5 * grey.var()


def test_the_spectrum_is_that_of_photographs(drawn):
    """Power over spatial frequency falls with an exponent near -3 as measured here on LSUN bedrooms and on churches."""
    grey = np.stack([np.asarray(squash(image, 32).convert("L"), float) for image in drawn[1]])
    window = np.hanning(32)[:, None] * np.hanning(32)
    power = (np.abs(np.fft.fft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    radius = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)) * 32
    rings = [power[np.abs(radius - k) < 0.5].mean() for k in range(2, 16)]
    slope = np.polyfit(np.log(np.arange(2, 16)), np.log(rings), 1)[0]
    assert -3.5 < slope < -2.4


def test_by_day_the_sky_over_a_church_is_brighter_than_the_ground_and_bluer(monkeypatch):
    monkeypatch.setattr(churchyard, "WEATHERS", {"clear": churchyard.WEATHERS["clear"]})
    monkeypatch.setattr(churchyard, "SEASONS", {"summer": 1})
    pixels = np.stack([np.asarray(squash(draw_image("church", 0, index), 32), float) for index in range(40)])
    sky, ground = pixels[:, :4, [*range(6), *range(-6, 0)]], pixels[:, -4:]
    sky, ground = (part.mean(axis=(1, 2)) for part in (sky, ground))
    assert (sky.mean(axis=1) > ground.mean(axis=1)).mean() > 0.8
    assert (sky[:, 2] - sky[:, 0] > ground[:, 2] - ground[:, 0]).mean() > 0.85


@pytest.mark.parametrize(("option", "value"), [("n_images", 0), ("workers", 0), ("seed", -1)])
def test_numbers_out_of_range_name_the_option(tmp_path, option, value):
    options = {"n_images": 2, "workers": 1, "seed": 0} | {option: value}
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')}"):
        synthesize("church", tmp_path / "church_lmdb", **options)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, capsys):
    arguments = ["synthesize", "--kind", "church", "--n-images", "2", "--workers", "1", "--output"]
    assert cli.main([*arguments, str(tmp_path / "church_lmdb")]) == 0
    assert len(records(tmp_path / "church_lmdb")) == 2
    (tmp_path / "file").write_text("")
    assert cli.main([*arguments, str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot write")
