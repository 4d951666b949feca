import csv
import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from blurdiff.cli import main
from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import TrainingConfig, settings_from
from blurdiff.diffusion import denoiser
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.prior import measure_prior
from blurdiff.diffusion.process import Process
from blurdiff.errors import UserError
from blurdiff.network.model_file import load_model
from blurdiff.network.unet import UNet
from blurdiff.store import store
from blurdiff.training import state
from blurdiff.training import train as training
from blurdiff.training.distributed import Ranks


def read_history(tmp_path, name="run"):
    with open(tmp_path / name / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def change_losses(monkeypatch):
    """A function that makes another of (losses, timesteps), one of each an image, stand for the losses."""
    original = denoiser.Denoiser.losses

    def patch(change):
        def changed(self, images, i, noise):
            return change(original(self, images, i, noise), i)

        monkeypatch.setattr(denoiser.Denoiser, "losses", changed)

    return patch


@pytest.mark.parametrize("n_timesteps", [20, 10, 1000])
def test_history_has_the_loss_by_quartile(settings, train, tmp_path, change_losses, n_timesteps):
    """The loss of an image is made to be its timestep, so that each mean is known to lie in its quartile."""
    drawn = []
    change_losses(lambda losses, i: drawn.append(i.tolist()) or i + 0 * losses)
    settings["process"]["n_timesteps"] = n_timesteps
    assert train(settings) == 0
    rows = read_history(tmp_path)
    assert ",".join(rows[0]) == "iteration,seconds,images_per_second,loss,loss_q1,loss_q2,loss_q3,loss_q4"
    assert [int(row["iteration"]) for row in rows] == [5, 10, 12]
    start = 0
    for row in rows:
        i = [value for step in drawn[start : int(row["iteration"])] for value in step]
        start = int(row["iteration"])
        assert float(row["loss"]) == pytest.approx(sum(i) / len(i), rel=1e-5)
        for q in range(4):
            inside = [value for value in i if q * n_timesteps / 4 < value <= (q + 1) * n_timesteps / 4]
            cell = row[f"loss_q{q + 1}"]
            assert (cell == "") == (not inside)
            if inside:
                assert float(cell) == pytest.approx(sum(inside) / len(inside), rel=1e-5)
    assert {value for step in drawn for value in step} <= set(range(1, n_timesteps + 1))


def test_last_timestep_may_be_skipped(settings, train, monkeypatch):
    """As in the released code: i in [1, N − 1]."""
    drawn = set()
    original = Process.q_sample

    def note(process, x_0, i, noise):
        drawn.update(i.tolist())
        return original(process, x_0, i, noise)

    monkeypatch.setattr(Process, "q_sample", note)
    settings["process"]["n_timesteps"] = 3
    settings["training"]["iterations"] = 6
    for skip, expected in ((False, {1, 2, 3}), (True, {1, 2})):
        drawn.clear()
        settings["process"]["skip_last_timestep"] = skip
        assert train(settings, f"run-{skip}") == 0
        assert drawn == expected


def test_history_leaves_empty_what_was_not_drawn(settings, train, tmp_path):
    settings["training"].update(batch_size=1, log_every=1)
    assert train(settings) == 0
    rows = read_history(tmp_path)
    for row in rows:
        cells = [row[f"loss_q{q}"] for q in range(1, 5)]
        assert sorted(cells)[:3] == ["", "", ""]
        assert row["loss"] in cells
    assert len({tuple(row[f"loss_q{q}"] == "" for q in range(1, 5)) for row in rows}) > 1
    seconds = [float(row["seconds"]) for row in rows]
    assert sorted(seconds) == seconds
    assert float(rows[-1]["images_per_second"]) == pytest.approx(1 / (seconds[-1] - seconds[-2]), rel=0.05)


def test_loss_falls(settings, train, tmp_path):
    settings["training"].update(iterations=36, log_every=12, learning_rate=0.02)
    assert train(settings) == 0
    losses = [float(row["loss"]) for row in read_history(tmp_path)]
    assert losses[0] > losses[2]
    assert losses[2] < 0.9  # a network that predicts nothing has 1


def test_ema_is_torchs(settings):
    """Bit for bit what torch.optim.swa_utils keeps, over many steps of an optimizer."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    settings["training"].update(ema_decay=0.97, learning_rate=0.1)
    own = state.TrainingState(network, complete_settings(settings), torch.device("cpu"))
    theirs = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.97))
    start = [value.clone() for value in own.ema]
    for _ in range(30):
        own.optimizer.zero_grad()
        network(torch.randn(4, 5)).square().mean().backward()
        own.optimizer.step()
        own.update_ema()
        own.iteration += 1
        theirs.update_parameters(network)
        for name, value in theirs.module.named_parameters():
            assert torch.equal(own.ema_state_dict()[name], value)
    assert not any(torch.equal(a, b) for a, b in zip(own.ema, own.parameters, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(own.ema, start, strict=True))


def test_model_file_has_the_ema_and_its_settings(settings, train, tmp_path, folder):
    assert train(settings) == 0
    path = tmp_path / "run" / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    checkpoint = torch.load(store.find(folder(), "checkpoint", ".pt")[12], weights_only=True)
    assert weights.keys() == checkpoint["ema"].keys()
    assert all(torch.equal(weights[name], value) for name, value in checkpoint["ema"].items())
    assert not all(torch.equal(weights[name], value) for name, value in checkpoint["network"].items())
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["settings"]) == settings


@pytest.mark.parametrize(
    ("prediction", "loss", "family"),
    [
        *(("epsilon", "epsilon", family) for family in ("blur", "blurring-diffusion")),
        ("score", "score", "blur"),
        ("std", "prediction", "blur"),
        ("x0", "x0", "blur"),
        ("v", "balanced", "blur"),
    ],
)
def test_every_prediction_trains(settings, train, tmp_path, prediction, loss, family):
    settings["process"].update(prediction=prediction, loss=loss, family=family)
    settings["training"].update(iterations=20, log_every=10, learning_rate=0.02)
    assert train(settings) == 0
    first, last = (float(row["loss"]) for row in read_history(tmp_path))
    assert 0 < last < first


def test_data_order_and_noise_depend_on_the_seed_alone(settings, train, tmp_path):
    settings["training"]["iterations"] = 3
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        settings["seed"] = seed
        torch.manual_seed(seed + len(name))
        assert train(settings, name, f"store-{name}") == 0
    content = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert content["a"] == content["b"] != content["c"]


def test_bf16_and_symmetric_range_run(settings, train, tmp_path):
    settings["training"].update(precision="bf16", iterations=2)
    settings["process"]["range"] = "symmetric"
    assert train(settings) == 0
    assert all(
        tensor.dtype == torch.float32
        for tensor in safetensors.torch.load_file(tmp_path / "run" / "model.safetensors").values()
    )


def run_directly(settings, images, folder):
    """Training without the checks of the config, which would refuse what some tests need."""
    folder.mkdir()
    return training.train(settings_from(settings), str(images / "images.npy"), folder, 1, Ranks())


@pytest.mark.parametrize("rate", [1e30, 1e8])
def test_loss_that_is_not_finite_stops(settings, images, tmp_path, rate):
    settings["training"].update(learning_rate=rate, checkpoint_every=1, iterations=50)
    with pytest.raises(UserError) as caught:
        run_directly(settings, images, tmp_path / "folder")
    message = str(caught.value)
    assert "not finite" in message
    assert f"learning rate {rate:g}, run tiny" in message
    for path in store.find(tmp_path / "folder", "checkpoint", ".pt").values():
        saved = torch.load(path, weights_only=True)
        assert all(value.isfinite().all() for part in ("network", "ema") for value in saved[part].values())
    assert not store.find(tmp_path / "folder", "model", ".safetensors")


def test_nan_keeps_the_last_good_state(settings, images, tmp_path, change_losses):
    """NaN appears in iteration 7 of 12, checkpoints are made every 4: that of iteration 4 stays the newest."""
    iterations = itertools.count(1)
    change_losses(lambda losses, i: losses * (math.nan if next(iterations) == 7 else 1))
    with pytest.raises(UserError, match="not finite at iteration 7 .*the last good state is kept in .*folder"):
        run_directly(settings, images, tmp_path / "folder")
    assert list(store.find(tmp_path / "folder", "checkpoint", ".pt")) == [4]


def test_nan_is_placed_among_the_timesteps(settings, images, tmp_path, change_losses):
    change_losses(lambda losses, i: torch.where((i > 10) & (i <= 15), math.nan, losses))  # of 20
    with pytest.raises(UserError, match=r"\(loss of timestep quartile 3 of 4, learning rate 0.003, run tiny\)"):
        run_directly(settings, images, tmp_path / "folder")


def test_weights_that_are_not_finite_are_not_saved(settings, images, tmp_path, monkeypatch):
    """A gradient may overflow while the loss is still finite: the last step of all has no loss after it."""
    original = state.TrainingState.update_ema

    def overflow(self):
        if self.iteration == 11:
            with torch.no_grad():
                self.parameters[0].fill_(math.inf)
        original(self)

    monkeypatch.setattr(state.TrainingState, "update_ema", overflow)
    with pytest.raises(UserError, match="not finite at iteration 12"):
        run_directly(settings, images, tmp_path / "folder")
    assert list(store.find(tmp_path / "folder", "checkpoint", ".pt")) == [4, 8]
    assert not store.find(tmp_path / "folder", "model", ".safetensors")


def test_error_is_one_line_on_the_command_line(settings, train, tmp_path, change_losses, capsys):
    change_losses(lambda losses, i: losses * math.inf)
    assert train(settings) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: the loss or a weight is not finite at iteration 1 ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--images", "absent.npy", "absent.npy"),
        ("--manifest", "absent.json", "absent.json"),
        ("--manifest", "without_digest.json", "sha256"),
        ("--manifest", "of_other_images.json", "of_other_images.json: sha256 is 000"),
        ("--settings", "{}", "settings: run: is missing"),
        ("--store", "/dev/null/store", "/dev/null"),
    ],
)
def test_bad_input(settings, arguments, tmp_path, monkeypatch, capsys, option, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "without_digest.json").write_text("{}")
    (tmp_path / "of_other_images.json").write_text(json.dumps({"sha256": "0" * 64}))
    line = arguments(settings)
    line[line.index(option) + 1] = value
    assert main(line) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_learning_rate_warms_up_and_falls_to_zero():
    training_settings = TrainingConfig(iterations=100, learning_rate=0.1, warmup=10, learning_rate_schedule="cosine")
    rates = [state.learning_rate(training_settings, k) for k in range(100)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert max(rates) == rates[9] or max(rates) == rates[10]
    assert rates[50] == pytest.approx(0.05)
    assert rates[99] == pytest.approx(0.1 * (1 - math.cos(math.pi / 100)) / 2)
    constant = dataclasses.replace(training_settings, learning_rate_schedule="constant")
    assert [state.learning_rate(constant, k) for k in (0, 4, 9, 99)] == pytest.approx([0.01, 0.05, 0.1, 0.1])
    assert state.learning_rate(dataclasses.replace(constant, warmup=0), 0) == 0.1


def rates_of(settings, monkeypatch, train, name):
    """Adam's rate in every step of a training."""
    rates, plain = [], torch.optim.Adam.step
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), plain(self))[1])
        assert train(settings, name) == 0
    return rates


