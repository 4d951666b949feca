"""A model as a thing to use: `blurdiff.load_model`, `blurdiff draw`, and settings that come from the model's file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import blurdiff
from blurdiff.cli import main
from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import with_keys
from blurdiff.errors import UserError
from blurdiff.reporting.mosaic import mosaic
from blurdiff.reporting.sheets import GAP, save_sheet
from blurdiff.sampling.sample import sample_shard

torch.set_num_threads(1)
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
LINE = ["--n", "3", "--output", "grid.png"]


@pytest.fixture
def path(straight, tmp_path, monkeypatch):
    """A trained model, alone in the folder where the test works."""
    monkeypatch.chdir(tmp_path)
    return shutil.copy(straight / "model.safetensors", "model.safetensors")


@pytest.fixture
def model(path):
    return blurdiff.load_model(path, device="cpu")


def refusal(capsys, *words):
    """The one line with which `draw` ends; nothing is made then."""
    before = sorted(Path().iterdir())
    assert main(["draw", *words]) == 1
    assert sorted(Path().iterdir()) == before
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def rewritten(path, change):
    """The model with the settings in its file changed by `change`; without any if that returns None."""
    with safetensors.safe_open(path, "pt") as file:
        settings = change(json.loads(file.metadata()["settings"]))
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, "other.safetensors", settings and {"settings": json.dumps(settings)})
    return "other.safetensors"


def test_the_documented_session(path):
    [code] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    code = code.replace("steps=25", "steps=5")  # a tiny model has 20
    exec(code, made := {})
    assert made["images"].shape == made["guess"].shape == (36, 8, 8, 3)
    assert (made["images"].dtype, made["guess"].dtype) == (np.uint8, np.float32)
    assert made["images"].std() > 5


@pytest.mark.parametrize("prediction", ["epsilon", "gaussian"])
def test_samples_are_those_of_the_stage(settings, train, tmp_path, prediction):
    settings["process"]["prediction"], settings["seed"] = prediction, 5
    assert train(settings) == 0
    path = tmp_path / "run" / "model.safetensors"
    model = blurdiff.load_model(path, device="cpu")
    images = model.sample(3, steps=6, seed=5)
    assert np.array_equal(images, model.sample(3, steps=6, seed=5))
    assert not np.array_equal(images, model.sample(3, steps=6, seed=6))
    stage = complete_settings(settings)
    keys = {"sampler": "ancestral", "n_steps": 6, "shard_size": 3, "batch_size": 3, "n_strip": 1, "n_snapshots": 2}
    found = [sample_shard(with_keys(stage, "sampling", start=start, **keys), str(path), 0, 1)["arr_0"]
             for start in ("prior", "noise")]  # fmt: skip
    assert np.array_equal(images, found[0])
    assert np.array_equal(images, found[1]) == (prediction == "epsilon")


def test_more_images_than_a_batch(model):
    images = model.sample(70, steps=2)
    assert images.shape == (70, 8, 8, 3)
    assert np.array_equal(images[:64], model.sample(64, steps=2))
    assert len({image.tobytes() for image in images}) == 70
    assert len(model.sample(1)) == 1  # 25 steps would be more than its 20 timesteps


def test_denoise_undoes_diffuse(model):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    assert np.allclose(model.diffuse(images, 0), images / 255, atol=1e-5)
    noisy = model.diffuse(images, 1, seed=1)
    assert noisy.dtype == np.float32 and not np.array_equal(noisy, model.diffuse(images, 1, seed=2))
    # What a network gets wrong of the noise, σ of it is wrong in the image.
    sigma = float(model.settings.process.beta_1) ** 0.5
    assert 0 < np.abs(model.denoise(noisy, 1) - images / 255).mean() < 2 * sigma
    wrong = [np.abs(model.denoise(model.diffuse(images, i), i) - images / 255).mean() for i in (1, 5, 10)]
    assert wrong == sorted(wrong)
    # uint8 is the same on another scale.
    rounded = model.denoise(images, 3)
    exact = model.denoise((images / 255).astype(np.float32), 3)
    assert rounded.dtype == np.uint8 and np.abs(exact.clip(0, 1) * 255 - rounded).max() <= 0.51


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.sample(0), "n: 0"),
        (lambda m: m.sample(2.0), "n: 2.0"),
        (lambda m: m.sample(2, seed=-1), "seed: -1"),
        (lambda m: m.denoise(np.zeros((1, 8, 8, 3)), 0), "i: 0 .* 1 to 20"),
        (lambda m: m.denoise(np.zeros((8, 8, 3)), 1), r"\(n, 8, 8, 3\), not \(8, 8, 3\)"),
        (lambda m: m.denoise(np.zeros((1, 8, 8, 3), int), 1), "not int64"),
        (lambda m: blurdiff.load_model("model.safetensors", "tpu"), "device: 'tpu'"),
    ],
)
def test_calls_that_cannot_work(model, call, words):
    with pytest.raises(UserError, match=words):
        call(model)


def test_the_command_makes_the_images_of_python(path, model, capsys):
    outputs = ["--folder", "pictures", "--npz", "images.npz"]
    line = ["draw", path, *LINE, "--seed", "4", "--sampler", "ddim", "--steps", "3", "--grid", "quadratic"]
    assert main([*line, "--device", "cpu", *outputs]) == 0
    said = capsys.readouterr()
    assert "grid.png, pictures, images.npz: 3 images of 8×8 pixels" in said.out
    assert "3/3" in said.err  # the bar
    images = model.sample(3, 3, 4, "ddim", "quadratic")
    assert np.array_equal(np.load("images.npz")["arr_0"], images)
    assert sorted(p.name for p in Path("pictures").iterdir()) == ["000.png", "001.png", "002.png"]
    assert np.array_equal(np.asarray(Image.open("pictures/001.png")), images[1])
    first = Path("grid.png").read_bytes()
    assert main([*line, "--device", "cpu"]) == 0
    assert Path("grid.png").read_bytes() == first


def test_an_animation_leads_to_the_images_of_the_sheet(path, model, capsys):
    line = ["draw", path, "--n", "8", "--steps", "4", "--device", "cpu", "--animation"]
    assert main([*line, "a.webp", "--npz", "images.npz"]) == 0
    assert "images.npz, a.webp: 8 images" in capsys.readouterr().out
    with Image.open("a.webp") as image:
        assert (image.n_frames, image.info["loop"]) == (5, 0)
        image.seek(4)
        last = np.asarray(image.convert("RGB").convert("L")).astype(float)
    images = np.load("images.npz")["arr_0"]
    assert np.array_equal(images, model.sample(8, 4))
    way = model.way(4)
    model.sample(8, 4, way=way)
    strip = way.arrays()
    assert strip["strip_timesteps"].tolist() == [20, 15, 10, 5, 0]
    assert np.array_equal(np.rint(strip["strip_x"][-1].clip(0, 1) * 255), images[:6])
    factor = 800 // 6 // 8  # six columns within 800 pixels
    shown = mosaic(
        images[None, :6], factor, 4
    )  # the lower row; above it, what goes beyond a pixel's range is shown too
    shown = np.asarray(Image.fromarray(shown).convert("L")).astype(float)
    top, left = last.shape[0] - 2 * 16 - shown.shape[0], 33
    assert np.abs(last[top : top + shown.shape[0], left : left + shown.shape[1]] - shown).mean() < 6
    assert main([*line, "b.webp"]) == 0
    assert Path("a.webp").read_bytes() == Path("b.webp").read_bytes()


def test_a_sheet(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9], [0, 99, 0]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (5, 30, 30, 3))
    save_sheet(images, tmp_path / "sheet.png")
    sheet, side = np.asarray(Image.open(tmp_path / "sheet.png")), 5 * 30  # the first multiple of 30 from 128 on
    assert sheet.shape == (2 * side + GAP, 3 * side + 2 * GAP, 3)
    cells = [
        sheet[row * (side + GAP) :, column * (side + GAP) :][:side, :side] for row in (0, 1) for column in (0, 1, 2)
    ]
    save_sheet(np.zeros((1000, 30, 30, 3), np.uint8), tmp_path / "large.png")
    assert Image.open(tmp_path / "large.png").width == 32 * (4 * 30 + GAP) - GAP
    for cell, colour in zip(cells, [*colours, [255] * 3], strict=True):
        assert (cell == colour).all()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--sampler", "dimm"], "sampler: 'dimm' is not one of reverse-diffusion, ancestral"),
        (["--grid", "even"], "grid: 'even' is not one of uniform"),
        (["--steps", "21"], "steps: 21 must be a whole number from 1 to 20"),
        (["--n", "0"], "n: 0"),
        (["--output", "grid.jpg"], "--output grid.jpg: must end in .png"),
        (["--output", "model.safetensors/grid.png"], "cannot write model.safetensors/grid.png"),
        (["--folder", "model.safetensors"], "model.safetensors exists already"),
        (["--npz", "images"], "--npz images: must end in .npz"),
        (["--animation", "way.gif"], "--animation way.gif: must end in .webp"),
        (["--settings", '{"process": {"f_type": "log", "f_N": 0.5}}'], "was made with process.f_type quartic"),
    ],
)
def test_command_lines_that_cannot_work(path, capsys, words, wanted):
    assert wanted in refusal(capsys, path, *LINE, "--device", "cpu", *words)


def test_nothing_to_make(path, capsys):
    assert "--output, --folder, --npz or --animation" in refusal(capsys, path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu(path, capsys):
    assert "no GPU here; set device to cpu" in refusal(capsys, path, *LINE, "--device", "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(path, model):
    on_gpu, noisy = blurdiff.load_model(path), model.diffuse(model.sample(2), 5)
    assert on_gpu.sample(2).shape == (2, 8, 8, 3)
    assert np.allclose(on_gpu.denoise(noisy, 5), model.denoise(noisy, 5), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda s: None, "does not say which resolution and process and network"),
        (lambda s: {"resolution": 8, "network": s["network"]}, "does not say which process"),
        (lambda s: {**s, "process": {**s["process"], "family": "ihdm"}}, "ihdm is a forward process only"),
        (lambda s: {**s, "process": {**s["process"], "colour": 1}}, "process.colour: unknown key"),
        (lambda s: [1], "not a readable safetensors file"),
    ],
)
def test_files_that_do_not_say_enough(path, capsys, change, wanted):
    other = rewritten(path, change)
    line = refusal(capsys, other, *LINE)
    assert other in line and wanted in line


@pytest.mark.parametrize("content", [None, b"no model", b"\xff" * 100])
def test_files_that_are_no_model(path, capsys, content):
    if content:
        Path("notes.txt").write_bytes(content)
    what = "is not a readable safetensors file" if content else "is missing"
    assert f"notes.txt {what}" in refusal(capsys, "notes.txt", *LINE)


def test_settings_say_what_the_file_does_not(path, model):
    """As with a model of `import-checkpoint` that was told its resolution alone."""
    process = {}
    other = rewritten(path, lambda s: process.update(s["process"]) or {"resolution": 8, "network": s["network"]})
    again = blurdiff.load_model(other, "cpu", json.dumps({"process": process}))
    assert np.array_equal(again.sample(2), model.sample(2))


def test_sample_reads_its_settings_from_the_file(path, settings):
    Path("run.json").write_text(json.dumps(settings))
    for name, more in (("given", ["--settings", "run.json"]), ("own", [])):
        line = ["sample", "--model", path, "--shard", "0", "--output", f"{name}.npz", *more]
        assert main(line) == 0
    assert Path("given.npz").read_bytes() == Path("own.npz").read_bytes()
    more = ["--settings", json.dumps({**settings, "resolution": 16})]
    assert main(["sample", "--model", path, "--shard", "0", "--output", "no.npz", *more]) == 1
    assert not Path("no.npz").exists()
