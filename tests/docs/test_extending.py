"""docs/extending.md does what it says: its blocks are run, and what they add is used."""

import dataclasses
import importlib
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from blurdiff.cli import main
from blurdiff.config import runs as config
from blurdiff.config import schema as config_schema
from blurdiff.config import settings as known_settings
from blurdiff.data import files, sources
from blurdiff.data.preprocess import read_images
from blurdiff.diffusion import basis, denoiser, samplers, schedules
from blurdiff.diffusion.families import build_process
from blurdiff.reporting import curves, figures, metrics, summaries
from diffusion.diffusion_helpers import at, finite_everywhere, settings
from reporting.fabricated import evaluation_of

ROOT = Path(__file__).resolve().parents[2]
SETTINGS_PATH = "workflow/src/blurdiff/config/settings.py"
KEYS = {"BASES": "basis", "BLUR_SCHEDULES": "f_type", "PREDICTIONS": "prediction", "SAMPLERS": "sampler"}


def blocks(language: str) -> list[tuple[str, str]]:
    """(what the first line's comment names, code) of every fenced block in the document."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n# (\S+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def extended(monkeypatch):
    """The package as it is once the document's Python blocks stand in the files that they name."""
    tables = {basis: "BASES", schedules: "BLUR_SCHEDULES", samplers: "SAMPLERS", denoiser: "PREDICTIONS"}
    for owner, name in (tables | {figures: "FIGURES", summaries: "TABLES", sources: "SOURCES"}).items():
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))
    for path, code in blocks("python"):
        if path == SETTINGS_PATH:
            continue
        assert (ROOT / path).is_file()
        module = importlib.import_module(path.removeprefix("workflow/src/").removesuffix(".py").replace("/", "."))
        names = dict(vars(module))
        exec(code, names)
        for owner, name in ((curves, "brightness"), (metrics, "best"), (files, "Tar")):
            if module is owner:
                monkeypatch.setattr(owner, name, names[name], raising=False)


def test_the_blocks_are_there_and_short():
    names = [path.rsplit("/", 1)[-1] for path, _ in blocks("python") if path != SETTINGS_PATH]
    assert names == ["basis.py", "schedules.py", "denoiser.py", "samplers.py", "curves.py", "figures.py", "metrics.py",
                     "summaries.py", "files.py", "sources.py"]  # fmt: skip
    # Each adds a name to settings.py, but a table, and the figure's function and the source's class, whose entries are
    # elsewhere.
    assert len(blocks("python")) == 2 * len(names) - 4
    for _, code in blocks("python"):
        assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert [path for path, _ in blocks("yaml")] == ["config"]


@pytest.mark.usefixtures("extended")
@pytest.mark.parametrize("resolution", [1, 5, 6, 64])
def test_the_new_basis(resolution):
    made = basis.make_basis("hartley", resolution, 0.4, "zero")
    np.testing.assert_allclose(made.matrix.T @ made.matrix, np.eye(resolution), atol=1e-12)
    assert made.laplacian.min() == 0
    # It diagonalises every blur with circular borders.
    rotated = made.matrix.T @ basis.blur_matrix(resolution, 0.6, "circular") @ made.matrix
    np.testing.assert_allclose(rotated, np.diag(np.diag(rotated)), atol=1e-13)


@pytest.mark.usefixtures("extended")
def test_the_new_schedule():
    f = schedules.blur_schedule("exponential", 0.14, 1000)
    assert f[0] == 0
    assert f[1000] == pytest.approx(0.14)
    assert (np.diff(f, 2) > 0).all()


@pytest.mark.usefixtures("extended")
def test_a_process_with_both():
    overrides = {"basis": "hartley", "f_type": "exponential", "f_N": 0.14, "sigma": 1.0}
    process = build_process(settings(**overrides), 16).to("cpu", torch.float64)
    x_0 = np.random.default_rng(0).random((1, 3, 16, 16))
    x = process.q_sample(torch.from_numpy(x_0), at(1000), torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    # The same by numpy's Fourier transform: heat on a circle for the time F(N) σ²/2.
    frequency = 2 * np.pi * np.fft.fftfreq(16)
    heat = np.exp(-(frequency[:, None] ** 2 + frequency**2) * float(process.blur[1000]) / 2)
    expected = np.fft.ifft2(heat * np.fft.fft2(x_0)).real * np.exp(float(process.noise[1000]) / 2)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-14)
    finite_everywhere(build_process(settings(**overrides), 16), [(1000, 999), (1000, 500), (20, 0)])


@pytest.fixture
def extended_schema(extended, monkeypatch):
    """The names that a config may use, with the document's in place of those of settings.py."""
    for path, code in blocks("python"):
        if path == SETTINGS_PATH:
            given = {**vars(known_settings), "__annotations__": {}}
            exec(code, given)
            monkeypatch.setattr(config_schema, "FIGURES", given["FIGURES"] | config_schema.FIGURES)
            if "tar" in given:
                field = ("tar", given["__annotations__"]["tar"], given["tar"])
                section = dataclasses.make_dataclass("D", [field], bases=(known_settings.DatasetConfig,), frozen=True)
                monkeypatch.setattr(config_schema, "DatasetConfig", section)
            for name, key in KEYS.items():
                if name in given and given[name] is not getattr(known_settings, name):
                    assert list(given[name])[:-1] == list(getattr(known_settings, name)), "it adds one name"
                    section = known_settings.SamplerConfig if name == "SAMPLERS" else known_settings.ProcessConfig
                    schema = section.__dataclass_fields__[key].metadata["schema"]
                    monkeypatch.setitem(schema, "enum", list(given[name]))
    caches = (config_schema.config_schema, config_schema.settings_schema)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("extended")
