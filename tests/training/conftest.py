import copy
import hashlib
import json
import os

import numpy as np
import pytest
import torch
import yaml

from blurdiff.cli import main
from blurdiff.config import load_config, read_settings, resolve_runs
from blurdiff.training import needs, store

torch.set_num_threads(1)

TINY = {
    "run": "tiny",
    "dataset": "noise",
    "label": "noise",
    "synthetic": True,
    "seed": 3,
    "resolution": 8,
    "process": {"n_timesteps": 20, "f_type": "quartic", "f_N": 0.5},
    "network": {
        "channels": 8,
        "multipliers": [1],
        "n_res_blocks": 1,
        "attention_resolutions": [],
        "n_heads": 2,
        "n_groups": 4,
    },
    "training": {
        "iterations": 12,
        "batch_size": 4,
        "learning_rate": 0.003,
        "ema_decay": 0.9,
        "checkpoint_every": 4,
        "log_every": 5,
    },
}


def complete_settings():
    value = read_settings(json.dumps(TINY))
    value["training"] = {**value["training"], "precision": "fp32", "device": "cpu", "threads": 1}
    return value


@pytest.fixture
def settings():
    """Complete settings of a network that trains a hundred iterations a second."""
    return complete_settings()


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder with images.npy, ten images, and their manifest."""
    folder = tmp_path_factory.mktemp("images")
    values = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    np.save(folder / "images.npy", values)
    manifest = {"n_used": 10, "resolution": 8, "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def command_line(images, folder, settings, name, store):
    return [
        *("train", "--settings", json.dumps(settings)),
        *("--images", str(images / "images.npy"), "--manifest", str(images / "manifest.json")),
        *("--store", str(folder / store), "--output", str(folder / name / "model.safetensors")),
        *("--history", str(folder / name / "history.csv")),
    ]


@pytest.fixture
def arguments(images, tmp_path):
    """A function that gives the command line of a training, into tmp_path / name."""
    return lambda settings, name="run", store="store": command_line(images, tmp_path, settings, name, store)


@pytest.fixture(scope="session")
def straight(images, tmp_path_factory):
    """The folder of model.safetensors and history.csv of `settings`, trained without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    assert main(command_line(images, folder, complete_settings(), "run", "store")) == 0
    return folder / "run"


@pytest.fixture
def train(arguments, tmp_path):
    """A function that trains in this process, into tmp_path / name, and returns the exit status."""

    def run(settings, name="run", store="store"):
        return main(arguments(settings, name, store))

    return run


@pytest.fixture
def folder(tmp_path):
    """A function that finds the only model's folder in a store."""

    def find(store="store"):
        (found,) = (tmp_path / store / "models").iterdir()
        return found

    return find


STORE_CONFIG = {
    "resolution": 8,
    "datasets": {"noise": {"lmdb": "data/noise_lmdb", "label": "grey noise"}},
    "process": {"n_timesteps": 20},
    "network": {"channels": 8, "multipliers": [1], "n_res_blocks": 1, "attention_resolutions": [], "n_heads": 2,
                "n_groups": 4},
    "training": {"iterations": 3, "batch_size": 4, "learning_rate": 0.003, "ema_decay": 0.9, "checkpoint_every": 1},
    "runs": [{"dataset": "noise", "f_type": "none"}, {"dataset": "noise", "f_type": "quartic", "f_N": 0.5}],
    "seeds": [3],
}  # fmt: skip


def write_store_config(name="config.yaml", **changes):
    with open(name, "w", encoding="utf-8") as file:
        yaml.safe_dump({**copy.deepcopy(STORE_CONFIG), "store": "store", **changes}, file)


@pytest.fixture
def store_config():
    """The config of two runs with which the tests of a store begin, to be changed."""
    return copy.deepcopy(STORE_CONFIG)


@pytest.fixture
def write_config():
    """A function that writes a config file of two runs, with changes, into the working folder."""
    return write_store_config


@pytest.fixture
def workplace(tmp_path, images, monkeypatch):
    """A working folder with a config, the manifest of its images, and a store with the models of its two runs."""
    monkeypatch.chdir(tmp_path)
    write_store_config()
    write_images_manifest(images)
    return tmp_path


@pytest.fixture
def write_manifest(images):
    """A function that writes the manifest of the two runs' images, with changes, to where the workflow has it."""
    return lambda **changes: write_images_manifest(images, **changes)


def write_images_manifest(images, **changes):
    sha256 = json.loads((images / "manifest.json").read_text())["sha256"]
    manifest = {"source": "data/noise_lmdb", "resolution": 8, "max_images": None, "sha256": sha256, "n_keys": 10}
    os.makedirs("results/data/noise", exist_ok=True)
    with open("results/data/noise/manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest | changes, file)


@pytest.fixture
def train_config(workplace, train):
    """A function that trains a config's runs (models become results/RUN) and returns their folders in the store."""

    def run(name="config.yaml"):
        found = []
        for need, settings in zip(
            needs.needs_of(load_config(name), name), resolve_runs(load_config(name)), strict=True
        ):
            assert train(settings, f"results/{need.run}") == 0
            found.append(workplace / "store" / "models" / store.fingerprint(need.value))
            assert found[-1].is_dir()
        return found

    return run


@pytest.fixture
def said(capsys):
    """A function that runs `blurdiff store …`, checks its status and returns what it printed."""

    def run(*arguments, status=0):
        capsys.readouterr()
        assert main(["store", *arguments]) == status
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run
