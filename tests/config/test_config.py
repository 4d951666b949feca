"""The config: what is refused and how that is said, what is filled in, and how runs come of it."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from blurdiff import cli
from blurdiff.config import runs as config
from blurdiff.config import schema as config_schema
from blurdiff.config.settings import SECTIONS
from blurdiff.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = {
    "datasets": {"rooms": {"synthetic": "bedroom"}},
    "training": {"iterations": 10},
    "runs": [{"dataset": "rooms", "f_type": "none"}],
}


def with_keys(**sections) -> dict:
    """The minimal config with some top-level keys replaced or (sections) extended."""
    raw = copy.deepcopy(MINIMAL)
    for key, value in sections.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) and key != "datasets" else value
    return raw


def refusal(raw: dict) -> str:
    with pytest.raises(UserError) as caught:
        config.check_config(raw, "c.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("c.yaml: ")
    return message.removeprefix("c.yaml: ")


# Parts of a config as a user writes them, the key that the message must begin with, and words that it must hold.
ROOM = "dataset: rooms"
BAD = [
    # keys and types
    ("training: {lerning_rate: 1.0e-4}", "training.lerning_rate", "did you mean learning_rate?"),
    ("foo: 1", "foo", "unknown key"),
    (f"runs: [{{{ROOM}, f: 1}}]", "runs[0].f", "unknown key"),
    ("figures: {figure0: [rooms_none]}", "figures.figure0", "unknown key"),
    ("process: {snr_shift: auo}", "process.snr_shift", 'must be a number or auto, not "auo" (did you mean auto?)'),
    ("training: {learning_rate: 2e-4}", "training.learning_rate", "write 2.0e-4"),
    ("training: {iterations: 4.5e5}", "training.iterations", "write 4.5e+5"),
    ("resolution: '64'", "resolution", "write 64 without quotes"),
    ("process: {sigma: much}", "process.sigma", "must be a number"),
    ("training: {batch_size: true}", "training.batch_size", "whole number, not true"),
    ("training: {batch_size: 1.5}", "training.batch_size", "whole number"),
    ("process:", "process", "section of keys, not null"),
    # ranges
    ("process: {sigma: .nan}", "process.sigma", "finite"),
    ("process: {f_type: log, f_N: .inf}", "process.f_N", "≤ 1e+06"),
    ("process: {f_N: -0.1}", "process.f_N", "≥ 0"),
    ("sampling: {n_samples: 0}", "sampling.n_samples", "≥ 2"),
    ("process: {f_type: logarithm}", "process.f_type", "not one of none, linear"),
    (f"runs: [{{{ROOM}, preset: x}}]", "runs[0].preset", "ihdm"),
    ("seeds: [1, 1]", "seeds", "twice"),
    # processes
    ("process: {f_N: 0.6}", "process.f_N", "f_type none"),
    (f"runs: [{{{ROOM}, f_type: log}}]", "process.f_N", "f_N > 0"),
    (f"runs: [{{{ROOM}, f_type: table}}]", "process.f_table", "columns i and f"),
    ("process: {beta_1: 0.5}", "process.beta_1", "larger than beta_N"),
    (f"runs: [{{{ROOM}, f_type: quartic, f_N: 0.1, direction: fine-to-coarse, border: circular}}]", "process.floor",
     "give a floor"),
    (f"runs: [{{{ROOM}, preset: blurring-diffusion, f_type: log, f_N: 0.1}}]", "runs[0].f_type", "has no effect"),
    # networks
    ("network: {n_heads: 3}", "network.n_heads", "does not divide the width"),
    ("network: {attention_resolutions: [], multipliers: [1, 3], channels: 32, n_heads: 64}", "network.n_heads",
     "the width 96 at 32×32"),
    ("network: {attention_resolutions: [7]}", "network.attention_resolutions", "7×7"),
    ("network: {n_groups: 48}", "network.n_groups", "does not divide the width 128"),
    ("resolution: 36", "network.multipliers", "divisible by 8"),
    # sampling and evaluation
    ("sampling: {n_steps: 1001}", "sampling.n_steps", "1000 timesteps"),
    (f"runs: [{{{ROOM}, n_timesteps: 50, sampling: {{n_steps: 51}}}}]", "runs[0].sampling.n_steps",
     "51 is more than the 50"),
    ("sampling: {n_steps: 3, n_snapshots: 5}", "sampling.n_snapshots", "the 4 states"),
    ("sampling: {shard_size: 4, n_strip: 5}", "sampling.n_strip", "5 is more"),
    ("sampler_study: {runs: [x]}", "sampler_study.runs", "no run is named"),
    ("sampler_study: {runs: [rooms_none], n_steps: [5000]}", "sampler_study.n_steps", "more than the"),
    ("evaluation: {network: efficientnet-lite0, weights: w.pth}", "evaluation.weights", "inception"),
    # data sets
    ("datasets: {}", "datasets", "must not be empty"),
    ("datasets: {rooms: {}}", "datasets.rooms", "synthetic, lmdb, folder, zip"),
    ("datasets: {rooms: {synthetic: church, lmdb: x}}", "datasets.rooms", "synthetic and lmdb"),
    ("datasets: {rooms: {synthetic: church, folder: x, zip: y}}", "datasets.rooms", "synthetic and folder and zip"),
    ("datasets: {rooms: {synthetic: kitchen}}", "datasets.rooms.synthetic", "bedroom, church"),
    ("datasets: {rooms: {folder: x, n_images: 7}}", "datasets.rooms.n_images", "max_images"),
    ("datasets: {rooms: {zip: x.zip, download: lsun}}", "datasets.rooms.download", "lmdb"),
    ("datasets: {rooms: {folder: .}}", "datasets.rooms.folder", "keep them apart"),
    ("datasets: {rooms: {folder: x, crop: top}}", "datasets.rooms.crop", "center"),
    ("datasets: {rooms: {lmdb: x, seed: 1}}", "datasets.rooms.seed", "synthetic"),
    # names and paths
    ("datasets: {a/b: {lmdb: x}}", "datasets", '"a/b" is no name'),
    (f"datasets: {{{'a' * 300}: {{lmdb: x}}}}", "datasets", "300"),
    (f"runs: [{{{ROOM}, name: {'a' * 121}}}]", "runs[0].name", "121"),
    (f"results: a/{'é' * 101}", "results", "202 bytes"),
    (f"store: {'a/' * 2000}", "store", "longer than"),
    (f"runs: [{{{ROOM}, f_type: table, f_table: {'a' * 256}}}]", "runs[0].f_table", "256"),
    # runs and figures
    ("runs: []", "runs", "must not be empty"),
    ("runs: [{f_type: none}]", "runs[0].dataset", "is missing"),
    ("runs: [{dataset: halls}]", "runs[0].dataset", "no data set is named 'halls'"),
    (f"runs: [{{{ROOM}}}, {{{ROOM}}}]", "runs[1]", "as runs[0]"),
    (f"runs: [{{{ROOM}}}, {{{ROOM}, name: other}}]", "runs[1]", "as runs[0]"),
    (f"runs: [{{{ROOM}, name: a}}, {{{ROOM}, name: a, sigma: 1}}]", "runs[1]", "as runs[0]"),
    (f"{{runs: [{{{ROOM}}}, {{{ROOM}, range: symmetric, name: s}}], figures: {{animation: [rooms_none, s]}}}}",
     "figures.animation", "rooms_none and s differ in process.range"),
    ("sampler_study: {samplers: [{sampler: ddim}, {sampler: ddim, eta: 0}]}", "sampler_study.samplers[1]",
     "the same as samplers[0]"),
    (f"runs: [{{{ROOM}, name: {'ab' * 20}}}]", "runs", "repeats ab 20 times at its end"),
    ("datasets: {rooms: {folder: photos, label: rooms (synthetic)}}", "datasets.rooms.label", "says synthetic"),
    ("figures: {figure1: [x]}", "figures.figure1", "no run is named 'x'"),
    (f"{{runs: [{{{ROOM}, preset: ihdm}}], figures: {{samples: [rooms_ihdm]}}}}", "figures.samples",
     "forward process only"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "words"), BAD, ids=[text[:60] for text, *_ in BAD])
def test_refused_in_one_line_that_names_the_key(text, key, words):
    message = refusal(with_keys(**yaml.safe_load(text)))
    assert message.startswith(f"{key}: ")
    assert words in message


def test_a_training_needs_iterations():
    assert refusal({**MINIMAL, "training": {}}) == "training.iterations: is missing"


def test_minimal_config_is_accepted_and_complete():
    complete = config.check_config(MINIMAL)
    [settings] = config.resolve_runs(complete)
    assert settings["run"] == "rooms_none"
    assert settings["label"] == "rooms (synthetic)"
    assert settings["synthetic"] is True
    for section in SECTIONS:
        assert settings[section].keys() == config_schema.config_schema()["properties"][section]["properties"].keys()


def test_the_callers_config_is_left_alone():
    raw = copy.deepcopy(MINIMAL)
    config.check_config(raw)
    assert raw == MINIMAL


def test_schema_defaults_are_the_papers_values():
    """Section 4 and appendix B of the paper."""
    [settings] = config.resolve_runs(config.check_config(MINIMAL))
    assert settings["resolution"] == 64
    assert dict(settings.network) == {
        "channels": 128, "multipliers": [1, 2, 3, 4], "n_res_blocks": 3, "attention_resolutions": [16, 8],
        "n_heads": 4, "n_groups": 32, "dropout": 0.0,
    }  # fmt: skip
    assert settings["training"]["batch_size"] == 16
    assert settings["training"]["learning_rate"] == 5e-5
    assert settings["training"]["ema_decay"] == 0.9999
    assert settings["process"]["n_timesteps"] == settings["sampling"]["n_steps"] == 1000
    assert (settings["process"]["beta_1"], settings["process"]["beta_N"]) == (1e-4, 0.02)
    assert settings["process"]["sigma"] == 0.4
    assert settings["sampling"]["n_samples"] == 10_000


def test_equal_numbers_give_equal_settings():
    """A model's fingerprint is a hash of JSON: 1 and 1.0 must not be two models."""
    run = {"dataset": "rooms", "f_type": "log"}
    one = with_keys(runs=[run | {"f_N": 1}], training={"iterations": 1000})
    other = with_keys(runs=[run | {"f_N": 1.0}], training={"iterations": 1e3})
    texts = [json.dumps(config.resolve_runs(config.check_config(raw))[0].as_dict()) for raw in (one, other)]
    assert texts[0] == texts[1]
    assert '"f_N": 1.0' in texts[0] and '"iterations": 1000,' in texts[0]


