"""Each implementation of each stage does its work, and the fast and the plain ones agree (nothing is timed here)."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from blurdiff.benchmark import ceilings, features, frechet, networks, preprocessing, process, sampling, training
from blurdiff.benchmark.counting import count
from blurdiff.benchmark.rows import Bench
from blurdiff.benchmark.settings import PAPER, settings_for
from blurdiff.benchmark.worker import Failure
from blurdiff.config.settings import with_keys

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings():
    small = settings_for("cpu", quick=True)
    network = {"channels": 8, "multipliers": [1, 2], "attention_resolutions": [8], "n_groups": 2}
    return with_keys(dataclasses.replace(small, resolution=8), "network", **network)


def build(row):
    return row.build(CPU, 1, **row.arguments)


def called(rows):
    """The works of rows by their names, each done once."""
    works = {row.implementation: build(row) for row in rows}
    for work in works.values():
        work.call()
    return works


def rows_by_name(stages, at=0):
    return {row.implementation: row for row in stages[at]}


def bench(settings, tmp_path="", quick=True, **options):
    return Bench(settings, Path(tmp_path), quick, **options)


def test_default_settings_are_those_of_the_default_config_and_of_the_paper():
    from blurdiff.config.runs import load_config, resolve_runs

    config = Path(__file__).parents[2] / "config"
    for device, name, number in (("cpu", "config.yaml", 2), ("cuda", "paper.yaml", 2)):
        found, run = settings_for(device), resolve_runs(load_config(config / name))[number]
        for section in ("process", "network"):
            assert found[section] == run[section]
        assert found["resolution"] == run["resolution"]
        for section, keys in {
            "training": ("batch_size", "learning_rate", "precision", "device"),
            "sampling": ("shard_size", "batch_size", "n_steps", "sampler", "precision", "device"),
        }.items():
            assert {key: found[section][key] for key in keys} == {key: run[section][key] for key in keys}
        # Given settings are taken as they are, on the device that is asked for.
        again = settings_for("cpu", run)
        assert again["network"] == run["network"] and again["training"]["device"] == "cpu"


def test_diffusers_network_has_as_many_parameters_as_the_papers():
    with torch.device("meta"):
        network = networks.diffusers_network(settings_for("cpu", PAPER))
    assert sum(parameter.numel() for parameter in network.parameters()) == 121_060_483


def test_training_steps_compute_the_same_amount(settings):
    (rows,) = training.stages(bench(settings))
    works = called(rows)
    assert list(works) == [training.DIFFUSERS, training.PLAIN, "ours, eager fp32"]
    assert len({work.parameters for work in works.values()}) == 1
    flops = [count(work.counted)[0] for work in works.values()]
    forward, _ = count(process.forward(CPU, 1, settings, works[training.PLAIN].batch).counted)
    # Three forward passes' worth, but for the gradient of the images; the blur takes 3 % of this small network.
    assert max(flops) < 1.05 * min(flops) and 2.8 < min(flops) / forward < 3.1
    works["ours, eager fp32"].result()  # all losses were finite


def test_a_model_a_core(settings):
    rows = rows_by_name(training.stages(bench(settings, quick=False, threads=2)))
    ours = rows["ours, eager fp32, a model a core"]
    assert f"{training.DIFFUSERS}, a model a core" in rows and ours.baseline == training.DIFFUSERS
    assert [str(target) for target in ours.targets] == [f"at least 1.5 x {training.DIFFUSERS}"]
    work = ours.build(CPU, 2, **ours.arguments)
    work.call()
    assert work.items == 2 * training.AT_ONCE * settings["training"]["batch_size"]
    (alone,) = called([rows["ours, eager fp32"]]).values()
    assert count(work.counted)[0] == 2 * training.AT_ONCE * count(alone.counted)[0] > 0
    assert not any("a model a core" in name for name in rows_by_name(training.stages(bench(settings, quick=False))))
    with pytest.raises(Failure, match="TypeError: .*'network'"):
        training.a_model_a_core(CPU, 1, training.plain, {"settings": settings})


def test_what_is_timed_of_training_by_device(settings):
    stages = training.stages(bench(settings_for("cuda", PAPER), quick=False))
    assert [rows[0].stage for rows in stages] == ["training step, batch 16", "training step, batch 128"]
    small, big = (rows_by_name(stages, at) for at in (0, 1))
    compiled = "ours, compiled bf16"
    assert [str(target) for target in small[compiled].targets] == [f"at least 4 x {training.PLAIN}"]
    assert [str(target) for target in big[compiled].targets] == ["at least 0.4 of the matrix product"]
    assert {row.baseline for row in small.values()} == {training.PLAIN}
    on_cpu = rows_by_name(training.stages(bench(settings, quick=False)))
    assert [str(target) for target in on_cpu["ours, eager fp32"].targets] == [f"at least 1.5 x {training.DIFFUSERS}"]


def test_samplers_agree(settings):
    (rows,) = sampling.stages(bench(settings))
    works = called(rows)
    plain, ours = works[sampling.PLAIN].result(), works["ours, eager fp32"].result()
    assert plain.shape == (4, 3, 8, 8) and plain.std() > 0.1
    assert np.abs(ours - plain).max() <= 1e-4 * np.abs(plain).max()
    flops = [count(work.counted)[0] for work in works.values()]
    assert max(flops) < 1.1 * min(flops)
    assert {row.images_per_item for row in rows} == {1 / 200}


@pytest.mark.filterwarnings("ignore:This process")  # torchvision's loader forks
def test_preprocessing_gives_torchvisions_pixels(tmp_path, settings, monkeypatch):
    monkeypatch.chdir(tmp_path)  # torchvision's class writes to where it runs, and goes elsewhere for it
    prepare = preprocessing.prepare
    monkeypatch.setattr(preprocessing, "prepare", lambda folder, _, __, *rest: prepare(folder, 4, 6, *rest))
    for rows in preprocessing.stages(bench(settings, tmp_path, quick=False)):
        results = []
        for row in reversed(rows):  # torchvision's class last: it keeps the LMDB open, and that goes once a process
            work = build(row)
            work.call()
            assert work.items == 6 and work.has_processes and 3 * 64**2 < work.n_bytes < 3 * 64**2 + 40_000
            results += [work.result()] if row.implementation != preprocessing.DECODING else []
        assert results[0] == results[1] and results[0].startswith("6 ")
    assert [(row.stage, row.tolerance) for row in rows] == [("preprocessing, zip of JPEG", t) for t in (None, 0.0)]


def test_preprocessing_of_a_given_lmdb(tmp_path, settings):
    given = "/data/church_outdoor_train_lmdb"
    (rows,) = preprocessing.stages(bench(settings, tmp_path, quick=False, lmdb=given, threads=3))
    assert [row.stage for row in rows] == ["preprocessing church_outdoor_train_lmdb"] * 3
    assert {row.arguments["path"] for row in rows} == {given}


@pytest.mark.skipif("BLURDIFF_SLOW" not in os.environ, reason="runs Inception four times; BLURDIFF_SLOW=1 runs it")
@pytest.mark.filterwarnings("ignore:This process")
def test_features_agree(tmp_path, settings):
    inception, efficientnet = features.stages(bench(settings, tmp_path))
    for rows in (inception, efficientnet):
        works = [build(row) for row in rows]
        expected, found = (work.result() for work in works)
        assert np.ptp(expected, axis=0).max() > 0.1  # other features for other images
        assert features.relative(found, expected) <= rows[1].tolerance == 1e-5
        plain, fast = (count(work.counted)[0] for work in works)
        assert plain == fast > 0
    assert "random weights" in build(inception[0]).note


def test_frechet_distances_agree_and_are_real(settings):
    (rows,) = frechet.stages(bench(settings))
    theirs, ours = called(rows).values()
    expected, found = theirs.result(), ours.result()
    assert expected[0] > 1 and abs(found[0] / expected[0] - 1) <= rows[1].tolerance == 1e-10
    assert "of 32 images: 11.6898" in ours.note and "of 32 images: 11.6898" in theirs.note


def test_process_rows_run(settings):
    (rows,) = process.stages(bench(settings))
    assert len(rows) == 9 and {row.baseline for row in rows} == {process.NETWORK}
    assert all(count(work.counted)[0] > 0 for work in called(rows).values())


def test_ceilings_are_what_they_count(settings):
    (rows,) = ceilings.stages(bench(settings))
    works = called(rows)
    products = [works[row.implementation] for row in rows if row.unit == "FLOP/s"]
    assert len(products) >= 2 and all(count(work.call)[0] == work.items for work in products)
