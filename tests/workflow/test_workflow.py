"""The workflow through Snakemake itself, in a folder of its own, on images of 8×8 pixels."""

import csv
import json
import os
import re
import resource
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import pictures
from blurdiff.reporting.figures import FIGURES
from pictures import encode, noise
from running import SNAKEFILE, jobs_in, run_snakemake
from tiny import tiny_config

ROOT = Path(__file__).resolve().parents[2]
RUNS = ["rooms_none", "rooms_quartic"]
TINY = tiny_config(
    datasets={
        "rooms": {"synthetic": "bedroom", "n_images": 12, "seed": 1},
        "photos": {"lmdb": "data/photos_lmdb", "max_images": 6, "label": "some photos"},
    },
    runs=[{"dataset": "rooms", "f_type": "none"}, {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14}],
    figures={"figure1": RUNS, "animation": RUNS, "figure4": ["rooms_quartic"], "training": RUNS},
)  # fmt: skip
# All but the audit, which is the same for every config and takes half a minute.
FILES = [f"figures/{name}.{suffix}" for name in TINY["figures"] for suffix in FIGURES[name].formats]
TARGETS = ["results/table1.csv", "results/table1.md"] + [f"results/{file}" for file in FILES]


def write_lmdb(folder: Path, n: int) -> None:
    """An LMDB as LSUN has them: keys of 40 hex digits, values encoded images of various shapes."""
    rng = np.random.default_rng(0)
    pictures.write_lmdb(folder, {pictures.key(k): encode(noise(rng, 20 + k, 30), "WEBP") for k in range(n)})


def tiny(folder: Path, *arguments: str, targets=TARGETS, status: int | None = 0) -> str:
    """Snakemake with the tiny config."""
    options = ["--configfile", "tiny.yaml", "--cores", "2", *arguments]
    return run_snakemake(folder, *options, "--", *targets, status=status)


def plan(folder: Path, *arguments: str, targets=TARGETS) -> dict[str, int]:
    """How many jobs of each rule a dry run wants; {} when nothing is to be done."""
    return jobs_in(tiny(folder, "--dry-run", *arguments, targets=targets))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder in which the tiny workflow has run from beginning to end. Tests must leave it as it is."""
    folder = tmp_path_factory.mktemp("tiny")
    write_lmdb(folder / "data" / "photos_lmdb", 8)
    for name in ("random", "pickle", "json", "tempfile"):  # no job, and no process of one, takes these for Python's own
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working folder')")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    tiny(folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished folder, to be changed; modification times and hard links count for something."""
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(finished), str(folder)], check=True)
    return folder


def test_everything_is_made(finished):
    results = finished / "results"
    for name in FILES + [f"figures/{name}.md" for name in TINY["figures"]]:
        assert (results / name).stat().st_size > 0
    for run in RUNS:
        folder = results / "runs" / run / "seed0"
        for name in ("model.safetensors", "history.csv", "strips.npz", "statistics.npz"):
            assert (folder / name).exists()
        with np.load(folder / "samples.npz") as samples:
            assert samples["arr_0"].shape == (2, 8, 8, 3)
            assert samples["arr_0"].dtype == np.uint8
        evaluation = json.loads((folder / "fid.json").read_text())
        assert evaluation["metric"] == "FD-EfficientNet-Lite0"
        assert evaluation["n_samples"] == 2
        assert evaluation["run"]["run"] == run
        assert evaluation["run"]["synthetic"] is True
    assert (results / "data" / "rooms_lmdb" / "data.mdb").exists()
    assert np.load(results / "data" / "rooms" / "images.npy").shape == (12, 8, 8, 3)
    assert len(list((results / "benchmarks" / "train").iterdir())) == 2


def test_all_is_these_and_the_audit_and_the_other_tables(finished):
    assert plan(finished, targets=[]) == {"table": 2, "audit": 1, "page": 1, "all": 1}


def test_table_has_a_row_a_run(finished):
    with open(finished / "results" / "table1.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["f_type"], float(row["f_N"])) for row in rows] == [
        ("rooms", "none", 0.0),
        ("rooms", "quartic", 0.14),
    ]
    assert {row["iterations"] for row in rows} == {"2"}
    assert "synthetic" in (finished / "results" / "table1.md").read_text()


def test_second_run_does_nothing_and_is_quick(finished):
    def processor_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # Processor time and the best of three, since the machine may be busy with something else.
    for _ in range(3):
        before = processor_seconds()
        assert "Nothing to be done" in tiny(finished)
        seconds = processor_seconds() - before
        if seconds < 3:
            break
    assert seconds < 3