def test_run_goes_before_data_set_before_section():
    raw = with_keys(
        datasets={"rooms": {"synthetic": "bedroom", "training": {"iterations": 20, "batch_size": 2}}},
        training={"iterations": 10, "batch_size": 1, "learning_rate": 0.5},
        runs=[{"dataset": "rooms"}, {"dataset": "rooms", "training": {"iterations": 30}}],
    )
    first, second = config.resolve_runs(config.check_config(raw))
    keys = ("iterations", "batch_size", "learning_rate")
    assert [first["training"][key] for key in keys] == [20, 2, 0.5]
    assert [second["training"][key] for key in keys] == [30, 2, 0.5]
    assert second["run"] == "rooms_none_iterations-30"


def test_the_study_of_samplers_is_the_same_for_every_run():
    """What a run says of its own sampling does not leak into it, and what the config says for all runs holds."""
    own = {"dataset": "rooms", "name": "own", "sampling": {"grid": "snr", "eta": 0.5, "noise_free_steps": 0}}
    raw = with_keys(
        runs=[{"dataset": "rooms"}, own],
        sampling={"grid": "quadratic", "start": "prior"},
        sampler_study={"runs": ["own"], "samplers": [{"sampler": "ddim"}, {"sampler": "ddim", "grid": "uniform"}]},
    )
    complete = config.check_config(raw)
    drawn = [
        [dataclasses.replace(run.sampling, n_steps=10, **choice) for choice in config.study_samplers(complete, run)]
        for run in config.resolve_runs(complete)
    ]
    assert drawn[0] == drawn[1]
    assert [(each.grid, each.eta, each.noise_free_steps, each.start) for each in drawn[1]] == [
        ("quadratic", 0.0, 2, "prior"), ("uniform", 0.0, 2, "prior"),
    ]  # fmt: skip


