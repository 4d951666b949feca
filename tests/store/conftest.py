import copy
import json
import os

import pytest
import yaml

from blurdiff.cli import main
from blurdiff.config.runs import load_config, resolve_runs
from blurdiff.store import listing, store
from tiny import NETWORK

STORE_CONFIG = {
    "resolution": 8,
    "datasets": {"noise": {"lmdb": "data/noise_lmdb", "label": "grey noise"}},
    "process": {"n_timesteps": 20},
    "network": NETWORK,
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
            listing.needs_of(load_config(name), name), resolve_runs(load_config(name)), strict=True
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
