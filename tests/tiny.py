"""A training that takes a tenth of a second, for all tests that need one: settings, images, and what it makes."""

import copy
import json

import numpy as np
import pytest

from blurdiff.cli import main
from blurdiff.config.runs import complete_settings
from pictures import write_images

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

NETWORK = TINY["network"]
# A config of the whole workflow, without data sets and runs.
CONFIG = {
    "resolution": 8,
    "process": {"n_timesteps": 4},
    "network": {**NETWORK, "multipliers": [1, 2], "attention_resolutions": [4]},
    "training": {"iterations": 2, "batch_size": 2, "learning_rate": 0.001, "ema_decay": 0.5, "log_every": 1},
    "sampling": {"n_samples": 2, "shard_size": 2, "n_strip": 2, "n_snapshots": 3},
    "evaluation": {"network": "efficientnet-lite0", "floor_repeats": 2},
}


def tiny_config(**changes):
    """A copy of CONFIG with other top-level keys."""
    return copy.deepcopy(CONFIG) | changes


def as_dict(value=TINY):
    """Complete settings as plain dicts, for tests that change them."""
    return complete_settings(value).as_dict()


@pytest.fixture
def settings():
    """Complete settings, as plain dicts, of a network that trains a hundred iterations a second."""
    return as_dict()


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder with images.npy, ten images, and their manifest."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8))
    return folder


def command_line(images, folder, settings, name, store):
    return [
        *("train", "--settings", json.dumps(getattr(settings, "as_dict", lambda: settings)())),
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
    assert main(command_line(images, folder, as_dict(), "run", "store")) == 0
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
