"""The stage `figure`: every figure is drawn, says its scale, is the same each time, and refuses bad input."""

import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from blurdiff.cli import main
from blurdiff.config.runs import complete_settings
from blurdiff.diffusion.families import build_process, power_of
from blurdiff.reporting.curves import thin, training_curves
from blurdiff.reporting.factor import log_factor
from blurdiff.reporting.figures import FIGURES
from blurdiff.reporting.forward import forward_process, forward_states
from blurdiff.reporting.inputs import LOSSES
from blurdiff.reporting.strips import display

STILL = [name for name, figure in FIGURES.items() if figure.formats == ("png", "pdf")]
OF_THE_PROCESS = ("figure4", "factor")  # these show no data set


@pytest.fixture
def draw(tmp_path, capsys):
    """Run the stage `figure`; gives (status, PNG, PDF, caption, error text)."""

    def call(name, runs, paths, *options, folder="figures"):
        outputs = [tmp_path / folder / f"{name}.{suffix}" for suffix in ("png", "pdf", "md")]
        inputs = [word for kind in FIGURES[name].inputs for word in (f"--{kind}", *paths[kind])]
        targets = [
            word for pair in zip(("--output", "--pdf", "--caption"), map(str, outputs), strict=True) for word in pair
        ]
        status = main(["figure", "--name", name, "--settings", json.dumps(runs), *inputs, *targets, *options])
        if status:
            assert not any(path.exists() for path in outputs)
            return status, None, None, None, capsys.readouterr().err
        png, pdf, caption = outputs
        return status, png.read_bytes(), pdf.read_bytes(), caption.read_text(), ""

    return call


@pytest.fixture
def runs(settings):
    """Two data sets; schedules, a direction and a second seed."""
    return [
        settings("bedroom", "none", 0.0),
        settings("bedroom", "log", 0.6),
        settings("church"),
        settings("church", seed=1),
        settings("church", direction="fine-to-coarse"),
    ]


def pdf_text_operators(pdf: bytes) -> bytes:
    """The decompressed streams of a PDF."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    return b"".join(zlib.decompressobj().decompress(stream) for stream in streams if stream[:1] == b"\x78")


@pytest.mark.parametrize("name", STILL)
def test_figures_are_legible_and_alike_each_time(name, runs, runs_with_files, draw, tmp_path):
    if name in ("training", "figure1"):
        runs = runs[2:]  # these take seconds
    paths = runs_with_files(runs)
    status, png, pdf, caption, _ = draw(name, runs, paths)
    assert status == 0
    again = draw(name, runs, paths, folder="again")
    assert (png, pdf, caption) == again[1:4]
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"CreationDate" not in pdf
    assert b" Tf" in pdf_text_operators(pdf)  # text, not outlines
    if name not in OF_THE_PROCESS:
        assert "synthetic" in caption and "8×8 pixels" in caption
    assert "$" not in caption and caption.endswith(".\n")
    with Image.open(tmp_path / "figures" / f"{name}.png") as image:
        dpi = image.info["dpi"][0]
        assert dpi >= 199 and image.width / dpi <= 6.95
        assert np.asarray(image.convert("L")).std() > 5


def test_bytes_depend_on_no_surroundings(settings, runs_with_files, tmp_path):
    """Other hash seeds, time zones, user styles and a notebook's back end give the same files."""
    (tmp_path / "matplotlibrc").write_text("font.size: 23\naxes.facecolor: red\n")
    odd = {
        "PYTHONHASHSEED": "2",
        "TZ": "Asia/Tokyo",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
    }
    inputs = ["--samples", *runs_with_files([settings()])["samples"], "--settings", json.dumps([settings()])]
    written = []
    for number, surroundings in enumerate([{"PYTHONHASHSEED": "1"}, odd]):
        outputs = [tmp_path / f"{number}.{suffix}" for suffix in ("png", "pdf", "md")]
        targets = ["--output", outputs[0], "--pdf", outputs[1], "--caption", outputs[2]]
        command = [sys.executable, "-m", "blurdiff", "figure", "--name", "figure2", *inputs, *map(str, targets)]
        surroundings["PYTHONPATH"] = os.pathsep.join(sys.path)
        subprocess.run(command, check=True, env={**os.environ, **surroundings})
        written.append([path.read_bytes() for path in outputs])
    assert written[0] == written[1]