def test_deleting_samples_retrains_nothing(copied):
    for run in RUNS:
        folder = copied / "results" / "runs" / run / "seed0"
        shutil.rmtree(folder / "shards")
        (folder / "samples.npz").unlink()
        (folder / "fid.json").unlink()
    (copied / "results" / "table1.csv").unlink()
    jobs = plan(copied, targets=["results/table1.csv"])
    assert jobs == {"sample": 2, "gather": 2, "evaluate": 2, "table": 1}


def test_a_deleted_model_is_not_trained_anew(copied):
    """The rule runs, and finds the model in the store."""
    model = copied / "results" / "runs" / "rooms_none" / "seed0" / "model.safetensors"
    before = model.read_bytes()
    model.unlink()
    tiny(copied, targets=[str(model.relative_to(copied))])
    assert model.read_bytes() == before
    assert "the store has this model" in (copied / "results/logs/train/rooms_none.seed0.log").read_text()


CHANGES = {
    "runs of a figure": (['figures={"figure1": ["rooms_quartic"]}'], {"figure": 1}),
    # One shard of each run is added; the reference's floor and all that shows samples follow.
    "more samples": (
        ['sampling={"n_samples": 3}'],
        {"sample": 2, "gather": 2, "reference": 1, "evaluate": 2, "table": 1, "figure": 1, "animation": 1},
    ),
    "longer strips": (
        ['sampling={"n_strip": 1}'],
        {"sample": 2, "gather": 2, "evaluate": 2, "table": 1, "figure": 1, "animation": 1},
    ),
    "how jobs run": (
        ['training={"threads": 2, "log_every": 2, "checkpoint_every": 1, "device": "cuda"}',
         'sampling={"threads": 2, "batch_size": 1}', 'evaluation={"threads": 2, "batch_size": 3}', "store=elsewhere"],
        {},
    ),
    "a run more": (
        ['runs=[{"dataset": "rooms"}, {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14}, '
         '{"dataset": "rooms", "f_type": "log", "f_N": 0.6}]'],
        {"train": 1, "sample": 1, "gather": 1, "evaluate": 1, "table": 1},
    ),
    "another learning rate": (
        ['training={"learning_rate": 0.5}'],
        {"train": 2, "sample": 2, "gather": 2, "evaluate": 2, "table": 1, "figure": 2, "animation": 1},
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def plans(finished) -> dict[str, dict[str, int]]:
    """The plan after each change; two Snakemakes at a time, since each takes seconds to start."""
    with ThreadPoolExecutor(2) as pool:
        pending = {name: pool.submit(plan, finished, "--config", *CHANGES[name][0]) for name in CHANGES}
        return {name: each.result() for name, each in pending.items()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_anew_what_depends_on_it(plans, change):
    assert plans[change] == CHANGES[change][1]


def test_more_samples_keep_the_shards(copied):
    shards = copied / "results" / "runs" / "rooms_none" / "seed0" / "shards"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards.iterdir()}
    samples = shards.parent / "samples.npz"
    tiny(copied, "--config", 'sampling={"n_samples": 3}', targets=[str(samples.relative_to(copied))])
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards.iterdir()}
    assert after.keys() == before.keys() | {"1.npz"}
    assert all(after[name] == content for name, content in before.items())
    assert len(np.load(samples)["arr_0"]) == 3


def test_an_lmdb_becomes_images(copied):
    tiny(copied, targets=["results/data/photos/images.npy"])
    manifest = json.loads((copied / "results" / "data" / "photos" / "manifest.json").read_text())
    assert (manifest["n_used"], manifest["label"], manifest["synthetic"]) == (6, "some photos", False)
    assert np.load(copied / "results" / "data" / "photos" / "images.npy").shape == (6, 8, 8, 3)
    # Another one in its place, which may be older than what was made of the first.
    assert plan(copied, targets=["results/data/photos/images.npy"]) == {}
    shutil.rmtree(copied / "data" / "photos_lmdb")
    write_lmdb(copied / "data" / "photos_lmdb", 7)
    os.utime(copied / "data" / "photos_lmdb" / "data.mdb", (1e9, 1e9))
    assert plan(copied, targets=["results/data/photos/images.npy"]) == {"preprocess": 1}


def test_a_change_after_snakemakes_records_were_deleted_is_refused(copied):
    """It would take the old files for those of the new config, and captions would say so."""
    shutil.rmtree(copied / ".snakemake")
    assert plan(copied) == {}
    target = ["results/table1.csv"]  # far from what is changed
    for change, rule, file, key in (
        ('training={"iterations": 3}', "train", "model.safetensors", "training.iterations 2"),
        ('sampling={"grid": "snr"}', "evaluate", "fid.json", "sampling.grid uniform"),
        ('sampling={"n_samples": 3}', "evaluate", "fid.json", "sampling.n_samples 2"),
        ('datasets={"rooms": {"max_images": 5}}', "preprocess", "data/rooms/manifest.json", "max_images None"),
        ('datasets={"rooms": {"seed": 2}}', "synthesize", "data/rooms_lmdb/data.mdb", "seed 1"),
    ):
        output = tiny(copied, "--config", change, targets=target, status=1)
        [line] = [line for line in output.splitlines() if "was made with" in line]
        assert line.startswith("error: results/") and f"{file} was made with {key}, " in line
        assert line.endswith(f"put the config back, or run with --forcerun {rule}")
        assert "Nothing to be done" not in output and "Traceback" not in output
    # The last remedy works, and makes anew all that comes of it; a file that is not there is asked nothing.
    jobs = plan(copied, "--forcerun", "synthesize", "--config", change, targets=target)
    assert jobs == {"synthesize": 1, "preprocess": 1, "reference": 1, "train": 2, "sample": 2, "gather": 2,
                    "evaluate": 2, "table": 1}  # fmt: skip


def test_another_file_of_weights_is_noticed(copied):
    """A stand-in, as no job reads it: what there is counts as made with it."""
    config = ["--config", 'evaluation={"network": "inception", "weights": "weights.pth"}']
    target, weights = ["results/table1.csv"], copied / "weights.pth"
    weights.write_bytes(b"one")
    tiny(copied, "--touch", *config, targets=target)
    assert plan(copied, *config, targets=target) == {}
    weights.write_bytes(b"two")
    os.utime(weights, (1e9, 1e9))
    assert plan(copied, *config, targets=target) == {"reference": 1, "evaluate": 2, "table": 1}


def test_an_older_table_in_the_place_of_another_is_noticed(tmp_path):
    table, target = tmp_path / "table.csv", ["results/figures/figure4.png"]
    runs = [{"dataset": "rooms", "f_type": "table", "f_table": "table.csv", "name": "own"}]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "datasets": {"rooms": {"synthetic": "bedroom"}},
                                                        "runs": runs, "figures": {"figure4": ["own"]}}))  # fmt: skip
    table.write_text("i,f\n0,0\n4,0.5\n")
    tiny(tmp_path, targets=target)
    os.utime(table)
    assert plan(tmp_path, targets=target) == {}  # its content is the same
    table.write_text("i,f\n0,0\n4,0.7\n")
    os.utime(table, (1e9, 1e9))
    assert plan(tmp_path, targets=target) == {"figure": 1}