def test_every_seed_of_every_run():
    raw = with_keys(runs=[{"dataset": "rooms"}, {"dataset": "rooms", "f_type": "log", "f_N": 1}], seeds=[3, 1])
    resolved = config.resolve_runs(config.check_config(raw))
    assert [(each["run"], each["seed"]) for each in resolved] == [
        ("rooms_none", 3), ("rooms_none", 1), ("rooms_log", 3), ("rooms_log", 1),
    ]  # fmt: skip


def test_names_of_runs():
    runs = [
        {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14},
        {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14, "direction": "fine-to-coarse"},
        {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14, "mode_order": "released"},
        {"dataset": "rooms", "f_type": "quartic", "f_N": 0.3},
        {"dataset": "rooms", "f_type": "table", "f_table": "tables/my f.csv"},
        {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14, "sampling": {"grid": "snr"}},
    ]
    complete = config.check_config(with_keys(runs=runs))
    assert [run["name"] for run in complete["runs"]] == [
        "rooms_quartic",
        "rooms_quartic_fine-to-coarse",
        "rooms_quartic_mode_order-released",
        "rooms_quartic_f_N-0.3",
        "rooms_table_f_table-my-f.csv",
        "rooms_quartic_grid-snr",
    ]


def test_names_of_runs_with_many_overrides_are_short_and_differ():
    """They become names of files, which may have 255 bytes."""
    many = {"dataset": "rooms", "sigma": 0.5, "beta_1": 0.001, "beta_N": 0.03, "noise_schedule": "cosine",
            "f_type": "none", "basis": "dct", "sampling": {"noise_free_steps": 1, "sampler": "ddim", "eta": 0.5},
            "training": {"learning_rate": 1e-3, "batch_size": 4, "checkpoint_every": 7}}  # fmt: skip
    runs = [many, {**many, "training": {**many["training"], "checkpoint_every": 8}}]
    names = [run["name"] for run in config.check_config(with_keys(runs=runs))["runs"]]
    assert names[0] != names[1] and names == [run["name"] for run in config.check_config(with_keys(runs=runs))["runs"]]
    assert all(len(name) == 120 and name.startswith("rooms_none_") for name in names)