def test_sample_grids_show_the_first_samples(runs, runs_with_files, draw, tmp_path):
    paths = runs_with_files(runs[1:3])
    _, _, _, caption, _ = draw("figure2", runs[1:3], paths)
    assert "first 6×6 samples" in caption
    assert "Left: log, f(N) = 0.6; right: quartic, f(N) = 0.1406." in caption
    figure = np.asarray(Image.open(tmp_path / "figures" / "figure2.png").convert("RGB"))
    for path in paths["samples"]:
        images = np.load(path)["arr_0"]
        resolution = images.shape[1]
        factor = next(f for f in range(8, 40) if contains(figure, enlarged(images[0], f)))
        assert all(contains(figure, enlarged(image, factor)) for image in images[:36])
        assert not contains(figure, enlarged(images[36], factor))
        assert f"Enlarged smoothly from {resolution}×{resolution} pixels." in caption


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """A small image as figures show it, by Pillow."""
    size = [side * factor for side in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def contains(figure: np.ndarray, large: np.ndarray) -> bool:
    """Whether `large` stands somewhere in `figure`, pixel for pixel; both (height, width, 3)."""
    figure, large = (each.astype(np.int64) @ [65536, 256, 1] for each in (figure, large))  # one number a pixel
    height, width = large.shape
    starts = figure[: 1 - height, : 1 - width]
    for y, x in np.argwhere((starts == large[0, 0]) & (figure[height - 1 :, width - 1 :] == large[-1, -1])):
        if (figure[y : y + height, x : x + width] == large).all():
            return True
    return False


def test_fewer_samples_make_smaller_grids(runs, runs_with_files, draw):
    paths = runs_with_files(runs[:1])
    np.savez(paths["samples"][0], arr_0=np.load(paths["samples"][0])["arr_0"][:4])
    assert "first 1×4 samples" in draw("figure2", runs[:1], paths)[3]


def test_figure1_says_whether_the_noise_is_the_same(settings, runs_with_files, draw):
    runs = [settings(f_type="none", f_N=0.0), settings()]
    paths = runs_with_files(runs)
    assert "same noise" not in draw("figure1", runs, paths)[3]
    first, second = (dict(np.load(path)) for path in paths["strips"])
    second["x"][0] = first["x"][0]
    np.savez(paths["strips"][1], **second)
    assert "start from the same noise" in draw("figure1", runs, paths, folder="again")[3]


def test_states_are_displayed_by_one_linear_map_a_timestep():
    rng = np.random.default_rng(0)
    noise, image = rng.normal(size=(1, 64, 64, 3)), rng.uniform(0.2, 0.8, size=(1, 64, 64, 3))
    shown = display(np.stack([noise, image]), 0.0, 1.0)
    # An image within the range keeps its values: no contrast is made up.
    np.testing.assert_array_equal(shown[1], np.rint(image * 255))
    # Noise: 1 % of it is black and 1 % white, and between them grey levels are linear in the values.
    assert (shown[0] == 0).mean() == pytest.approx(0.01, abs=0.003)
    assert (shown[0] == 255).mean() == pytest.approx(0.01, abs=0.003)
    inside = (shown[0] > 0) & (shown[0] < 255)
    slope, offset = np.polyfit(noise[inside], shown[0][inside], 1)
    np.testing.assert_allclose(slope * noise[inside] + offset, shown[0][inside], atol=0.6)


def test_the_forward_figure_shows_a_process_made_from_the_images(settings):
    run = complete_settings(settings(f_type="none", f_N=0.0, snr_tilt=1.0))
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    _, caption = forward_process([run], [images], n_columns=3)
    assert caption.startswith("The forward process of a training image")
    x0, steps, power = images[0] / 255, np.array([10]), power_of(run.process, images)
    _, faded = forward_states(run, x0, steps, seed=0, power=power)
    process = build_process(run.process, 8, power=power)
    alpha, _ = process.alpha_sigma(torch.tensor([10]))
    modes = process.to_modes(torch.from_numpy(x0).float().permute(2, 0, 1)[None])
    expected = process.to_pixels(alpha / process.shared_alpha(torch.tensor([10])) * modes)[0]
    np.testing.assert_allclose(faded[0], expected.permute(1, 2, 0), atol=1e-5)


def test_forward_states_agree_with_the_process_without_noise(settings):
    """Without blur, at any SNR, the blurred image is the image; else the separable blur matrix to the power F(i)."""
    rng = np.random.default_rng(0)
    x0 = rng.uniform(size=(8, 8, 3))
    steps = np.array([0, 7, 20])
    states, blurred = forward_states(complete_settings(settings(f_type="none", f_N=0.0)), x0, steps, seed=0)
    np.testing.assert_allclose(states[0], x0, atol=1e-5)
    np.testing.assert_allclose(blurred, np.broadcast_to(x0, blurred.shape), atol=1e-5)
    shifted = complete_settings(settings(f_type="none", f_N=0.0, snr_shift=3.0))
    _, blurred = forward_states(shifted, x0, steps, seed=0)
    np.testing.assert_allclose(blurred, np.broadcast_to(x0, blurred.shape), atol=1e-5)
    _, blurred = forward_states(complete_settings(settings(f_type="linear", f_N=0.5)), x0, steps, seed=0)
    taps = np.exp(-(np.arange(-7, 8) ** 2) / (2 * 0.4**2))
    taps /= taps.sum()
    matrix = np.array([[taps[7 + column - row] for column in range(8)] for row in range(8)])
    values, vectors = np.linalg.eigh(matrix)
    for step, image in zip(steps, blurred, strict=True):
        F = sum(0.5 * j / 20 for j in range(1, step + 1))
        power = vectors @ np.diag(values**F) @ vectors.T
        np.testing.assert_allclose(image, np.einsum("ab,bcd,ce->aed", power, x0, power), atol=1e-5)


@pytest.mark.parametrize("f_N, direction", [(0, "coarse-to-fine"), (0.5, "coarse-to-fine"), (0.5, "fine-to-coarse")])
def test_the_factor_of_an_error_by_hand(f_N, direction, settings):
    """σ/√Ā from β and the blur matrix: the mode (0, 0) alone in row 0; (0, 1), (1, 0) and (1, 1) in row 1."""
    taps = np.exp(-(np.arange(-7, 8) ** 2) / (2 * 0.4**2))
    matrix = np.array([[taps[7 + column - row] for column in range(8)] for row in range(8)]) / taps.sum()
    d = np.linalg.eigvalsh(matrix)[::-1]
    f_type = "linear" if f_N else "none"
    run = complete_settings(settings("bedroom", f_type, f_N, direction=direction, beta_1=0.01, beta_N=0.01))
    found = log_factor(run.process, 8, np.array([1, 20]))
    assert found.shape == (10, 2)  # √(7² + 7²) = 9.9
    for row, modes in enumerate([[(0, 0)], [(0, 1), (1, 0), (1, 1)]]):
        D = np.array([d[m] * d[n] for m, n in modes])
        A = 0.99 * (D if direction == "coarse-to-fine" else 1 - D) ** (2 * f_N / 20)  # f(1) = f_N/N
        assert found[row, 0] == pytest.approx(np.log10(np.sqrt((1 - A) / A)).mean(), rel=1e-9)
    assert (found[:, 1] > found[:, 0]).all()


def test_the_factor_has_one_panel_for_each_process(settings, draw):
    runs = [
        settings(f_type="none", f_N=0.0),
        settings("church", f_type="none", f_N=0.0, prediction="gaussian", loss="balanced"),
        settings("church", direction="fine-to-coarse"),
        *(settings("church", f_N=f_N) for f_N in (0.2, 0.3, 0.4)),  # a second row of panels, not full
    ]
    status, _, _, caption, _ = draw("factor", runs, {})
    assert status == 0 and caption.count("no blur") == 1 and "gaussian" not in caption
    assert re.search(
        r"power of ten: no blur: -0.3; quartic, f\(N\) = 0.1406, fine-to-coarse: 1.3; quartic, f\(N\) = 0.2: ", caption
    )


@pytest.mark.parametrize("losses", [("epsilon", "epsilon"), ("epsilon", "balanced")])
def test_a_loss_is_called_the_papers_where_all_are(settings, losses):
    runs = [complete_settings(settings(f_N=f_N, loss=loss)) for f_N, loss in zip((0.1, 0.2), losses, strict=True)]
    history = pd.DataFrame({"iteration": np.arange(1, 9)} | {name: np.linspace(1, 0.5, 8) for name in LOSSES})
    figure, caption = training_curves(runs, [history] * 2)
    mixed = losses[0] != losses[1]
    assert ("L_\\epsilon" in figure.axes[0].get_ylabel()) != mixed
    assert ("Each run has its own loss" in caption) == mixed


def test_histories_are_averaged_over_windows_of_equal_ratio():
    history = pd.DataFrame({"iteration": np.arange(1, 1025), "loss": np.arange(1, 1025) * 2.0})
    thinned = thin(history, windows=10)
    assert len(thinned) == 10
    edges = 1025 ** (np.arange(11) / 10)
    inside = [[i for i in range(1, 1025) if low <= i < high] for low, high in zip(edges, edges[1:], strict=False)]
    np.testing.assert_allclose(thinned["iteration"], [np.mean(window) for window in inside])
    np.testing.assert_allclose(thinned["loss"], 2 * thinned["iteration"])


@pytest.mark.parametrize(
    "name, option, damage, word",
    [
        ("figure1", "strips", lambda path: np.savez(path, timesteps=np.arange(3)), "array x "),
        ("figure1", "strips", lambda path: change(path, "x", lambda x: x[:, :, :4]), "array x "),
        ("figure1", "strips", lambda path: change(path, "x0", lambda x: x * np.nan), "array x0"),
        ("figure1", "strips", lambda path: change(path, "timesteps", lambda i: i[::-1]), "timesteps"),
        ("figure2", "samples", lambda path: cut(path), "again"),
        ("figure2", "samples", lambda path: os.remove(path), "again"),
        ("figure2", "samples", lambda path: change(path, "arr_0", lambda x: x[:0]), "uint8"),
        ("figure3", "samples", lambda path: change(path, "arr_0", lambda x: x / 255), "float64"),
        ("samples", "images", lambda path: cut(path), "preprocess"),
        ("samples", "images", lambda path: np.save(path, np.zeros((5, 8, 8), np.uint8)), "(5, 8, 8)"),
        ("forward", "images", lambda path: os.replace(path.replace("images.npy", "samples.npz"), path), "preprocess"),
        ("training", "histories", lambda path: rewrite(path, "loss_q4", "other"), "loss_q4"),
        ("training", "histories", lambda path: rewrite(path, "\n300,", "\n300,,,,,"), "again"),
        ("training", "histories", lambda path: rewrite(path, "\n100,", "\nten,"), "iteration"),
        ("training", "histories", lambda path: rewrite(path, ",0.1,", ",nan,"), "row 1"),
        ("training", "histories", lambda path: os.truncate(path, 0), "again"),
    ],
)
def test_bad_files_are_refused_in_one_line(name, option, damage, word, runs, runs_with_files, draw):
    paths = runs_with_files(runs[:2])
    damage(paths[option][1])
    status, _, _, _, error = draw(name, runs[:2], paths)
    assert status == 1 and error.count("\n") == 1
    assert paths[option][1] in error and word in error


def change(path, name, function):
    """Replace one array of an .npz."""
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, name: function(arrays[name])})