def test_a_run_that_shares_a_model_makes_nothing_of_the_others_anew(copied):
    runs = [*TINY["runs"], {"dataset": "rooms", "f_type": "none", "sampling": {"grid": "snr"}}]
    (copied / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "runs": runs}))
    tiny(copied, targets=["results/runs/rooms_none_grid-snr/seed0/model.safetensors"])
    # Models larger than this Snakemake compares by their time alone.
    samples = [f"results/runs/{run}/seed0/samples.npz" for run in RUNS]
    assert plan(copied, "--max-checksum-file-size", "1", targets=samples) == {}


def test_a_failing_job_shows_its_one_line(copied):
    path = copied / "data" / "photos_lmdb" / "data.mdb"
    path.write_bytes(path.read_bytes()[:5000])
    output = tiny(copied, targets=["results/data/photos/images.npy"], status=1)
    lines = [line.strip() for line in output.splitlines() if line.strip().startswith("error: ")]
    assert lines and all("photos_lmdb" in line for line in lines)
    assert "Traceback" not in output
    assert not (copied / "results" / "data" / "photos" / "images.npy").exists()


def test_a_run_ends_with_a_page(copied):
    """Named by the last line, also when there is nothing to do. The audit, half a minute, is made up."""
    audit, page = copied / "results" / "audit", "results/report.html"
    audit.mkdir()
    for name in ("operator.png", "gaussian.png"):
        Image.new("RGB", (60, 40)).save(audit / name)
    (audit / "differences.md").write_text("| paper | code |\n|---|---|\n| a | b |\n")
    output = tiny(copied, targets=[page])
    assert output.splitlines()[-1].endswith(f" {page}")
    made = (copied / page).read_text()
    assert made.count("<img") == 3 + 4 + 2  # data and two runs, the figures, those of the audit
    assert "rooms_quartic" in made and "Not there yet" not in made
    assert tiny(copied, targets=[page]).splitlines()[-1].endswith(f" {page}")
    for arguments in (["--dry-run"], ["--forcerun", "page", "--dry-run"]):
        assert page not in tiny(copied, *arguments, targets=[page]).splitlines()[-1]
    assert page not in tiny(copied).splitlines()[-1]
    # A change of the config that the page shows makes it anew.
    assert plan(copied, "--config", "figures={figure4: [rooms_none]}", targets=[page])["page"] == 1


def test_report_is_one_file_with_captions(copied):
    tiny(copied, "--report", "report.html")
    page = (copied / "report.html").read_text()
    for words in ("Table 1: Fr", "Figure 1: reverse processes", "no photographs", "not FID", "arXiv 2207.11192"):
        assert words in page


