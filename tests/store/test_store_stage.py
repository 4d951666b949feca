"""`blurdiff store list` on stores that real trainings have filled."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch

from blurdiff.config.runs import load_config, resolve_runs
from blurdiff.store import show, store


def listed(said, *arguments, **options):
    """`store list --json`: its models by fingerprint, and all of it."""
    answer = json.loads(said("list", "--store", "store", "--json", *arguments, **options))
    return {model["fingerprint"]: model for model in answer["models"]}, answer


def test_list(train_config, said):
    none, quartic = train_config()
    text = said("list", "--store", "store", "--config", "config.yaml")
    lines = text.splitlines()
    assert lines[0].startswith("store: 2 models, ")
    assert lines[1].startswith("in all: n_timesteps 20, channels 8, multipliers [1]")
    assert "f_N" not in lines[1]
    for folder, what, run in ((none, "no blur", "noise_none"), (quartic, "quartic, f_N 0.5", "noise_quartic")):
        (line,) = [line for line in lines if line.startswith(folder.name)]
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        (model,) = folder.glob("model-*")
        tensors = safetensors.torch.load_file(model)
        size = sum(path.stat().st_size for path in folder.iterdir())
        parameters = sum(tensor.numel() for tensor in tensors.values())
        assert cells[1:6] == ["grey noise", what, "3", "8", f"{parameters:,}"]
        assert cells[6:] == ["3", "3", f"{size / 1000:.3g} kB", "complete", f"{run} seed 3"]
    models, answer = listed(said, "--config", "config.yaml", "--verify")
    assert set(models) == {none.name, quartic.name}
    assert models[none.name]["trained"] == [3]
    assert models[none.name]["checkpoints"] == [2, 3]
    assert models[none.name]["settings"] == json.loads((none / "settings.json").read_text())
    assert [need["run"] for need in models[quartic.name]["needed_by"]] == ["noise_quartic"]
    assert answer["absent"] == answer["not_recognised"] == answer["leftovers"] == []


def test_settings_that_hold_no_defaults(train_config, said):
    """A settings.json without what equals the defaults, as the store writes it, is shown as one with it."""
    default = show.settings_of({})
    train_config()
    before = said("list", "--store", "store")
    names = {}
    for folder in list(Path("store/models").iterdir()):
        value = json.loads((folder / "settings.json").read_text())
        for part, keys in default.items():
            value[part] = keys | value[part]
        (folder / "settings.json").write_text(json.dumps(value))
        names[folder.name] = store.fingerprint(value)
        folder.rename(folder.with_name(names[folder.name]))
    after = said("list", "--store", "store")
    for old, new in names.items():
        (line,) = [line for line in before.splitlines() if line.startswith(old)]
        (again,) = [line for line in after.splitlines() if line.startswith(new)]
        # All but the size, which settings.json changes, and the state after it.
        assert old != new
        assert again.split()[1:-3] == line.split()[1:-3]
    assert after.splitlines()[1] == before.splitlines()[1]


def test_list_without_config_and_what_is_absent(train_config, said, write_config):
    train_config()
    assert "needed by" not in said("list", "--store", "store")
    write_config("more.yaml", seeds=[3, 4])
    text = said("list", "--config", "more.yaml")  # the store is the config's
    assert "not in the store: noise_none seed 4 of more.yaml (3 iterations)" in text
    assert "not in the store: noise_quartic seed 4 of more.yaml (3 iterations)" in text


@pytest.mark.parametrize("action", [["list"], ["prune", "--config", "config.yaml"]])
def test_no_store(workplace, said, action):
    text = said(*action, "--store", "nowhere", status=1)
    error = [line for line in text.splitlines() if not line.startswith("note: config.yaml has another store, store")]
    assert len(error) == 1
    assert error[0].startswith("error: nowhere: no store is there")


def test_several_stores(workplace, said, write_config):
    write_config("other.yaml", store="elsewhere")
    assert "choose one by --store" in said("list", "--config", "config.yaml", "other.yaml", status=1)


def test_a_model_that_is_being_trained(workplace, arguments, said, write_config, store_config):
    """Another process trains: it is named, its model is never pruned; stopped, it leaves a partial model."""
    write_config("long.yaml", training={**store_config["training"], "iterations": 10**6})
    settings = resolve_runs(load_config("long.yaml"))[0]
    command = [sys.executable, "-m", "blurdiff", *arguments(settings)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list(workplace.glob("store/models/*/checkpoint-*")):
            time.sleep(0.05)
        (fingerprint,) = os.listdir("store/models")
        model = listed(said)[0][fingerprint]
        assert model["state"].startswith(f"being trained by process {process.pid} on ")
        write_config("other.yaml", seeds=[5])
        text = said("prune", "--config", "other.yaml", "--yes", "--checkpoints")
        assert "is not needed, but being trained by process" in text
        assert "nothing to remove" in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.wait()
    model = listed(said, "--verify")[0][fingerprint]
    assert model["state"] == "partial"
    assert model["trained"] == []
    assert model["parameters"] is None
    assert len(model["checkpoints"]) == 2
    assert "images " in said("list", "--store", "store")  # which data set, no finished model tells
    assert "grey noise" in said("list", "--config", "long.yaml")
    said("prune", "--config", "other.yaml", "--yes")
    assert os.listdir("store/models") == []


def test_damage(train_config, said):
    none, quartic = train_config()
    (checkpoint,) = none.glob("checkpoint-00000003-*")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    assert listed(said)[0][none.name]["state"] == "complete"  # whole files are read only if that is asked for
    models, _ = listed(said, "--verify", status=1)
    assert models[none.name]["state"] == f"damaged: {checkpoint.name}"
    assert models[quartic.name]["state"] == "complete"
    (model,) = quartic.glob("model-*")
    content = model.read_bytes()
    for damage in (content[:-1], content[:100], b"", b"\xff" * 50, content + b"x"):
        model.unlink()  # and not the one in results, which is the same file
        model.write_bytes(damage)
        assert listed(said)[0][quartic.name]["state"] == f"damaged: {model.name}"


def test_what_is_not_recognised_stays(train_config, said, workplace, write_config):
    """Folders and files that blurdiff did not write, and those of a version to come, are named and left alone."""
    none, quartic = train_config()
    models = workplace / "store" / "models"
    (models / "notes").mkdir()
    (models / "readme.txt").write_text("mine")
    (models / ("0" * 16)).mkdir()
    (models / ("1" * 16)).mkdir()
    (models / ("1" * 16) / "settings.json").write_text((none / "settings.json").read_text())
    newer = json.loads((none / "settings.json").read_text()) | {"format": store.FORMAT + 1}
    newer_folder = models / store.fingerprint(newer)
    newer_folder.mkdir()
    (newer_folder / "settings.json").write_text(json.dumps(newer))
    (none / "notes.txt").write_text("mine")
    write_config("other.yaml", seeds=[5])
    text = said("list", "--store", "store")
    for name, why in (
        ("notes", "is no model's folder"),
        ("readme.txt", "is no model's folder"),
        ("0" * 16, "has no readable settings.json"),
        ("1" * 16, "has a settings.json that its name does not fit"),
        (newer_folder.name, f"is of format {store.FORMAT + 1}, which this version does not know"),
    ):
        assert f"not recognised: store/models/{name} {why}" in text
    assert "also holds notes.txt" in text
    before = sorted(os.listdir(models))
    text = said("prune", "--config", "other.yaml", "--yes")
    assert f"{none.name} is not needed, but holds notes.txt, which blurdiff did not write" in text
    assert sorted(os.listdir(models)) == [name for name in before if name != quartic.name]


def test_no_torch():
    code = "import sys, blurdiff.store.prune\nassert not {'torch', 'numpy', 'lmdb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
