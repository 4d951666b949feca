"""A config file to what runs: checked, completed, and resolved into the settings of every run and seed."""

# The workflow checks a config with this module before any job starts, so that it imports neither torch nor numpy.

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from blurdiff.config import checks
from blurdiff.config.schema import completed, config_schema, read_yaml, settings_schema, validate
from blurdiff.config.settings import NAME_LENGTH, PRESETS, SamplerConfig, Settings, settings_from
from blurdiff.errors import UserError


def check_config(raw: object, name: str = "config") -> dict:
    """The complete config from what a YAML file held; `name` stands first in every message.

    Raises UserError, one line that names the key, for unknown keys, wrong types, values out of range, and combinations
    that cannot work (see checks.py). No file is looked at; for that see `check_files`.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{name}: must be a section of keys; config/README.md explains them")
    try:
        raw = json.loads(json.dumps(raw, default=str))  # plain dicts, whatever the reader made of them
    except (TypeError, ValueError, RecursionError) as error:  # keys that are dates, numbers or nesting without end
        raise UserError(f"{name}: this is no config ({error}); config/README.md explains the keys") from error
    validate(raw, config_schema(), name)
    config = completed(raw, config_schema(), name)
    for dataset, part in config["datasets"].items():
        if part["synthetic"]:
            part["n_images"] = part["n_images"] or 2048
            part["seed"] = part["seed"] or 0
        part["label"] = part["label"] or (f"{dataset} (synthetic)" if part["synthetic"] else dataset)
    checks.check_paths(config, name)
    checks.check_datasets(config, name)
    for run, run_name in zip(config["runs"], run_names(config, name), strict=True):
        run["name"] = run_name
    checks.check_no_loops(config, name)
    resolved = resolve_runs(config)[:: len(config["seeds"])]
    checks.check_runs(config, resolved, name)
    checks.check_figures(config, resolved, name)
    return config


def load_config(path: str | Path) -> dict:
    """Read and check a config file; raises UserError."""
    return check_config(read_yaml(path), str(path))


def check_files(config: dict, name: str = "config") -> None:
    """Raise UserError, one line, when files that the config names are not there: which, and how to get them."""
    checks.check_files(config, resolve_runs(config), name)


def run_names(config: dict, name: str) -> list[str]:
    """A name for every run: its own, or data set, blur schedule, direction if not the paper's, and all other overrides.

    A later run whose name would be an earlier one's gets its f_N too, so that adding a run renames none.
    """
    given = {run["name"] for run in config["runs"] if "name" in run}
    taken: dict[str, int] = {}
    for number, run in enumerate(config["runs"]):
        if "name" in run:
            candidates = [run["name"]]
        else:
            process = run_process(config, run)
            words = [run["dataset"], *([run["preset"]] if "preset" in run else [])]
            if "preset" not in run or process["f_type"] != "none":
                words.append(process["f_type"])
            if process["direction"] != "coarse-to-fine":
                words.append(process["direction"])
            overrides = {key: run[key] for key in process if key in run and key not in ("f_type", "f_N", "direction")}
            overrides |= run.get("training", {}) | run.get("sampling", {})
            words += [f"{key}-{Path(str(value)).name}" for key, value in overrides.items()]
            candidates = ["_".join(words), "_".join([*words, f"f_N-{process['f_N']:g}"])]
            candidates = [shortened(re.sub(r"[^A-Za-z0-9._+-]+", "-", candidate)) for candidate in candidates]
            candidates = [candidate for candidate in candidates if candidate not in given]
        free = [candidate for candidate in candidates if candidate not in taken]
        if not free:
            other = next((f" as runs[{taken[c]}]" for c in candidates if c in taken), "")
            raise UserError(f"{name}: runs[{number}]: the same name{other}; remove it or give it a name of its own")
        taken[free[0]] = number
    return list(taken)


def shortened(name: str) -> str:
    """The name, or of one that is too long for files its beginning and a digest of the whole."""
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: NAME_LENGTH - 9]}-{digest}"


def run_process(config: Mapping, run: Mapping) -> dict:
    """The process section with a run's preset and then its own keys laid over it."""
    return {
        **config["process"],
        **PRESETS.get(run.get("preset", ""), {}),
        **{k: run[k] for k in config["process"] if k in run},
    }


