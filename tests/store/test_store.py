import copy
import dataclasses
import errno
import fcntl
import os
import resource
import time

import pytest
import safetensors.torch
import torch

from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import TrainingConfig
from blurdiff.errors import UserError
from blurdiff.network import model_file
from blurdiff.network.unet import UNet
from blurdiff.store import store
from blurdiff.training import state

SHA = "0" * 64


def fingerprint(settings, sha256=SHA):
    return store.fingerprint(store.fingerprinted(complete_settings(settings), sha256))


def load_newest(folder, training_state, iterations):
    path = state.newest_checkpoint(folder, iterations)
    state.load_checkpoint(path, training_state, torch.device("cpu"))


def changed(settings, section, key, value):
    other = copy.deepcopy(settings)
    (other if section is None else other[section])[key] = value
    return other


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (None, "seed", 4),
        (None, "resolution", 16),
        ("process", "family", "ihdm"),
        ("process", "n_timesteps", 21),
        ("process", "noise_schedule", "cosine"),
        ("process", "beta_1", 0.001),
        ("process", "beta_N", 0.03),
        ("process", "basis", "dct"),
        ("process", "border", "reflect"),
        ("process", "sigma", 0.5),
        ("process", "power", "heat"),
        ("process", "f_type", "log"),
        ("process", "f_N", 0.6),
        ("process", "f_anchor", "released"),
        ("process", "direction", "reversed"),
        ("process", "floor", 0.1),
        ("process", "mode_order", "released"),
        ("process", "skip_last_timestep", True),
        ("process", "sigma_max", 10.0),
        ("process", "snr_shift", 2.0),
        ("process", "snr_shift", "auto"),
        ("process", "snr_tilt", 0.0),
        ("process", "noise_shape", 1.0),
        ("process", "prediction", "x0"),
        ("process", "loss", "x0"),
        ("process", "range", "symmetric"),
        ("network", "channels", 16),
        ("network", "multipliers", [1, 3]),
        ("network", "n_res_blocks", 2),
        ("network", "attention_resolutions", [8]),
        ("network", "n_heads", 1),
        ("network", "n_groups", 2),
        ("network", "dropout", 0.1),
        ("training", "batch_size", 8),
        ("training", "learning_rate", 0.001),
        ("training", "learning_rate_schedule", "cosine"),
        ("training", "warmup", 5),
        ("training", "max_gradient_norm", 1.0),
        ("training", "ema_decay", 0.99),
        ("training", "precision", "bf16"),
    ],
)
def test_fingerprint_changes_with_what_determines_the_weights(settings, section, key, value):
    assert fingerprint(changed(settings, section, key, value)) != fingerprint(settings)


def test_every_key_is_decided_about(settings):
    """A new key of the config must be put into one of these two tests."""
    tested = {(mark.args[1][k][0], mark.args[1][k][1])
              for mark in test_fingerprint_changes_with_what_determines_the_weights.pytestmark
              for k in range(len(mark.args[1]))}  # fmt: skip
    how = {field.name for field in dataclasses.fields(TrainingConfig) if field.metadata["how"]} | {"iterations"}
    assert {key for section, key in tested if section == "process"} | {"f_table"} == set(settings["process"])
    assert {key for section, key in tested if section == "network"} == set(settings["network"])
    assert {key for section, key in tested if section == "training"} | how == set(settings["training"])


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (None, "run", "another"),
        (None, "dataset", "another"),
        (None, "label", "another"),
        (None, "synthetic", False),
        ("training", "iterations", 999),
        ("training", "checkpoint_every", 3),
        ("training", "log_every", 3),
        ("training", "device", "cuda"),
        ("training", "threads", 4),
        ("training", "micro_batch_size", 2),
        ("training", "compile", True),
        ("training", "data_on_device", True),
        ("training", "gpus", 2),
        ("training", "nodes", 2),
    ],
)
def test_fingerprint_does_not_change_with_the_rest(settings, section, key, value):
    assert fingerprint(changed(settings, section, key, value)) == fingerprint(settings)