def test_works_as_a_module_and_from_another_folder(copied):
    (copied / "outer").mkdir()
    (copied / "outer" / "blur.yaml").write_text(yaml.safe_dump({"blur": TINY}))
    (copied / "outer" / "Snakefile").write_text(
        f'configfile: "outer/blur.yaml"\n\nmodule blur:\n    snakefile: "{SNAKEFILE}"\n    config: config["blur"]\n\n'
        "use rule * from blur as blur_*\n\nrule mine:\n    default_target: True\n"
        "    input: expand(rules.blur_table.output, table='table1')\n"
    )
    outer = ["--snakefile", "outer/Snakefile", "--cores", "1"]
    assert "Nothing to be done" in run_snakemake(copied, *outer)
    # A remedy names rules as they are called here.
    shutil.rmtree(copied / ".snakemake")
    (copied / "outer" / "blur.yaml").write_text(yaml.safe_dump({"blur": {**TINY, "training": {"iterations": 3}}}))
    assert "or run with --forcerun blur_train" in run_snakemake(copied, *outer, "-n", status=1)
    assert "blur_table" in run_snakemake(copied, *outer, "-n", "--forcerun", "blur_train")


def test_a_given_config_is_not_mixed_with_the_default(tmp_path):
    """The default's synthetic bedrooms must not stay beside an LMDB of the same name."""
    write_lmdb(tmp_path / "photos_lmdb", 2)
    raw = {
        "datasets": {"bedroom": {"lmdb": "photos_lmdb"}},
        "training": {"iterations": 1},
        "runs": [{"dataset": "bedroom"}],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    output = run_snakemake(tmp_path, "--configfile", "mine.yaml", "--dry-run")
    assert "synthesize" not in output
    assert re.search(r"^figure ", output, re.MULTILINE) is None
    assert re.search(r"^train +1$", output, re.MULTILINE)


def test_the_default_config_needs_nothing(tmp_path):
    """Through the Snakefile in the root, as users call it; its default target and profile are found from there too."""
    output = run_snakemake(tmp_path, "--snakefile", str(ROOT / "Snakefile"), "--dry-run")
    assert re.search(r"^train +10$", output, re.MULTILINE)
    assert re.search(r"^synthesize +2$", output, re.MULTILINE)
    assert re.search(r"^table +3$", output, re.MULTILINE)
    assert re.search(r"Using workflow specific profile \S*profiles/default", output)


def test_the_papers_config_without_data_says_what_is_missing(tmp_path):
    output = run_snakemake(tmp_path, "--configfile", str(ROOT / "config" / "paper.yaml"), "--dry-run", status=1)
    [line] = [line for line in output.splitlines() if "is missing" in line]
    assert "data/bedroom_train_lmdb/data.mdb is missing; download http://dl.yf.io/lsun/scenes/bedroom_train" in line
    assert "Traceback" not in output and "File " not in output


def test_a_bad_config_is_one_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("training: {iterations: 10, learning_rate: 2e-4}\n")
    output = run_snakemake(tmp_path, "--configfile", "bad.yaml", "--dry-run", status=1)
    assert output.strip().splitlines()[-1].startswith("bad.yaml: ")
    assert "Traceback" not in output


def test_values_of_the_command_line_have_types(tmp_path):
    """Inside lists and sections Snakemake leaves them as text."""
    arguments = ["--config", "seeds=[0, 1]", 'network={"n_heads": 3}']
    output = run_snakemake(tmp_path, "--dry-run", *arguments, status=1)
    assert "+ --config: network.n_heads: 3 does not divide" in output


def test_lint_finds_nothing(tmp_path):
    assert "good condition" in run_snakemake(tmp_path, "--snakefile", str(ROOT / "Snakefile"), "--lint")


def test_a_figure_of_two_hundred_runs(tmp_path):
    """Their settings are files: as arguments they would be longer than the system allows."""
    runs = [{"dataset": "rooms", "f_type": "quartic", "f_N": k / 1000, "name": f"r{k}"} for k in range(1, 201)]
    data = {"rooms": {"synthetic": "bedroom", "n_images": 12}}
    config = tiny_config(datasets=data, runs=runs, figures={"figure4": [run["name"] for run in runs]})
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(config))

    run_snakemake(tmp_path, "--configfile", "many.yaml", "--dry-run", "--quiet")
    assert not (tmp_path / "results").exists()
    run_snakemake(tmp_path, "--configfile", "many.yaml", "--cores", "1", "--", "results/figures/figure4.png")
    assert (tmp_path / "results" / "figures" / "figure4.png").stat().st_size > 10_000
    settings = json.loads((tmp_path / "results" / "runs" / "r200" / "seed0" / "settings.json").read_text())
    assert settings["process"]["f_N"] == 0.2
