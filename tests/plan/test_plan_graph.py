"""The jobs of a plan are Snakemake's, with the data there and without."""

import os
import shutil
from pathlib import Path

import pytest

from blurdiff.config.runs import check_config
from blurdiff.data.scenes import draw_files
from blurdiff.plan.graph import jobs_of
from blurdiff.plan.work import QUICK, WORK
from pictures import key, write_lmdb
from running import jobs_in, run_snakemake


def dry_run(workplace, *targets):
    """{rule: number of jobs that have to run}, as the command `snakemake -n` counts them."""
    counted = jobs_in(run_snakemake(workplace, "--configfile", "config0.yaml", "--cores", "2", "--dry-run", *targets))
    return {rule: n for rule, n in counted.items() if rule not in QUICK}


def put_lmdb(folder, n):
    """A real LMDB of drawn images."""
    write_lmdb(folder, {key(k): value for k, value in enumerate(draw_files("bedroom", 0, range(n)))})


@pytest.mark.parametrize("parts", [1, 3])
def test_jobs_are_those_of_a_dry_run(workplace, planned, tiny, parts):
    """With a real LMDB, of which the images are counted and the first are read to measure; and without."""
    tiny["datasets"]["rooms"] = {"lmdb": "data/my_lmdb", "parts": parts}
    tiny["seeds"] = [0, 1]
    put_lmdb(Path("data/my_lmdb"), 9)
    there = planned(tiny, options=["--calibration-seconds", "0.01", "--cores", "2"])
    jobs = {stage["rule"]: stage["jobs"] for stage in there["stages"]}
    assert jobs == dry_run(workplace)
    assert there["datasets"]["rooms"]["n_images"] == 9
    notes = [note for stage in there["stages"] for kind, note, _ in stage["rates"] if kind == "preprocess"]
    assert notes == ["a core; its first images"]
    os.rename("data/my_lmdb/data.mdb", "data.mdb")
    missing = planned(tiny)
    assert {stage["rule"]: stage["jobs"] for stage in missing["stages"]} == jobs
    assert missing["datasets"]["rooms"]["n_images"] is None
    # What was made of an LMDB that is gone is still there.
    made = Path("results/data/rooms")
    made.mkdir(parents=True)
    for name in ("images.npy", "manifest.json"):
        (made / name).write_text("{}")
    done = {stage["rule"]: stage["done"] == stage["jobs"] for stage in planned(tiny)["stages"]}
    assert done == {rule: rule.startswith(("preprocess", "join")) for rule in jobs}
    os.rename("data.mdb", "data/my_lmdb/data.mdb")
    os.utime("data/my_lmdb/data.mdb", (1e9, 1e9))
    left = {stage["rule"]: stage["jobs"] - stage["done"] for stage in planned(tiny)["stages"]}
    assert {rule: n for rule, n in left.items() if n} == dry_run(workplace)


@pytest.mark.parametrize("key", ["folder", "zip"])
def test_pictures_are_counted(workplace, planned, tiny, key):
    """Those of a folder or a zip; without them, the jobs are the same."""
    Path("pictures/below").mkdir(parents=True)
    for n, value in enumerate(draw_files("bedroom", 0, range(3))):
        Path(f"pictures/below/{n}.webp").write_bytes(value)
    shutil.make_archive("pictures", "zip", "pictures")
    path = "pictures" if key == "folder" else "pictures.zip"
    tiny["datasets"]["rooms"] = {key: path, "crop": "center"}
    there = planned(tiny, options=["--calibration-seconds", "0.01", "--cores", "2"])
    assert (there["datasets"]["rooms"]["n_images"], there["datasets"]["rooms"]["known_from"]) == (3, path)
    notes = [note for stage in there["stages"] for kind, note, _ in stage["rates"] if kind == "preprocess"]
    assert notes == ["a core; its first images"]
    os.rename(path, "elsewhere")
    missing = planned(tiny)
    assert missing["datasets"]["rooms"]["n_images"] is None
    assert [(s["rule"], s["jobs"]) for s in missing["stages"]] == [(s["rule"], s["jobs"]) for s in there["stages"]]


def test_tables_and_weights_that_are_missing(workplace, planned, tiny):
    tiny["evaluation"] |= {"network": "inception", "weights": "weights.pth"}
    tiny["runs"][0] = {"name": "tabled", "dataset": "rooms", "f_type": "table", "f_table": "f.csv"}
    tiny["datasets"]["rooms"] = {"lmdb": "../rooms_lmdb"}
    jobs = planned(tiny)["stages"]
    assert {stage["rule"]: stage["jobs"] for stage in jobs}["train"] == 2


def test_a_download_is_a_job_of_which_nobody_knows_the_time(workplace, planned, tiny):
    tiny["datasets"]["rooms"] = {"lmdb": "data/bedroom_train_lmdb", "download": "lsun"}
    (found,) = [stage for stage in planned(tiny)["stages"] if stage["rule"] == "download_rooms"]
    assert (found["jobs"], found["done"], found["seconds"]) == (1, 0, None)


def test_every_rule_of_the_workflow_is_known(workplace, tiny):
    tiny["datasets"]["more"] = {"synthetic": "church", "n_images": 12, "parts": 2}
    tiny["runs"].append({"dataset": "more", "f_type": "none", "snr_tilt": 0})
    tiny["figures"] = {"figure4": ["rooms_quartic"], "animation": ["rooms_quartic"]}
    rules = {job.rule for job in jobs_of(check_config(tiny), 1)}
    assert rules == QUICK | WORK.keys()


def test_threads_are_those_of_the_rules(workplace, tiny):
    tiny["training"] |= {"device": "cuda", "threads": 3, "gpus": 2}
    jobs = jobs_of(check_config(tiny), 8)
    assert {(job.threads, job.gpus) for job in jobs if job.rule == "train"} == {(3, 2)}
    assert {(job.threads, job.gpus) for job in jobs if job.rule == "preprocess"} == {(8, 0)}
    (gather, *_) = [job for job in jobs if job.rule == "gather"]
    assert [source.rule for source in gather.sources] == ["sample", "sample"]
    assert gather.wildcards == {"run": "rooms_none", "seed": "0"}
