# What the rules share: the checked config, the runs' settings, and how a stage of the library is called.

import atexit
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config


def folder_of_package():
    """The folder that holds the library and nothing else, for PYTHONPATH: a job's Python may be that of another
    environment, into which packages beside an installed one must not come along. There it gets a link to it."""
    rules = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve()
    if (rules.parent / "src").is_dir():
        return rules.parent / "src"
    package = rules.parents[2]  # from PACKAGE/project/workflow/rules
    if not (package / "__main__.py").is_file():
        raise WorkflowError("blurdiff runs from a local copy of its repository: clone it and give `module` the path")
    link = Path(".snakemake", "library", "blurdiff").absolute()
    if not (link.is_symlink() and os.readlink(link) == str(package)):
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(package)
        temporary.replace(link)
    return link.parent


SRC = folder_of_package()
sys.path.insert(0, str(SRC))
# `.venv/bin/snakemake` works in a shell where no environment is activated; one of --use-conda still comes first.
os.environ.update(PATH=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
# The Snakemake of a job on a node starts as `python -m snakemake`. (Rules of another workflow may want their folder.)
if not workflow.modifier.skip_configfile:
    os.environ.update(PYTHONSAFEPATH="1")
# conda's Python would import from ~/.local first.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    os.environ.update(PYTHONNOUSERSITE="1")

from blurdiff.config.keys import Section, digests_of, made_by
from blurdiff.config.runs import check_config, check_files, is_forward_only, read_yaml, resolve_runs, study_samplers
from blurdiff.errors import UserError
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


def in_earnest():
    """Whether this is the main process of a run that runs jobs."""
    return workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun


# Stages take settings as a file: hundreds of runs do not fit on a command line, and a person can repeat a job by hand.
# It is no input made by a rule: Snakemake asks no job below one that must run for its own reasons to run, and a file
# that is `ancient` gives it none, so that changes of the config would go unnoticed.
def kept(path, text):
    """The path of a file with this text, which is written (in earnest) unless it is there."""
    if in_earnest() and not (os.path.isfile(path) and Path(path).read_text(encoding="utf-8") == text):
        write_text(path, text)
    return path


def settings_files(*several):
    """The settings.json of runs and seeds."""
    paths = []
    for settings in several:
        folder = Path(config["results"]) / "runs" / settings.run / f"seed{settings.seed}"
        text = json.dumps(settings.as_dict(), indent=2) + "\n"
        paths.append(kept(os.path.normpath(folder / "settings.json"), text))
    return paths


def config_file(wildcards, threads):
    """The whole config, with every default, as a file."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return kept(os.path.normpath(Path(config["results"]) / "config.yaml"), text)


def settings_file(wildcards, threads):
    """That of the run and seed that the wildcards name."""
    return settings_files(settings_of(wildcards))[0]


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


@atexit.register
def show_page():
    """Say where the page is, if it was asked for and is there: the last line, after all that Snakemake prints itself."""
    dag = workflow.dag
    if dag is None or not in_earnest():  # a workflow that did not load may have no such rule
        return
    page = rules.page.output[0]
    pages = [job for job in dag.jobs if page in job.output]
    if pages and all(dag.noneedrun_finished(job) for job in pages):
        print(f"All results are on one page: {page}", file=sys.stderr)
