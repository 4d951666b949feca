"""`blurdiff plan` from its command line: what it says of configs, and in which units."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from snakemake.utils import update_config

from blurdiff.config.runs import check_config, load_config, resolve_runs
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.samplers import SAMPLERS
from blurdiff.plan import counts, rates
from blurdiff.plan.rates import Rate
from blurdiff.plan.work import evaluations

CONFIGS = Path(__file__).resolve().parents[2] / "config"
PAPER_IMAGES = {"bedroom": 3_033_042, "church": 126_227}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """What is planned does not depend on the machine that the tests run on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def stage(plan, rule):
    (found,) = [entry for entry in plan["stages"] if entry["rule"] == rule]
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_every_config_is_planned_without_data_and_gpu(name, workplace, planned):
    shutil.copy(CONFIGS / name, workplace)
    plan = planned(name)
    config = load_config(name)
    trained = [settings for settings in resolve_runs(config) if settings["process"]["family"] != "ihdm"]
    network = counts.count_network(config["resolution"], config["network"])
    images = sum(s["training"]["iterations"] * s["training"]["batch_size"] for s in trained)
    shards = -(-config["sampling"]["n_samples"] // config["sampling"]["shard_size"])
    drawn = sum(shards * config["sampling"]["shard_size"] * s["sampling"]["n_steps"] for s in trained)
    assert len(plan["models"]) == len(trained) == stage(plan, "train")["jobs"]
    assert stage(plan, "train")["flops"] == images * network.training
    assert stage(plan, "sample")["jobs"] == shards * len(trained)
    assert stage(plan, "sample")["flops"] == drawn * network.forward
    assert plan["totals"]["wall_hours"] is None
    pixels = 3 * config["resolution"] ** 2
    n_images = sum(part["n_images"] for part in plan["datasets"].values())
    assert plan["disk"]["images.npy"] == {"bytes": n_images * pixels, "there": 0}
    assert plan["disk"]["store: models"]["bytes"] == 4 * network.parameters * len(trained)
    text = planned(name, as_json=False)
    assert ("no GPU here: GPU-hours not estimated; " in text) == (config["training"]["device"] == "cuda")
    assert "nothing measured: hours not estimated" in text


def test_the_paper(workplace, planned):
    shutil.copy(CONFIGS / "paper.yaml", workplace)
    plan = planned("paper.yaml", options=["--no-calibration", "--tflops", "100"])
    assert plan["network"]["parameters"] == 121_060_483
    assert round(plan["network"]["forward"] / 1e9, 1) == 79.4
    assert {name: part["n_images"] for name, part in plan["datasets"].items()} == PAPER_IMAGES
    assert plan["disk"]["images.npy"]["bytes"] == 12_288 * sum(PAPER_IMAGES.values())
    assert plan["disk"]["LMDBs"]["bytes"] == 45_922_737_680 + 2_448_463_466
    (memory,) = plan["memory"]["training"]
    assert memory["images"] == 12_288 * 3_033_042
    assert sum(memory["bytes"].values()) < 16e9
    hours = plan["totals"]["gpu_flops"] / 100e12 / 3600
    text = planned("paper.yaml", options=["--no-calibration", "--tflops", "100"], as_json=False)
    assert f"in all = {hours:.3g} hours at 100 TFLOP/s" in text


def test_one_network_of_several_runs_is_planned_once(workplace, planned, tiny):
    """Runs that differ in sampling alone share a model; a longer one goes on from a shorter one."""
    tiny["sampler_study"] = {}
    tiny["runs"] = [
        {"dataset": "rooms", "f_type": "none"},
        {"dataset": "rooms", "f_type": "none", "sampling": {"sampler": "ddim"}},
        {"name": "long", "dataset": "rooms", "f_type": "none", "training": {"iterations": 10}},
    ]
    plan = planned(tiny)
    (model,) = plan["models"]
    assert model["runs"] == ["rooms_none seed 0", "rooms_none_sampler-ddim seed 0", "long seed 0"]
    assert model["iterations"] == 10
    assert stage(plan, "train")["jobs"] == 3
    assert stage(plan, "train")["work"] == {"train": 10 * 2}


def test_samplers_evaluate_the_network_as_often_as_planned(workplace, planned, tiny):
    settings = resolve_runs(check_config(tiny))[0]
    process = build_process(settings["process"], 16)
    for name in SAMPLERS:
        calls = []

        def epsilon(x, i, calls=calls):
            calls.append(1)
            return torch.zeros_like(x)

        SAMPLERS[name](process, epsilon, torch.zeros(1, 3, 16, 16), [4, 3, 1, 0], torch.Generator())
        assert evaluations(name, 3) == len(calls), name


def test_hours_follow_the_work(workplace, planned, tiny, monkeypatch):
    """With given rates the times are exact: twice the iterations, twice the hours; GPU-hours are hours of GPUs."""
    monkeypatch.setattr("blurdiff.plan.rates.start", lambda: (0.0, 0))
    monkeypatch.setattr(rates, "measure", lambda work, *_: Rate({"train": 0.5, "sample": 0.25}.get(work.kind, 0), ""))
    tiny["sampler_study"] = {}
    plan = planned(tiny, options=["--cores", "1"])
    assert stage(plan, "train")["seconds"] == 2 * 4 * 2 * 0.5
    assert stage(plan, "sample")["seconds"] == 2 * 2 * 3 * 4 * 0.25  # runs, shards, images, steps
    assert plan["totals"]["cpu_hours"] * 3600 == pytest.approx(8 + 12)
    assert plan["totals"]["wall_hours"] == pytest.approx(plan["totals"]["cpu_hours"])
    assert plan["models"][0]["left"] == 4
    tiny["training"]["iterations"] = 8
    twice = planned(tiny, options=["--cores", "2"])
    assert stage(twice, "train")["seconds"] == 2 * stage(plan, "train")["seconds"]
    assert stage(twice, "train")["flops"] == 2 * stage(plan, "train")["flops"]
    assert twice["totals"]["cpu_hours"] * 3600 == pytest.approx(16 + 12)
    assert twice["totals"]["wall_hours"] * 3600 == pytest.approx((16 + 12) / 2)  # the two runs side by side
    tiny["training"]["device"] = "cuda"
    gpu = planned(tiny, options=["--cores", "2", "--gpus", "1"])
    assert gpu["totals"]["gpu_hours"] * 3600 == pytest.approx(16)
    assert gpu["totals"]["cpu_hours"] * 3600 == pytest.approx(12)


def test_without_a_gpu_its_hours_are_not_guessed(workplace, planned, tiny, monkeypatch):
    """The rest is measured and estimated; with a rate of the user's choice, the GPU's part is too."""
    tiny["sampler_study"] = {}
    tiny["training"]["device"] = "cuda"
    options = ["--calibration-seconds", "0.01", "--cores", "1"]
    monkeypatch.setattr("blurdiff.plan.rates.start", lambda: (1.0, 10**8))
    plan = planned(tiny, options=options)
    assert plan["totals"]["gpu_hours"] is plan["totals"]["wall_hours"] is stage(plan, "train")["seconds"] is None
    assert plan["totals"]["cpu_hours"] > 0
    plan = planned(tiny, options=[*options, "--tflops", "0.001"])
    starts = 2 * 1.0
    assert plan["totals"]["gpu_hours"] * 3600 == pytest.approx(plan["totals"]["gpu_flops"] / 1e9 + starts)
    assert plan["totals"]["wall_hours"] > 0


STARTS_PYTORCH = {"reference", "train", "sample", "evaluate", "sampler_study"}


def test_calibration_on_this_cpu(workplace, planned, tiny):
    text = planned(tiny, options=["--calibration-seconds", "0.01"], as_json=False)
    for kind in ("synthesize", "preprocess", "features", "distance", "train", "sample", "start of a job"):
        assert [line for line in text.splitlines() if line.startswith(kind)], kind
    assert "?" not in text
    assert "CPU-hours: " in text
    assert "from start to end: " in text
    plan = planned(tiny, options=["--calibration-seconds", "0.01"])
    starts = sum(entry["jobs"] for entry in plan["stages"] if entry["rule"] in STARTS_PYTORCH)
    assert plan["totals"]["starts"] == starts > 2
    assert f" are {starts} starts of PyTorch" in text
    assert all(entry["seconds"] >= 0 for entry in plan["stages"])
    assert all(seconds > 0 for entry in plan["stages"] for _, _, seconds in entry["rates"])
    assert stage(plan, "train")["seconds"] > 2 * plan["start_seconds"] > 0


def test_several_files_are_laid_over_one_another(workplace, planned, tiny):
    upper = {"training": {"iterations": 7}, "seeds": [3, 4]}
    plan = planned(tiny, upper)
    assert plan["config"] == "config0.yaml + config1.yaml"
    assert [model["iterations"] for model in plan["models"]] == [7] * 4
    merged = dict(tiny)
    update_config(merged, upper)
    Path("merged.yaml").write_text(yaml.safe_dump(merged))
    assert planned("merged.yaml")["stages"] == plan["stages"]


def test_images_that_nobody_has_counted(workplace, planned, tiny):
    tiny["datasets"] = {"rooms": {"lmdb": "data/my_lmdb"}}
    plan = planned(tiny)
    assert plan["datasets"]["rooms"]["n_images"] is None
    assert "rooms: data/my_lmdb is not there; --n-images tells how many images" in planned(tiny, as_json=False)
    for given in ("5000", "rooms=5000"):
        plan = planned(tiny, options=["--no-calibration", "--n-images", given])
        assert plan["disk"]["images.npy"]["bytes"] == 5000 * 16 * 16 * 3
    for wrong, message in (("many", "neither a number"), ("1", "neither"), ("halls=5", "no run has a data set named")):
        error = planned(tiny, options=["--no-calibration", "--n-images", wrong], status=1)
        assert error.count("\n") == 1
        assert message in error


@pytest.mark.parametrize("option", ["--calibration-seconds", "--tflops", "--cores", "--gpus"])
def test_numbers_out_of_range(workplace, planned, tiny, option):
    assert f"{option} must be more than 0" in planned(tiny, options=[option, "0"], status=1)