def test_adam_has_the_rate_of_the_schedule_also_after_a_resume(settings, train, monkeypatch, folder):
    settings["training"].update(iterations=12, warmup=3, learning_rate_schedule="cosine", checkpoint_every=5)
    typed = complete_settings(settings).training
    assert rates_of(settings, monkeypatch, train, "a") == [state.learning_rate(typed, k) for k in range(12)]
    for kind, suffix in (("checkpoint", ".pt"), ("model", ".safetensors")):
        store.find(folder(), kind, suffix)[12].unlink()
    resumed = rates_of(settings, monkeypatch, train, "b")
    assert resumed == [state.learning_rate(typed, k) for k in range(10, 12)]


def test_a_falling_rate_makes_the_length_part_of_the_model(settings):
    def fingerprints(schedule):
        for iterations in (12, 24):
            settings["training"].update(iterations=iterations, learning_rate_schedule=schedule)
            yield store.fingerprint(store.fingerprinted(complete_settings(settings), "f" * 64))

    assert len(set(fingerprints("constant"))) == 1
    assert len(set(fingerprints("cosine"))) == 2


def test_gradients_are_no_larger_than_their_limit(settings, train, monkeypatch):
    norms, plain = [], torch.optim.Adam.step

    def step(self):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return plain(self)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    for limit in (None, 0.05):
        norms.clear()
        settings["training"].update(iterations=3, max_gradient_norm=limit)
        assert train(settings, f"run-{limit}") == 0
        assert (max(norms) > 0.1) if limit is None else (max(norms) == pytest.approx(limit, rel=1e-3))