def test_shards_bound_the_batch():
    raw = with_keys(sampling={"shard_size": 10, "batch_size": 64})
    assert config.resolve_runs(config.check_config(raw))[0]["sampling"]["batch_size"] == 10


def test_null_removes_a_source():
    dataset = {"synthetic": None, "n_images": None, "seed": None, "lmdb": "data/x_lmdb"}
    [settings] = config.resolve_runs(config.check_config(with_keys(datasets={"rooms": dataset})))
    assert settings["synthetic"] is False


def test_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {iterations: 1}\nruns: []\ntraining: {iterations: 2}\n")
    with pytest.raises(UserError, match=r"c\.yaml, line 3: the key training stands there twice"):
        config.load_config(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runs: [1\n", "line 2"),
        ("", "must be a section"),
        ("- 1", "must be a section"),
        ("\x00", "YAML"),
        ("[a]: 1", "YAML"),
    ],
)
def test_no_yaml_config(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        config.load_config(path)
    assert str(path) in str(caught.value)


def test_missing_config_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        config.load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["config", "quick", "paper", "released-code"])
def test_configs_of_the_repository_are_valid(name):
    complete = config.load_config(ROOT / "config" / f"{name}.yaml")
    assert complete["figures"].keys() >= {"figure1", "figure2"}
    expected = "results" if name == "config" else f"results/{name}"
    assert complete["results"] == expected


