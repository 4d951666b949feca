"""What there is no process, denoiser, grid or walk of: one line that names the key or file, and what would do."""

import re

import pytest
import torch
from diffusion_helpers import at, build, refused, walk

from blurdiff.diffusion import samplers, timesteps
from blurdiff.diffusion.denoiser import Denoiser, relation


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"family": "cold"}, "process.family: 'cold' is not one of blur, shaped-noise, blurring-diffusion, ihdm"),
        ({"basis": "fourier"}, "process.basis: 'fourier' is not one of gaussian-blur, dct"),
        ({"border": "mirror"}, "process.border: 'mirror' is not one of zero"),
        ({"sigma": 5.0}, "process.sigma: a blur of 5.0 px is not invertible"),
        ({"power": "blurr"}, "process.power: 'blurr' is neither blur nor heat nor the path"),
        ({"direction": "sideways"}, "process.direction: 'sideways' is not one of coarse-to-fine"),
        ({"mode_order": "code"}, "process.mode_order: 'code' is not one of paper, released"),
        ({"noise_schedule": "sqrt"}, "process.noise_schedule: 'sqrt' is not one of linear, cosine"),
        ({"f_type": "quintic"}, "process.f_type: 'quintic' is not one of none, linear"),
        ({"f_anchor": "code"}, "process.f_anchor: 'code' is not one of paper, released"),
        ({"f_N": -0.1}, "process.f_N: -0.1 is negative"),
        ({"f_type": "table"}, "process.f_table: .*needs the path"),
        ({"f_type": "table", "f_table": "nowhere.csv"}, "process.f_table: cannot read .*nowhere.csv: No such file"),
    ],
)
def test_processes(overrides, words):
    refused(words, 64, **overrides)


@pytest.mark.filterwarnings("ignore:loadtxt")
@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("power", "1,0.5,0.2\n", "has 3 values; give 6 or 6×6"),
        ("power", "\n".join(["1,.9,.8,.7,.6,.5"] * 5), "has 30 values"),
        ("power", "1,.9,.8,.7,.6,0\n", r"every value must lie in \(0, 1\]"),
        ("power", "1,.9,.8,.7,.6,1.1\n", r"every value must lie in \(0, 1\]"),
        ("power", "1,.9,.8,.7,.6,nan\n", r"every value must lie in \(0, 1\]"),
        ("power", "1,.9,.8,.7,.6,low\n", "neither blur nor heat nor the path of a CSV"),
        ("power", "1,.9\n.8\n", "neither blur nor heat nor the path of a CSV"),
        ("power", "", "has 0 values"),
        ("f_table", "i,f\n0,0\n500,.2\n400,.3\n1000,.4\n", "row 3: the column i must increase"),
        ("f_table", "i,f\n0,0\n500,.2\n500,.3\n1000,.4\n", "row 3: the column i must increase"),
        ("f_table", "i,f\n1,0\n1000,.4\n", "from 0 to n_timesteps = 1000"),
        ("f_table", "i,f\n0,0\n999,.4\n", "from 0 to n_timesteps = 1000"),
        ("f_table", "i,f\n0,0\n1000,-.1\n", "not negative"),
        ("f_table", "i,f\n0,0\n1000,nan\n", "finite"),
        ("f_table", "i,f\n0,0\nnan,.1\n1000,.2\n", "must increase"),
        ("f_table", "i,f\n0,0\n1000,much\n", "columns i and f"),
        ("f_table", "i,f\n0,0\n1000\n", "columns i and f"),
        ("f_table", "i,f\n0,0\n", "at least two rows"),
        ("f_table", "", "columns i and f"),
        ("f_table", "step, f\n0,0\n1000,1\n", "columns i and f.*found 'step', 'f'"),
        ("f_table", "\ufeffi;f\n0;0\n1000;1\n", "columns i and f.*found 'i;f'"),
        ("f_table", "\x00i,f\n0,0\n\x00\n", "i and f"),
    ],
)
def test_files(tmp_path, key, text, words):
    path = tmp_path / "given.csv"
    path.write_text(text, encoding="utf-8")
    f_type = "table" if key == "f_table" else "quartic"
    refused(f"^process.{key}: .*{re.escape(str(path))}.*{words}", 6, f_type=f_type, **{key: str(path)})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "uniform"), "sampling.n_steps: 0 must lie between 1 and 1000"),
        ((1001, "uniform"), "sampling.n_steps: 1001 must lie between 1 and 1000"),
        ((-3, "snr"), "sampling.n_steps: -3 must lie between"),
        ((10, "cubic"), "sampling.grid: 'cubic' is not one of uniform, quadratic, snr, information"),
        ((None, "cubic"), "sampling.grid: 'cubic' is not one of uniform, quadratic, snr, information"),
    ],
)
def test_grids(arguments, words):
    refused(words, build(4), *arguments, function=timesteps.step_grid)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([1000, 500, 500, 0], "must decrease"),
        ([500, 700, 0], "must decrease"),
        ([1000, 500, 1], "end at 0"),
        ([0], "must decrease"),
        ([], "must decrease"),
        ([1001, 0], "starts at 1001, beyond the last timestep 1000"),
    ],
)
def test_walks(sampler, steps, words):
    x_N = torch.ones(1, 3, 4, 4).double()
    refused(words, sampler, build(4), lambda modes, i: modes, x_N, steps, function=walk)


def test_denoisers():
    process = build(6)
    gaussian = Denoiser(None, process, "gaussian")
    refused("prediction gaussian needs the prior of the training images", at(5), function=gaussian.relation)
    unknown = "process.prediction: 'w' is not one of epsilon, v, x0, score, std, gaussian"
    refused(unknown, "w", *process.alpha_sigma(at(5)), function=relation)
    refused(unknown, None, process, "w", function=Denoiser)
    words = "process.loss: 'v' is not one of epsilon, x0, prediction, balanced, score"
    refused(words, None, process, loss="v", function=Denoiser)
