"""How far a run is, on files that real stages have made, and who is at it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from blurdiff.cli import main
from blurdiff.config.runs import check_config, resolve_runs
from blurdiff.data import unfinished
from blurdiff.plan.progress import progress_of
from blurdiff.store import store


def stage(plan, rule):
    (found,) = [entry for entry in plan["stages"] if entry["rule"] == rule]
    return found


def make_data(config):
    """What the rules synthesize and preprocess make."""
    data = Path(config["results"], "data")
    part = config["datasets"]["rooms"]
    numbers = ("--n-images", str(part["n_images"]), "--seed", str(part["seed"]), "--workers", "1")
    assert main(["synthesize", "--kind", part["synthetic"], *numbers, "--output", str(data / "rooms_lmdb")]) == 0
    outputs = ("--output", str(data / "rooms" / "images.npy"), "--manifest", str(data / "rooms" / "manifest.json"))
    source = ("--lmdb", str(data / "rooms_lmdb"), "--resolution", str(config["resolution"]), "--synthetic")
    assert main(["preprocess", *source, "--workers", "1", *outputs]) == 0


def train_command(config, settings):
    data, folder = Path(config["results"], "data", "rooms"), run_folder(config, settings)
    return [
        *("train", "--settings", json.dumps(settings.as_dict()), "--images", str(data / "images.npy")),
        *("--manifest", str(data / "manifest.json"), "--store", config["store"]),
        *("--output", str(folder / "model.safetensors"), "--history", str(folder / "history.csv")),
    ]


def run_folder(config, settings):
    return Path(config["results"], "runs", settings["run"], f"seed{settings['seed']}")


def train(config, settings):
    assert main(train_command(config, settings)) == 0
    for path in run_folder(config, settings).iterdir():
        path.touch()  # as the rule does: they are links into the store


def sample(config, settings, shard):
    folder = run_folder(config, settings)
    command = ["sample", "--settings", json.dumps(settings.as_dict()), "--model", str(folder / "model.safetensors")]
    assert main([*command, "--shard", str(shard), "--output", str(folder / "shards" / f"{shard}.npz")]) == 0


def test_a_run_step_by_step(workplace, planned, tiny):
    """Whatever is there is left out of what is to do, and its size is what was foreseen."""
    tiny["sampler_study"] = {}
    config = check_config(tiny)
    none, quartic = resolve_runs(config)
    nothing = planned(tiny)
    assert all(entry["done"] == 0 for entry in nothing["stages"])
    make_data(config)
    plan = planned(tiny)
    assert stage(plan, "synthesize")["done"] == stage(plan, "preprocess")["done"] == 1
    assert stage(plan, "preprocess")["work"] == {}
    images = Path("results/data/rooms/images.npy").stat().st_size
    assert plan["disk"]["images.npy"]["there"] == images
    assert images - 128 == nothing["disk"]["images.npy"]["bytes"] == 12 * 16 * 16 * 3
    lmdb = plan["disk"]["LMDBs"]["there"]
    assert nothing["disk"]["LMDBs"]["bytes"] == pytest.approx(lmdb, rel=0.25)  # from a few images

    train(config, none)
    plan = planned(tiny)
    assert [model["finished"] for model in plan["models"]] == [True, False]
    assert stage(plan, "train")["done"] == 1
    assert stage(plan, "train")["work"] == {"train": 4 * 2}
    (model,) = Path(config["store"], "models").glob("*/model-*")
    tensors = plan["network"]["tensors"]
    n_bytes = nothing["disk"]["store: models"]["bytes"] // 2
    assert n_bytes == 4 * plan["network"]["parameters"]
    assert n_bytes < model.stat().st_size < n_bytes + 2000 + 200 * tensors  # names, shapes and settings
    checkpoints = list(model.parent.glob("checkpoint-*"))
    assert len(checkpoints) == 2
    n_bytes = nothing["disk"]["store: checkpoints"]["bytes"] // 2
    assert n_bytes < sum(path.stat().st_size for path in checkpoints) < n_bytes + 2 * (5000 + 4 * 500 * tensors)

    assert plan["disk"]["store: checkpoints"]["bytes"] > nothing["disk"]["store: checkpoints"]["bytes"]
    train(config, quartic)
    plan = planned(tiny)  # of what is finished, no checkpoint is to come
    assert plan["disk"]["store: checkpoints"]["bytes"] == plan["disk"]["store: checkpoints"]["there"]
    assert "store: one checkpoint while it is written" not in plan["disk"]

    sample(config, none, 0)
    plan = planned(tiny)
    assert stage(plan, "sample")["done"] == 1
    assert stage(plan, "sample")["work"] == {"sample": 3 * 3 * 4}  # of four shards three are left
    (shard,) = Path("results/runs/rooms_none/seed0/shards").iterdir()
    strips = 2 * 4 * 3 * 16 * 16 * 3 * 2  # states and predictions, float32, snapshots, images
    assert shard.stat().st_size == pytest.approx(3 * 16 * 16 * 3 + strips, abs=10_000)  # and its settings

    # Younger images make all that is older outdated; the models themselves are in the store.
    for path in Path("results/data/rooms").iterdir():
        path.touch()
    plan = planned(tiny)
    assert stage(plan, "train")["done"] == stage(plan, "sample")["done"] == 0
    assert stage(plan, "train")["work"] == {"train": 0}
    assert plan["models"][0]["finished"]
    # A longer training goes on from the last checkpoint. (Without Snakemake's records, other settings are refused.)
    tiny["training"]["iterations"] = 6
    shutil.rmtree("results/runs")
    assert stage(planned(tiny), "train")["work"] == {"train": (2 + 2) * 2}


def test_a_training_that_runs_and_is_interrupted(workplace, planned, tiny):
    tiny["training"] |= {"iterations": 10**6, "log_every": 5, "checkpoint_every": 10}
    tiny["runs"], tiny["sampler_study"] = tiny["runs"][:1], {}
    config = check_config(tiny)
    make_data(config)
    (settings,) = resolve_runs(config)
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "blurdiff", *train_command(config, settings)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and len(list(workplace.glob(".blurdiff/store/models/*/checkpoint-*"))) < 2:
            time.sleep(0.05)
        (model,), _ = progress_of(config, "config")
        assert model.holder.startswith(f"process {process.pid} on ")
        assert f"being trained by process {process.pid} on " in planned(tiny, as_json=False)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.wait()
    (model,), lefts = progress_of(config, "config")
    (left,) = lefts.values()
    (folder,) = workplace.glob(".blurdiff/store/models/*")
    at = max(store.find(folder, "checkpoint", ".pt"))
    assert (model.at, model.holder, model.finished, left) == (at, None, False, 10**6 - at)
    assert at >= 20
    assert model.left == pytest.approx(left * model.seconds_per_iteration)
    plan = planned(tiny)
    assert stage(plan, "train")["work"] == {"train": left * 2}
    assert plan["models"][0]["left"] == pytest.approx(model.left)
    assert f"goes on from {at:,}" in planned(tiny, as_json=False)
    # The rate is that of the history's last row.
    state = torch.load(folder / store.find(folder, "checkpoint", ".pt")[at].name, weights_only=True)
    (first, start), (last, end) = ([(0, 0.0)] + [(row[0], row[1]) for row in state["history"]])[-2:]
    assert model.seconds_per_iteration == pytest.approx((end - start) / (last - first))
    # Without its images, it is the model of others that is otherwise the same, perhaps.
    for path in Path("results/data/rooms").iterdir():
        path.unlink()
    assert f"goes on from {at:,} (?)" in planned(tiny, as_json=False)


def test_a_preprocessing_that_was_interrupted(workplace, planned, tiny):
    """The journal beside images.npy tells how many records are read."""
    config = check_config(tiny)
    make_data(config)
    data = Path("results/data/rooms")
    (data / "images.npy").unlink()
    with unfinished.held(data / "images.npy") as (folder, _):
        work = unfinished.Unfinished(folder, {}, 16)
        work.add(np.zeros((4, 16, 16, 3), np.uint8), [{"key": "0" * 40, "reason": "empty value"}], "0" * 40)
        work.save(now=True)
        work.close()
        assert planned(tiny)["datasets"]["rooms"]["holder"].startswith(f"process {os.getpid()} on ")
    plan = planned(tiny)
    assert plan["datasets"]["rooms"] | {"known_from": ""} == {
        "n_images": 12, "known_from": "", "n_read": 5, "holder": None
    }  # fmt: skip
    assert stage(plan, "preprocess")["work"] == {"preprocess": 12 - 5}
    assert "12 images, of which 5 are read" in planned(tiny, as_json=False)
    (folder / "journal.json").write_text("damaged")
    assert planned(tiny)["datasets"]["rooms"]["n_read"] == 0