def test_paper_config_is_the_papers():
    paper = config.load_config(ROOT / "config" / "paper.yaml")
    resolved = {each["run"]: each for each in config.resolve_runs(paper)}
    assert list(resolved) == [
        "bedroom_none", "bedroom_log", "bedroom_quartic",
        "church_none", "church_quartic", "church_quartic_fine-to-coarse",
    ]  # fmt: skip
    [defaults] = config.resolve_runs(config.check_config(MINIMAL))
    for name, settings in resolved.items():
        assert settings["training"]["iterations"] == (450_000 if settings["dataset"] == "bedroom" else 600_000)
        assert settings["network"] == defaults["network"]
        same = {key for key, value in settings["process"].items() if value == defaults["process"][key]}
        assert settings["process"].keys() - same <= {"f_type", "f_N", "direction"}, name
        assert settings["evaluation"]["network"] == "inception"
    assert resolved["bedroom_log"]["process"]["f_N"] == 0.6
    assert resolved["bedroom_quartic"]["process"]["f_N"] == pytest.approx(0.15**2 / 0.4**2)  # (sigma_max / sigma)²


def test_released_code_config_is_the_papers_with_switches():
    paper = config.load_config(ROOT / "config" / "paper.yaml")
    released = config.load_config(ROOT / "config" / "released-code.yaml")
    switches = {"mode_order": "released", "f_anchor": "released", "floor": 0.03, "skip_last_timestep": True}
    assert released["process"] == paper["process"] | switches
    assert released["sampling"] == paper["sampling"] | {"strip_x0": "released"}
    for section in ("datasets", "network", "training", "evaluation", "resolution", "store", "seeds"):
        assert released[section] == paper[section]
    # There is no fine-to-coarse in the released code.
    assert released["runs"] == [run for run in paper["runs"] if "direction" not in run]
    assert {each["sampling"]["n_steps"] for each in config.resolve_runs(released)} == {999}


def test_missing_lmdb_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    complete = config.load_config(ROOT / "config" / "paper.yaml")
    with pytest.raises(UserError) as caught:
        config.check_files(complete, "paper.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert "datasets.bedroom.lmdb: data/bedroom_train_lmdb/data.mdb is missing" in message
    assert "http://dl.yf.io/lsun/scenes/bedroom_train_lmdb.zip" in message
    assert "http://dl.yf.io/lsun/scenes/church_outdoor_train_lmdb.zip" in message
    for folder in ("bedroom_train_lmdb", "church_outdoor_train_lmdb"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "data.mdb").touch()
    config.check_files(complete, "paper.yaml")


@pytest.mark.parametrize(
    ("key", "path", "words"),
    [("folder", "gone", "gone is missing; give a folder of pictures"),
     ("zip", "gone.zip", "gone.zip is missing; give a zip of pictures"),
     ("folder", "p.zip", "p.zip is no folder of pictures; give a folder of pictures, or write zip: p.zip"),
     ("zip", "photos", "photos is no zip of pictures; give a zip of pictures, or write folder: photos"),
     ("lmdb", "photos/", "photos/data.mdb is missing; give a folder with an LSUN-format LMDB (data.mdb), or write"
      " folder: photos"),
     ("folder", "photos", ""), ("zip", "p.zip", "")],
)  # fmt: skip
def test_missing_pictures_say_what_to_write(tmp_path, monkeypatch, key, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "p.zip").touch()
    complete = config.check_config(with_keys(datasets={"rooms": {key: path}}))
    if not words:
        return config.check_files(complete)
    with pytest.raises(UserError) as caught:
        config.check_files(complete, "own.yaml")
    assert str(caught.value) == f"own.yaml: datasets.rooms.{key}: {words}"
    return None


def test_other_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = with_keys(
        datasets={"rooms": {"lmdb": "mine"}},
        runs=[{"dataset": "rooms", "f_type": "table", "f_table": "f.csv", "power": "d.csv"}],
        evaluation={"weights": "w.pth"},
    )
    with pytest.raises(UserError) as caught:
        config.check_files(config.check_config(raw))
    for words in ("mine/data.mdb", "LSUN-format", "f_table: f.csv", "power: d.csv", "weights: w.pth"):
        assert words in str(caught.value)


def test_read_settings_takes_text_and_files(tmp_path):
    [settings] = config.resolve_runs(config.check_config(MINIMAL))
    (tmp_path / "s.json").write_text(json.dumps(settings.as_dict()))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(settings.as_dict()))
    for source in (json.dumps(settings.as_dict()), tmp_path / "s.json", str(tmp_path / "s.yaml")):
        assert config.read_settings(source) == settings


