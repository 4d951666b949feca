# What the rules share: the checked config, the runs' settings, and how a stage of the library is called.

import functools
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config

SRC = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent / "src"
if not SRC.is_dir():
    raise WorkflowError("blurdiff runs from a local copy of its repository: clone it and give `module` the path")
sys.path.insert(0, str(SRC))
# `.venv/bin/snakemake` works in a shell where no environment is activated; one of --use-conda still comes first.
os.environ.update(PATH=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
# The Snakemake of a job on a node starts as `python -m snakemake`. (Rules of another workflow may want their folder.)
if not workflow.modifier.skip_configfile:
    os.environ.update(PYTHONSAFEPATH="1")
# conda's Python would import from ~/.local first.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    os.environ.update(PYTHONNOUSERSITE="1")

from blurdiff.config.keys import Section, digests_of, files_of, made_by
from blurdiff.config.made import SAMPLES, compare, deciding, settings_in, studied
from blurdiff.config.runs import check_config, check_files, is_forward_only, read_yaml, resolve_runs
from blurdiff.data import sources
from blurdiff.errors import UserError
from blurdiff.evaluation.metrics import METRICS
from blurdiff.reporting.figures import FIGURES, INPUTS
from blurdiff.reporting.summaries import TABLES
from blurdiff.runtime.files import write_text


def typed(value):
    """A value of --config with its numbers, truth values and nulls: inside lists and sections Snakemake leaves text."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    try:
        scalar = yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value
    return scalar if scalar is None or isinstance(scalar, (bool, int, float)) else value


def checked(config):
    """The complete config; a mistake in it, or a file that is missing, ends Snakemake with one line."""
    name, files = "config of the module", []
    if not workflow.modifier.skip_configfile:
        files = [os.path.relpath(path) for path in workflow.configfiles]
        name = " + ".join(files + ["--config"] * bool(workflow.config_settings.config))
        update_config(config, typed(dict(workflow.config_settings.config)))
    try:
        for path in files:
            read_yaml(path)  # Snakemake's own reader lets a key stand twice
        complete = check_config(config, name)
        check_files(complete, name)
    except UserError as error:
        sys.tracebacklimit = 0  # where in this file it was found helps nobody
        raise WorkflowError(" ".join(str(error).split())) from None
    return complete


config = checked(config)
SETTINGS = {(settings.run, str(settings.seed)): settings for settings in resolve_runs(config)}
RUNS = [run["name"] for run in config["runs"] if not is_forward_only(config, run)]
SEEDS = [str(seed) for seed in config["seeds"]]


pathvars:
    results=os.path.normpath(config["results"]),
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


wildcard_constraints:
    dataset="|".join(map(re.escape, config["datasets"])),
    run="|".join(map(re.escape, RUNS)),
    seed="|".join(SEEDS),
    shard=r"\d+",
    figure="|".join(config["figures"]) or "none",
    table="|".join(TABLES),


# Snakemake compares params with those of the run that made a file, but not those that are functions of `threads`. So
# what decides a result stands in params as `identity`, and what only says how it is made depends on `threads`.


STARTED = time.time()


def show_warnings():
    """Print each warning of this run's jobs once, with the log that has it: nobody reads the logs of a success."""
    found = {}
    for log in sorted(Path(config["results"], "logs").rglob("*.log")):
        if log.stat().st_mtime >= STARTED:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            found = {line: log for line in lines if line.startswith("warning: ")} | found
    for line, log in found.items():
        print(f"{line} ({log})", file=sys.stderr)


def blurdiff(wildcards, threads):
    """The start of a stage's command line. A random.py in the working folder is none of the library's."""
    return f"PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(SRC))} python -m blurdiff"


def settings_of(wildcards):
    """The resolved settings of the run and seed that the wildcards name."""
    return SETTINGS[wildcards.run, wildcards.seed]


# Stages take settings as a file: hundreds of runs do not fit on a command line, and a person can repeat a job by hand.
# It is no input made by a rule: Snakemake asks no job below one that must run for its own reasons to run, and a file
# that is `ancient` gives it none, so that changes of the config would go unnoticed.
def settings_files(*several):
    """The settings.json of runs and seeds, written (in earnest, and by the main process) unless they are there."""
    earnest = workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun
    paths = []
    for settings in several:
        folder = Path(config["results"]) / "runs" / settings.run / f"seed{settings.seed}"
        paths.append(os.path.normpath(folder / "settings.json"))
        text = json.dumps(settings.as_dict(), indent=2) + "\n"
        if earnest and not (os.path.isfile(paths[-1]) and Path(paths[-1]).read_text(encoding="utf-8") == text):
            write_text(paths[-1], text)
    return paths


def settings_file(wildcards, threads):
    """That of the run and seed that the wildcards name."""
    return settings_files(settings_of(wildcards))[0]


def trained_settings(wildcards, threads):
    """Those of all runs and seeds that are trained."""
    return settings_files(*(SETTINGS[run, seed] for run in RUNS for seed in SEEDS))


def files_of_runs(name, several):
    """A file of each of the runs and seeds."""
    return [f"<results>/runs/{settings.run}/seed{settings.seed}/{name}" for settings in several]


def identity(settings, *keys):
    """What decides a result: these keys of a run's settings, of sections what differs from the defaults, and what is
    in the tables that they name: one that replaces another may be older."""
    chosen = {key: settings[key] for key in keys or settings.keys()}
    sections = {key: value for key, value in chosen.items() if isinstance(value, Section)}
    tables = [digests for section in sections.values() if (digests := digests_of(section))]
    chosen |= {key: made_by(section) for key, section in sections.items()}
    return chosen | ({"tables": tables} if tables else {})


def threads_of(section):
    """For `threads`: what the config's section says."""
    return lambda wildcards: (settings_of(wildcards) if "run" in wildcards.keys() else config)[section]["threads"]


def gpus_of(section):
    """For `resources`: one GPU if the config's section has `device: cuda`."""
    return lambda wildcards: int(
        (settings_of(wildcards) if "run" in wildcards.keys() else config)[section]["device"] == "cuda"
    )


# What comes before an evaluation and a study of samplers, in order.
BEFORE = ["synthesize", "preprocess", "join_parts", "reference", "train", "sample", "gather"]


def refuse_unnoticed(rule, path, expected):
    """End Snakemake if a file carries other settings than the config's, and it does not know: without its records, in
    a .snakemake that was deleted, it would take the file for that of the config. Not if it makes the file anew."""
    path, forced = os.path.normpath(f"{config['results']}/{path}"), workflow.dag_settings
    makers = BEFORE[: BEFORE.index(rule) + 1] if rule in BEFORE else [*BEFORE, rule]
    if forced.forceall or not forced.forcerun.isdisjoint(makers) or not os.path.exists(path):
        return
    if workflow.persistence.metadata(IOFile(path)) is None:
        # A file that is deleted is not missed as long as what was made of it is there.
        remedy = f"Snakemake's records (.snakemake) were deleted: put the config back, or run with --forcerun {rule}"
        try:
            compare(path, settings_in(path), expected, remedy=remedy)
        except UserError as error:
            # Any other exception makes this one a file without a producer, which it need not have.
            raise SystemExit(f"error: {error}") from None


def unnoticed(**names):
    """No input, but the check of these files of a run and seed, by the rules that make them."""

    def check(wildcards):
        settings, study = settings_of(wildcards), config["sampler_study"]
        samplers = [{**settings.sampling, **choice} for choice in study["samplers"]]
        expected = deciding(settings, *SAMPLES) | studied(samplers, study["n_steps"], study["n_samples"])
        expected |= {
            "sampling.n_samples": settings.sampling.n_samples,
            "evaluation.network": settings.evaluation.network,
        }
        for rule, name in names.items():
            refuse_unnoticed(rule, f"runs/{settings.run}/seed{settings.seed}/{name}", expected)
        return []

    return check


def unnoticed_data(wildcards):
    """The same for a data set's images, and what was drawn for them."""
    name, dataset = wildcards.dataset, config["datasets"][wildcards.dataset]
    source, path = sources.source_of(dataset)
    expected = {"resolution": config["resolution"], **dataset}
    if sources.SOURCES[source].drawn:
        refuse_unnoticed("synthesize", f"data/{name}_lmdb/data.mdb", expected)
    else:
        expected["source"] = path
    refuse_unnoticed("preprocess" if dataset["parts"] == 1 else "join_parts", f"data/{name}/manifest.json", expected)
    return []


def weights(wildcards):
    """The file of the evaluation network's weights, if the config gives one."""
    return config["evaluation"]["weights"] or []


def weights_state():
    """What tells this file from one that replaces it, however old."""
    path = config["evaluation"]["weights"]
    return path and [os.stat(path).st_size, os.stat(path).st_mtime_ns]


def weights_option(wildcards, input):
    """The option for it."""
    return f"--weights {shlex.quote(str(input.weights))}" if input.weights else ""
