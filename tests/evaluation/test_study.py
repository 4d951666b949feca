import json

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from blurdiff.cli import main
from blurdiff.evaluation import features
from blurdiff.evaluation import study as study_module
from blurdiff.evaluation.records import STUDY_COLUMNS
from blurdiff.network.unet import UNet
from blurdiff.reporting import samplers as report
from running import run_python
from tiny import NETWORK, TINY

torch.set_num_threads(1)
SETTINGS = TINY | {
    "process": {"n_timesteps": 12, "f_type": "quartic", "f_N": 0.5, "beta_1": 0.01, "beta_N": 0.2},
    "evaluation": {"network": "efficientnet-lite0", "batch_size": 8},
}
SAMPLERS = [{"sampler": "ddim", "grid": "information"}, {"sampler": "ode-heun"}, {"sampler": "ancestral"}]


def command(inputs, folder, settings, samplers, *n_steps):
    """The command line of a study of the model and reference in the folder `inputs`."""
    return [
        *("sampler-study", "--settings", json.dumps(settings), "--model", str(inputs / "model.safetensors")),
        *("--reference", str(inputs / "reference.npz"), "--samplers", json.dumps(samplers), "--n-steps", *n_steps),
        *("--n-samples", "4", "--network", "efficientnet-lite0", "--output", str(folder / "study.csv")),
        *("--drawn", str(folder / "drawn.npz")),
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study by the command line, of a network that was never trained, with ten real images as its reference."""
    folder = tmp_path_factory.mktemp("study")
    torch.manual_seed(0)
    safetensors.torch.save_file(UNet(8, **NETWORK).state_dict(), folder / "model.safetensors")
    network = features.load_network("efficientnet-lite0", None, torch.device("cpu"))
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    real = features.compute(network, images).astype(np.float64)
    np.savez(
        folder / "reference.npz",
        mu=real.mean(0),
        sigma=np.cov(real.T),
        n=10,
        **{"floor.frechet": np.array([5.0, 7.0])},
        floor_n=4,
        network="efficientnet-lite0",
        weights_sha256=network.weights_sha256,
        input_size=network.input_size,
        resolution=8,
    )
    assert main(command(folder, folder, SETTINGS, SAMPLERS, "2", "5")) == 0
    return folder / "study.csv"


def test_one_row_a_sampler_and_number_of_steps_with_evaluations_counted(study):
    table = pd.read_csv(study)
    assert tuple(table.columns) == STUDY_COLUMNS
    assert list(zip(table["sampler"], table["n_steps"], table["evaluations"], strict=True)) == [
        ("ddim", 2, 2),
        ("ddim", 5, 5),
        ("ode-heun", 2, 3),  # two a step, one in the last
        ("ode-heun", 5, 9),
        ("ancestral", 2, 2),
        ("ancestral", 5, 5),
    ]
    assert set(table["grid"]) == {"information", "uniform"}
    assert (table["metric"] == "FD-EfficientNet-Lite0").all()
    assert np.isfinite(table["value"]).all()
    assert (table["floor"] == 6).all()  # of as many images: floor_n is the study's count


@pytest.mark.parametrize(("skip", "last"), [(False, 12), (True, 11)])
def test_a_study_starts_at_the_last_trained_timestep(study, tmp_path, monkeypatch, skip, last):
    """With skip_last_timestep the network never saw timestep 12, so no sampler may ask it about that."""
    asked = []

    class Asked(study_module.Counter):
        def __call__(self, x, i):
            asked.append(int(i[0]))
            return super().__call__(x, i)

    monkeypatch.setattr(study_module, "Counter", Asked)
    settings = {**SETTINGS, "process": {**SETTINGS["process"], "skip_last_timestep": skip}}
    assert main(command(study.parent, tmp_path, settings, [{"sampler": "ddim"}], "3")) == 0
    assert len(asked) == 3 and asked[0] == last


def arguments(study, folder):
    return [
        *("table", "--name", "samplers", "--studies", str(study), "--settings", json.dumps([SETTINGS])),
        *("--output", str(folder / "samplers.csv"), "--markdown", str(folder / "table.md")),
        *("--figure", str(folder / "samplers.png"), "--pdf", str(folder / "samplers.pdf")),
        *("--caption", str(folder / "samplers.md")),
    ]


def test_table_figure_and_caption(study, tmp_path):
    assert main(arguments(study, tmp_path)) == 0
    assert (tmp_path / "samplers.csv").read_text() == study.read_text()
    assert (tmp_path / "samplers.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "samplers.pdf").read_bytes().startswith(b"%PDF")
    caption = (tmp_path / "samplers.md").read_text()
    assert "FD-EfficientNet-Lite0 of 4 samples" in caption
    assert "synthetic" in caption
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2].startswith("| tiny | DDIM, information grid | 3 | ") and len(lines) == 2 + len(pd.read_csv(study))


def test_a_notebooks_back_end_does_not_matter(study, tmp_path):
    audit = ["audit", "--resolution", "16", "--n-timesteps", "100", "--output"]
    audit += [tmp_path / name for name in ("operator.png", "operator.pdf")]
    for command in (arguments(study, tmp_path), audit):
        done = run_python("-m", "blurdiff", *command, MPLBACKEND="module://matplotlib_inline.backend_inline")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", ",".join(STUDY_COLUMNS) + "\n"])
def test_what_is_no_study_is_refused_and_nothing_written(content, tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text(content)
    assert main(arguments(bad, tmp_path)) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize("cut", [1, 2, 5, 40])
def test_a_truncated_study_is_refused(study, cut, tmp_path, capsys):
    whole = study.read_bytes()
    (tmp_path / "cut.csv").write_bytes(whole[:-cut])
    assert main(arguments(tmp_path / "cut.csv", tmp_path)) == 1
    assert "last line is not whole" in capsys.readouterr().err
    # Cut between two rows, it is told by the study of another run.
    (tmp_path / "cut.csv").write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    command = arguments(study, tmp_path)
    command.insert(command.index(str(study)) + 1, str(tmp_path / "cut.csv"))
    command[command.index("--settings") + 1] = json.dumps([SETTINGS, {**SETTINGS, "run": "other"}])
    assert main(command) == 1
    assert "cut.csv has other samplers or steps" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cut.csv"]


def test_labels():
    assert report.method_label({"sampler": "ddim", "eta": 0.5, "grid": "uniform"}) == "DDIM η = 0.5"
    assert report.method_label({"sampler": "ddim", "eta": 0.0, "grid": "snr"}) == "DDIM, SNR grid"
    assert report.thin_ticks([8, 9, 15, 16, 31, 63]) == [8, 15, 31, 63]