def test_the_new_prediction():
    """A network that predicts the velocity perfectly gives ε̄ back."""
    process = build_process(settings(), 6).to("cpu", torch.float64)
    x_0, noise = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for i in (1, 500, 1000):
        steps = torch.full((2,), i)
        perfect = denoiser.Denoiser(lambda x, i: noise - x_0, process, "velocity")
        x_i = process.to_modes(process.q_sample(x_0, steps, noise))
        torch.testing.assert_close(process.to_pixels(perfect.epsilon(x_i, at(i))), noise, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("extended")
def test_the_new_sampler():
    """Of white noise with a network that predicts it perfectly it makes the image."""
    process, x_0 = build_process(settings(), 6).to("cpu", torch.float64), torch.rand(1, 3, 6, 6, dtype=torch.float64)
    x_0_modes, generator = process.to_modes(x_0), torch.Generator().manual_seed(0)

    def perfect(modes, i):
        alpha, sigma = process.alpha_sigma(i)
        return (modes - alpha * x_0_modes) / sigma

    noise = torch.randn(1, 3, 6, 6, dtype=torch.float64, generator=generator)
    found = samplers.SAMPLERS["mixed"].walk(process, perfect, noise, [1000, 500, 100, 0], generator)
    torch.testing.assert_close(found, x_0, rtol=0, atol=1e-9)


@pytest.fixture
def resolved(extended_schema):
    """The settings of the run in the document's config, which shows it in the figure."""
    given = {"datasets": {"bedroom": {"synthetic": "bedroom"}}, "training": {"iterations": 1}}
    checked = config.check_config(given | yaml.safe_load(blocks("yaml")[-1][1]))
    assert checked["figures"] == {"brightness": ["new"]}
    return config.resolve_runs(checked)[0]


def test_a_config_with_all(resolved):
    assert (resolved.process.basis, resolved.process.prediction) == ("hartley", "velocity")
    assert resolved.sampling.sampler == "mixed"
    assert build_process(resolved.process, 6).blur[-1] > 0


@pytest.mark.usefixtures("extended_schema")
def test_the_new_source(tmp_path, monkeypatch, capsys):
    """It gives what a folder of the same pictures gives, a config may name it, and the command takes it."""
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(["photos/b.png", "photos/a/c.jpg", "photos/a.txt"]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name, "PNG")
    with tarfile.open("photos.tar", "w") as archive:
        archive.add("photos", ".")
    found = {}
    for name, path in {"tar": "photos.tar", "folder": "photos"}.items():
        reader = sources.open_reader(name, path)
        assert reader.identify()["entries"] == 2
        found[name] = read_images(reader, 8, None, list(reader.records(0, 2)))[0]
    assert found["tar"].shape == (2, 8, 8, 3) and np.array_equal(found["tar"], found["folder"])
    given = {"training": {"iterations": 1}, "runs": [{"dataset": "own"}]}
    for path in ("photos.tar", "gone.tar"):
        checked = config.check_config(given | {"datasets": {"own": {"tar": path}}})
        assert ("give a tar of pictures" in sources.missing(checked["datasets"]["own"], "own")) == (path == "gone.tar")
    with pytest.raises(SystemExit):
        main(["preprocess", "--help"])
    assert "--tar PATH" in capsys.readouterr().out


def test_a_source_without_an_entry_is_an_error_at_import(monkeypatch):
    monkeypatch.setattr(known_settings, "SOURCES", (*known_settings.SOURCES, "tar"))
    with pytest.raises(AssertionError, match="data.sources.SOURCES lacks tar of config/settings.py"):
        importlib.reload(sources)


def test_the_new_figure(resolved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez("samples.npz", arr_0=samples)
    runs = json.dumps(dataclasses.replace(resolved, resolution=8).as_dict())
    outputs = ["--output", "b.png", "--pdf", "b.pdf", "--caption", "b.md"]
    assert main(["figure", "--name", "brightness", "--settings", runs, "--samples", "samples.npz", *outputs]) == 0
    with Image.open("b.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert Path("b.pdf").read_bytes().startswith(b"%PDF")
    assert Path("b.md").read_text() == (
        "Brightness of samples. Data: bedroom (synthetic), drawn procedurally, not photographs, 8×8 pixels.\n"
    )


@pytest.mark.usefixtures("extended")
def test_the_new_table(resolved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for run, value in (("a", 3.5), ("b", 2.5)):
        path = tmp_path / f"{run}.json"
        path.write_text(json.dumps(evaluation_of(dataclasses.replace(resolved, run=run).as_dict(), value)))
        paths.append(str(path))
    assert main(["table", "--name", "best", "--evaluations", *paths, "--output", "t.csv", "--markdown", "t.md"]) == 0
    assert Path("t.csv").read_text() == "dataset,run,mean\nbedroom,b,2.5\n"
    assert Path("t.md").read_text().endswith("| bedroom | b | 2.5 |\n")
    config = {"sampler_study": {"runs": [], "seeds": "first"}, "seeds": [0], "runs": []}
    monkeypatch.setattr(summaries, "trained_runs", lambda config: [resolved])
    assert summaries.made(config)["best"] == [resolved]
