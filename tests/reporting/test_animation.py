"""Figure 1 that moves: what its frames show, how long and how large it is, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blurdiff.cli import main
from blurdiff.errors import UserError
from blurdiff.reporting import animation, mosaic, strips
from blurdiff.reporting.inputs import read_strips


@pytest.fixture
def draw(settings, runs_with_files, tmp_path, monkeypatch):
    """Run the stage for two runs; gives its status, the runs and the paths of their strips."""
    monkeypatch.chdir(tmp_path)
    runs = [settings("church", "none", 0.0), settings("church") | {"label": "a $x_1$ & \\frac"}]
    paths = runs_with_files(runs)["strips"]

    def call(*options, output="a.webp", runs=runs):
        line = ["figure", "--name", "animation", "--settings", json.dumps(runs), "--strips", *paths]
        return main([*line, "--output", output, "--caption", "a.md", *options]), runs, paths

    return call


def frames_of(path) -> np.ndarray:
    """All frames, uint8 (K, H, W, 3)."""
    with Image.open(path) as image:
        shown = []
        for k in range(image.n_frames):
            image.seek(k)
            shown.append(np.asarray(image.convert("RGB")))
    return np.stack(shown)


def test_frames_lead_from_the_noise_to_the_samples(draw):
    status, runs, paths = draw()
    assert status == 0
    frames, first = frames_of("a.webp"), Path("a.webp").read_bytes()
    read = [read_strips(path, run) for path, run in zip(paths, runs, strict=True)]
    # Columns of 8×8 pixels enlarged to SIDE, below their heads; the last lines are the bar and the timestep.
    factor = animation.SIDE // 8
    low, high = strips.model_range(runs)
    columns = [strips.rows_of(strip, 1, low, high) for strip in read]
    for k in (0, len(read[0].timesteps) - 1):
        sheet = mosaic.mosaic(np.stack([column[:, k] for column in columns], axis=1), factor, 4).astype(float)
        height, width, _ = sheet.shape
        places = [
            (np.abs(frames[k][y : y + height : 5, x : x + width : 5] - sheet[::5, ::5]).mean(), y, x)
            for y in range(frames.shape[1] - height + 1)
            for x in range(frames.shape[2] - width + 1)
        ]
        error, y, x = min(places)
        assert error < 6  # WebP's losses
    bar = frames[:, y + height + 14 : y + height + 20, x:].astype(int)
    blue = ((bar[..., 2] - bar[..., 0]) > 90).any(axis=1).sum(axis=1)
    assert blue[0] == 0 and (np.diff(blue) > 10).all()
    with Image.open("a.webp") as image:
        assert (image.n_frames, image.info["loop"]) == (5, 0)
        durations = [image.seek(k) or image.load() and image.info["duration"] for k in range(5)]
    assert durations == [800, 250, 250, 250, 2500]
    caption = Path("a.md").read_text(encoding="utf-8")
    assert "5 states of each run, of 21 in all" in caption and "from the same" not in caption
    assert draw()[0] == 0 and Path("a.webp").read_bytes() == first


def test_the_caption_says_what_noise_the_runs_start_from(settings, runs_with_files):
    runs = [settings("church", "none", 0.0), settings("church", prediction="gaussian", loss="balanced")]
    read = [read_strips(p, r) for p, r in zip(runs_with_files(runs)["strips"], runs, strict=True)]
    assert strips.start_note(runs, read) == ""
    of_prior = [runs[0], runs[1] | {"sampling": runs[1]["sampling"] | {"start": "prior"}}]
    assert "same draw of noise" in strips.start_note(of_prior, read)
    assert strips.start_note([of_prior[0] | {"seed": 1}, of_prior[1]], read) == ""
    assert "from the same noise" in strips.start_note(of_prior, [read[0], read[0]])


def test_large_frames_are_coded_down_to_the_bound(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    moving = animation.Animation(noise, [10, 10, 10])
    animation.save(moving, tmp_path / "a.webp")
    size = (tmp_path / "a.webp").stat().st_size
    monkeypatch.setattr(animation, "MAX_BYTES", size - 1)
    animation.save(moving, tmp_path / "b.webp")
    assert (tmp_path / "b.webp").stat().st_size < size and len(frames_of(tmp_path / "b.webp")) == 3
    monkeypatch.setattr(animation, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="c.webp: would be larger than 100 bytes"):
        animation.save(moving, tmp_path / "c.webp")
    assert not (tmp_path / "c.webp").exists()


@pytest.mark.parametrize(
    "options, output, word",
    [
        ([], "a.gif", "give --output FILE.webp"),
        (["--pdf", "a.pdf"], "a.webp", "give --output FILE.webp"),
        (["--n-images", "0"], "a.webp", "--n-images 0"),
    ],
)
def test_what_it_refuses(draw, capsys, options, output, word):
    assert draw(*options, output=output)[0] == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and word in error
    assert not Path(output).exists() and not Path("a.md").exists()


def test_strips_of_different_lengths_are_refused(draw, capsys):
    _, _, paths = draw()
    content = dict(np.load(paths[1]))
    np.savez(paths[1], **{name: array[1:] for name, array in content.items()})
    assert draw(output="b.webp")[0] == 1
    assert "n_snapshots" in capsys.readouterr().err and not Path("b.webp").exists()