SHORT = {"run": "short", "dataset": "rooms", "seed": 0, "resolution": 16, "training": {"iterations": 3}}


def test_read_settings_fills_in_defaults_and_all_steps():
    settings = config.complete_settings({**SHORT, "process": {"n_timesteps": 20, "skip_last_timestep": True}})
    assert (settings.process.sigma, settings.network.channels, settings.label) == (0.4, 128, "rooms")
    assert settings.sampling.n_steps == settings.n_steps == settings.process.last_timestep == 19


@pytest.mark.parametrize("key", SHORT)
def test_what_settings_must_have(key):
    with pytest.raises(UserError, match=f"^s.json: {key}: is missing$"):
        config.complete_settings({name: value for name, value in SHORT.items() if name != key}, "s.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ('{"process": {"sigmaa": 1}}', "process.sigmaa: unknown key"),
        ('{"process": {"sigma": -1}}', "process.sigma: must be > 0"),
        ('{"proces": {}}', "did you mean process"),
        ("nowhere.json", "cannot read nowhere.json"),
    ],
)
def test_read_settings_refuses(text, words):
    with pytest.raises(UserError, match=re.escape(words)):
        config.read_settings(text)


def test_settings_stage(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    raw = with_keys(runs=[{"dataset": "rooms"}, {"dataset": "rooms", "f_type": "log", "f_N": 1}], seeds=[0, 1])
    path.write_text(yaml.safe_dump(raw))
    options = ["settings", "--config", str(path)]
    assert cli.main(options) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert cli.main([*options, "--run", "rooms_log"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["run"], one["seed"]) == ("rooms_log", 0)
    assert cli.main([*options, "--run", "rooms_log", "rooms_none", "--seed", "1"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [(each["run"], each["seed"]) for each in both] == [("rooms_log", 1), ("rooms_none", 1)]


@pytest.mark.parametrize(
    ("options", "words"), [(["--run", "x"], "no run is named x"), (["--seed", "7"], "seeds: 7 is not among 0")]
)
def test_settings_stage_refuses(tmp_path, capsys, options, words):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert cli.main(["settings", "--config", str(path), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert words in error


def test_readme_explains_every_key_of_the_top_level_with_its_default():
    """The tables of the sections are made from settings.py; see test_settings."""
    table = (ROOT / "config" / "README.md").read_text().partition("## Top level\n")[2].partition("## ")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in table.splitlines() if line.startswith("| `")]
    schema = config_schema.config_schema()["properties"]
    assert [row[1] for row in rows if row[1] not in schema] == [] and len(rows) == len(schema)
    for _, key, _, _, shown, *_ in rows:
        default = schema[key].get("default", "required")
        assert str(default) == shown or default in ([], {}), f"{key}: {default}"


def test_presets_set_process_keys_and_the_runs_own_go_before():
    runs = [
        {"dataset": "rooms", "preset": "ddpm"},
        {"dataset": "rooms", "preset": "blurring-diffusion", "sigma_max": 5.0},
        {"dataset": "rooms", "preset": "released-code", "f_type": "log", "f_N": 0.6, "floor": 0.0},
        {"dataset": "rooms", "preset": "ihdm"},
    ]
    complete = config.check_config({**MINIMAL, "runs": runs})
    ddpm, blurring, released, ihdm = (settings["process"] for settings in config.resolve_runs(complete))
    assert [run["name"] for run in complete["runs"]] == [
        "rooms_ddpm",
        "rooms_blurring-diffusion_sigma_max-5.0",
        "rooms_released-code_log_floor-0.0",
        "rooms_ihdm",
    ]
    assert (ddpm["basis"], ddpm["f_type"]) == ("pixel", "none")
    assert (blurring["family"], blurring["noise_schedule"], blurring["sigma_max"]) == (
        "blurring-diffusion",
        "cosine-bounded",
        5,
    )
    assert (released["mode_order"], released["floor"], released["skip_last_timestep"]) == ("released", 0, True)
    assert [config.is_forward_only(complete, run) for run in complete["runs"]] == [False, False, False, True]
    assert ihdm["family"] == "ihdm"