def test_fingerprint_knows_the_images_and_no_order_of_keys(settings):
    assert fingerprint(settings, "1" * 64) != fingerprint(settings)
    backwards = {key: settings[key] for key in reversed(settings)}
    backwards["process"] = {key: settings["process"][key] for key in reversed(settings["process"])}
    assert fingerprint(backwards) == fingerprint(settings)


@pytest.mark.parametrize(("key", "others"), [("f_table", {"f_type": "table"}), ("power", {})])
def test_fingerprint_knows_the_content_of_tables(settings, tmp_path, key, others):
    """A table edited in place must not find the model of the old one; a table moved elsewhere must find its own."""
    settings["process"].update(others)
    fingerprints = []
    for name, text in (("a.csv", "1,2"), ("a.csv", "1,3"), ("b.csv", "1,3")):
        (tmp_path / name).write_text(text)
        fingerprints.append(fingerprint(changed(settings, "process", key, str(tmp_path / name))))
    assert fingerprints[0] != fingerprints[1] == fingerprints[2]
    with pytest.raises(UserError, match=f"process.{key}: .*absent.csv"):
        fingerprint(changed(settings, "process", key, str(tmp_path / "absent.csv")))


def test_find_and_intact(tmp_path):
    for iteration in (20, 3):
        store.write_with_digest(tmp_path, f"model-{iteration:08d}", ".bin", lambda path: path.write_bytes(b"content"))
    (tmp_path / "model-00000007.bin").write_bytes(b"no digest")
    (tmp_path / ".model-00000005-0123456789abcdef.bin").write_bytes(b"half")
    found = store.find(tmp_path, "model", ".bin")
    assert list(found) == [3, 20]
    assert store.intact(found[3])
    found[3].write_bytes(b"contenT")
    assert not store.intact(found[3])
    # Written anew, the same iteration has one file.
    store.write_with_digest(tmp_path, "model-00000003", ".bin", lambda path: path.write_bytes(b"content"))
    assert store.intact(store.find(tmp_path, "model", ".bin")[3])
    assert len(list(tmp_path.glob("model-00000003-*"))) == 1
    store.remove_leftovers(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_publish_where_links_are_not_possible(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(95, "Operation not supported")

    (tmp_path / "source").write_bytes(b"content")
    monkeypatch.setattr(store.os, "link", no_links)
    (tmp_path / "target").write_bytes(b"older")
    store.publish(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_runs_that_share_a_model_do_not_share_its_time(tmp_path):
    """Or publishing it for one would make outdated what the others made from it."""
    source, runs = tmp_path / "source", [tmp_path / str(k) / "model" for k in range(3)]
    source.write_bytes(b"content")
    os.utime(source, (1, 1))
    for run in [*runs, runs[0]]:
        before = {other: other.stat().st_mtime_ns for other in runs if other.exists() and other != run}
        started = time.time() - 1
        store.publish(source, run)
        assert run.read_bytes() == b"content"
        assert run.stat().st_mtime > started  # what was made from an older model is outdated
        assert before == {other: other.stat().st_mtime_ns for other in before}
    assert source.stat().st_nlink == 2  # the first takes no room


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(_file, _operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match="lock: No locks available; put the store"), store.locked(tmp_path):
        pass


def test_full_disk_keeps_the_checkpoints(settings, tmp_path):
    """A write that fails half-way is one clear error, and leaves what was there."""
    network = UNet(8, **settings["network"])
    training_state = state.TrainingState(network, complete_settings(settings), torch.device("cpu"))
    state.save_checkpoint(tmp_path, training_state)
    training_state.iteration = 4
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*checkpoint-00000004"):
            state.save_checkpoint(tmp_path, training_state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name[:19] for path in tmp_path.iterdir()] == ["checkpoint-00000000"]
    load_newest(tmp_path, training_state, 10)
    assert training_state.iteration == 0


def test_checkpoints_are_weights_only_and_the_newest_two_stay(settings, tmp_path):
    training_state = state.TrainingState(
        UNet(8, **settings["network"]), complete_settings(settings), torch.device("cpu")
    )
    for iteration in (2, 4, 6, 8):
        training_state.iteration = iteration
        state.save_checkpoint(tmp_path, training_state)
    assert list(store.find(tmp_path, "checkpoint", ".pt")) == [6, 8]
    load_newest(tmp_path, training_state, 7)
    assert training_state.iteration == 6  # not more than were asked for


def test_checkpoint_of_another_memory_format(settings, tmp_path):
    """A GPU trains in channels last, a CPU may not: the same state must go on in the same way."""

    def train(training_state, steps):
        for _ in range(steps):
            for k, parameter in enumerate(training_state.parameters):
                generator = torch.Generator().manual_seed(1000 * training_state.iteration + k)
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
            training_state.optimizer.step()
            training_state.update_ema()
            training_state.iteration += 1

    def new_state(layout):
        torch.manual_seed(0)
        network = UNet(8, **settings["network"]).to(memory_format=layout)
        return state.TrainingState(network, complete_settings(settings), torch.device("cpu"))

    first = new_state(torch.channels_last)
    train(first, 3)
    state.save_checkpoint(tmp_path, first)
    second = new_state(torch.contiguous_format)
    load_newest(tmp_path, second, 10)
    assert second.parameters[4].stride() != first.parameters[4].stride()
    for training_state in (first, second):
        train(training_state, 3)
    for name, value in first.ema_state_dict().items():
        assert torch.allclose(second.ema_state_dict()[name], value, rtol=0, atol=1e-7), name


@pytest.fixture
def model(settings, tmp_path):
    """A model file, and a function that writes it changed."""
    network = UNet(8, **settings["network"])
    tensors = dict(network.state_dict())

    def write(change):
        changed = dict(tensors)
        change(changed)
        safetensors.torch.save_file(changed, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("middle.1.qkv.bias"), "model.safetensors misses the tensor middle.1.qkv.bias"),
        (lambda t: t.update(more=torch.ones(1)), "model.safetensors has a tensor that the network lacks: more"),
        (
            lambda t: t.update({"output_conv.bias": torch.ones(6)}),
            r"output_conv.bias has the shape \(6,\), the network \(3,\)",
        ),
    ],
)
def test_model_that_does_not_fit(settings, model, change, message):
    with pytest.raises(UserError, match=message):
        model_file.load_model(model(change), UNet(8, **settings["network"]), settings)


def test_model_file_that_is_none(settings, tmp_path):
    for content in (None, b"", b"hello", b"\xff" * 100):
        if content is not None:
            (tmp_path / "model.safetensors").write_bytes(content)
        what = "is missing" if content is None else "is not a readable safetensors file"
        with pytest.raises(UserError, match=f"model.safetensors {what}"):
            model_file.load_model(tmp_path / "model.safetensors", UNet(8, **settings["network"]), settings)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("network", "n_heads", 1),
        ("process", "prediction", "std"),
        (None, "resolution", 16),
        (None, "seed", 4),
        ("training", "iterations", 7),
    ],
)
def test_model_of_other_settings(settings, tmp_path, section, key, value):
    """What no shape shows: the file says what it was trained with."""
    training_state = state.TrainingState(
        UNet(8, **settings["network"]), complete_settings(settings), torch.device("cpu")
    )
    state.save_model(tmp_path, training_state, complete_settings(settings))
    (path,) = store.find(tmp_path, "model", ".safetensors").values()
    network = UNet(8, **settings["network"])
    model_file.load_model(path, network, complete_settings(changed(settings, "training", "log_every", 7)))
    other = changed(settings, section, key, value)
    name = f"{section}.{key}" if section else key
    with pytest.raises(UserError, match=rf"was made with {name} \w+, the settings have {value}"):
        model_file.load_model(path, network, complete_settings(other))