def test_the_prior_is_the_images_and_stays(settings, images, train, tmp_path, folder):
    """In the model's file and in every checkpoint; a resumed training takes that of the checkpoint."""
    settings["process"].update(prediction="gaussian", loss="balanced")
    settings["training"].update(iterations=12, checkpoint_every=5)
    assert train(settings) == 0
    weights = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    saved = torch.load(store.find(folder(), "checkpoint", ".pt")[10], weights_only=True)
    typed = complete_settings(settings)
    measured = measure_prior(
        np.load(images / "images.npy"), build_process(typed.process, typed.resolution), typed.process.range
    )
    for name, tensor in measured._asdict().items():
        assert torch.equal(weights[f"prior.{name}"], tensor)
        assert torch.equal(saved["prior"][name], tensor)
    store.find(folder(), "checkpoint", ".pt")[12].unlink()
    store.find(folder(), "model", ".safetensors")[12].unlink()
    assert train(settings, "again") == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "run" / "model.safetensors"
    ).read_bytes()
    process = build_process(typed.process, typed.resolution)
    network = UNet(typed.resolution, **typed.network)
    prior = load_model(tmp_path / "run" / "model.safetensors", network, typed)
    assert prior is not None
    assert torch.equal(prior.marginal(process, torch.tensor([0]))[0][0], measured.mean)