def is_forward_only(config: Mapping, run: Mapping) -> bool:
    """Whether a run is only shown (figure forward), not trained: IHDM's end is no Gaussian that could be drawn from."""
    return run_process(config, run)["family"] == "ihdm"


def resolve_runs(config: dict) -> list[Settings]:
    """Resolved settings of every run and seed of a complete config, the seeds of a run together.

    Precedence of `training`: run > data set > section; of `process`: run > preset > section.
    """
    resolved = []
    for run in config["runs"]:
        dataset = config["datasets"][run["dataset"]]
        first = {
            "run": run["name"],
            "dataset": run["dataset"],
            "label": dataset["label"],
            "synthetic": bool(dataset["synthetic"]),
            "seed": config["seeds"][0],
            "resolution": config["resolution"],
            "process": run_process(config, run),
            "network": config["network"],
            "training": {**config["training"], **dataset["training"], **run.get("training", {})},
            "sampling": {**config["sampling"], **run.get("sampling", {})},
            "evaluation": config["evaluation"],
        }
        settings = settings_from(first)
        resolved += [dataclasses.replace(settings, seed=seed) for seed in config["seeds"]]
    return resolved


def trained_runs(config: dict) -> list[Settings]:
    """Of these, the runs and seeds that are trained."""
    shown_only = {run["name"] for run in config["runs"] if is_forward_only(config, run)}
    return [settings for settings in resolve_runs(config) if settings.run not in shown_only]


def study_samplers(config: Mapping, settings: Settings) -> list[dict]:
    """The samplers of the study, for a run's model: where the run overrides what they leave out, as the config has it,
    so that all runs are drawn from alike."""
    keys = [field.name for field in dataclasses.fields(SamplerConfig) if field.name not in ("n_steps", "strip_x0")]
    usual = {key: config["sampling"][key] for key in keys if settings.sampling[key] != config["sampling"][key]}
    return [{**usual, **choice} for choice in config["sampler_study"]["samplers"]]


def read_settings(text_or_path: str | Path) -> Settings:
    """A run's settings from a JSON or YAML file, or from JSON itself; what a section leaves out gets its default.

    Raises UserError for anything unreadable, missing, unknown or out of range.
    """
    return complete_settings(*_read(text_or_path))


def read_runs(texts_or_paths: Sequence[str | Path]) -> list[Settings]:
    """The settings of several runs: each text or file holds those of one run or a list of them."""
    runs: list[Settings] = []
    for text_or_path in texts_or_paths:
        value, name = _read(text_or_path)
        several = value if isinstance(value, list) else [value]
        runs += [complete_settings(each, name) for each in several]
    if not runs:
        raise UserError(f"{', '.join(map(str, texts_or_paths))}: an empty list; give the settings of at least one run")
    return runs


def _read(text_or_path: str | os.PathLike) -> tuple[object, str]:
    """(value, what messages call it)."""
    text = str(text_or_path)
    if not text.lstrip().startswith(("{", "[")):
        return read_yaml(text), text
    try:
        return json.loads(text), "settings"
    except (ValueError, RecursionError) as error:
        raise UserError(f"settings: not JSON: {error}") from error


def read_partial_settings(text_or_path: str | os.PathLike) -> dict:
    """Settings of which any may be absent; the defaults of the sections that are there are filled in."""
    value, name = _read(text_or_path)
    if not isinstance(value, dict):
        raise UserError(f"{name}: must be one settings object; `blurdiff settings --run NAME` prints one")
    schema = {key: part for key, part in settings_schema().items() if key != "required"}
    validate(value, schema, name)
    return {key: part for key, part in completed(value, schema, name).items() if key in value}


def complete_settings(value: object, name: str = "settings") -> Settings:
    """Settings from a dict that may leave out whatever has a default; `name` stands first in every message."""
    if not isinstance(value, dict):
        raise UserError(f"{name}: must be one settings object; `blurdiff settings --run NAME` prints one")
    validate(value, settings_schema(), name)
    complete = completed(value, settings_schema(), name)
    return settings_from({"label": complete["dataset"], **complete})