def cut(path):
    """Cut a file's last third off."""
    os.truncate(path, os.path.getsize(path) * 2 // 3)


def rewrite(path, old, new):
    """Replace the first `old` in a text file."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def test_manifests_tell_the_number_of_images(settings, runs_with_files, draw, tmp_path):
    runs = [settings(f_type="none", f_N=0.0), settings(), settings("church")]
    manifests = [tmp_path / f"{name}.json" for name in ("bedroom", "bedroom", "church")]
    for path, n in zip(manifests[1:], (2048, 1234), strict=True):
        path.write_text(json.dumps({"n_used": n, "n_keys": n + 1, "resolution": 8, "synthetic": True}))
    options = ["--manifests", *map(str, manifests)]
    caption = draw("figure4", runs, {}, *options)[3]
    assert caption.endswith("Images to train on: bedroom (synthetic): 2,048; church (synthetic): 1,234.\n")
    manifests[2].write_text(json.dumps({"n_used": 5, "resolution": 8, "synthetic": False}))
    assert "synthetic is False" in draw("figure4", runs, {}, *options, folder="again")[4]
    assert "2 paths for 3 runs" in draw("figure4", runs, {}, *options[:-1], folder="again")[4]


def test_runs_and_paths_must_match(runs, runs_with_files, draw):
    paths = runs_with_files(runs[:2])
    assert "2 paths for 1 runs" in draw("figure2", runs[:1], paths)[4]
    mixed = [runs[0], {**runs[1], "process": {**runs[1]["process"], "range": "symmetric"}}]
    assert "range" in draw("figure1", mixed, paths)[4]
    assert "--image-index 50" in draw("forward", runs[:2], paths, "--image-index", "50")[4]
    assert "--n-images 0" in draw("figure1", runs[:2], paths, "--n-images", "0")[4]


ODD = "a $x_1$ & 5 % <b> ^2_3 \\frac | *c* `d` #1 [e](f)\n second"


@pytest.mark.filterwarnings("error:constrained_layout not applied")
@pytest.mark.parametrize("name", STILL)
def test_a_label_is_text_whatever_stands_in_it(name, settings, runs_with_files, draw, drawn_texts):
    """No part of a data set's label or of a table's name is a formula or markup, in figure and caption."""
    process = {"f_type": "table", "f_table": "odd/b $^2y$ & _c_ %.csv"} if name == "training" else {}
    runs = [settings("bedroom", **process) | {"label": ODD}, settings("church", "log", 0.6) | {"label": ODD}]
    _, _, _, caption, _ = draw(name, runs, runs_with_files(runs))
    label = " ".join(ODD.split()) + " (synthetic)"
    shown = drawn_texts()
    if name in OF_THE_PROCESS:
        assert not any("frac" in text for text in shown)
    elif name not in ("forward", "figure1", "tilts"):
        assert any(label in text for text in shown)
    assert caption.count("\n") == 1
    if name not in OF_THE_PROCESS:
        assert plain_text(caption).count(label) == 1
    if name == "training":
        assert any("table b $^2y$ & _c_ %" in text for text in shown)


@pytest.fixture
def drawn_texts(monkeypatch):
    """A function that gives the texts of all figures drawn so far, as a reader sees them; a formula is left out."""
    seen = []
    real = Text.draw

    def watched(self, renderer):
        text, is_math = self._preprocess_math(self.get_text())
        if not is_math:
            seen.append(" ".join(text.split()))
        real(self, renderer)

    monkeypatch.setattr(Text, "draw", watched)
    return lambda: set(seen)


def plain_text(markdown: str) -> str:
    """What a reader sees of a paragraph of Markdown without markup, which it must be."""
    assert not re.search(r"(?<!\\)(\\\\)*[`*<>&|$\[\]#]", markdown)
    return re.sub(r"\\([^\w\s])", r"\1", markdown)
