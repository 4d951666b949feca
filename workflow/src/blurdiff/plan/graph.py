"""The jobs of a config, as Snakemake itself finds them: rule, wildcards, threads, GPUs, and which have to run.

Its graph is read inside this process, because no output of Snakemake says all of this: a dry run lists only what has to
run, `--summary` knows files and no threads. `_prepare_dag` and `_build_dag` are what Snakemake's own `--dag` calls.
Nothing is locked, so that a config can be planned while it runs; as after `snakemake -n`, a folder .snakemake is left.
"""

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, RerunTrigger, ResourceSettings
from snakemake.utils import update_config

from blurdiff.config.runs import check_config
from blurdiff.config.schema import read_yaml
from blurdiff.data.sources import SOURCES, Source
from blurdiff.errors import UserError
from blurdiff.runtime.files import PROJECT

SNAKEFILE = PROJECT / "workflow" / "Snakefile"
# Keys whose values may be the paths of files or folders that must be there.
PLAIN = Source("", "", "a file")
FILES = ("weights", "f_table", "power", *(name for name, source in SOURCES.items() if not source.drawn))


@dataclass(eq=False)
class Job:
    """One job; `sources` are the jobs that make its inputs, `done` is whether Snakemake would leave it out.

    The planner adds its `work` and, where that can be told, its `seconds`.
    """

    rule: str
    wildcards: dict[str, str]
    threads: int = 1
    gpus: int = 0
    done: bool = False
    sources: list["Job"] = field(default_factory=list)
    work: list = field(default_factory=list)
    seconds: float | None = None


def read_config(paths: list[str]) -> tuple[str, dict]:
    """(name, complete config) of one or more files, laid over one another by Snakemake. Raises UserError."""
    merged: dict = {}
    for path in paths:
        value = read_yaml(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: must be a section of keys; config/README.md explains them")
        update_config(merged, value)
    name = " + ".join(paths)
    return name, check_config(merged, name)


def jobs_of(config: dict, cores: int) -> list[Job]:
    """All jobs of the default target, in the order of their rules in the workflow. Raises UserError.

    Snakemake refuses a config whose files are missing. Here empty files stand in for them; as their paths would then
    make everything new, only times of files say what is done.
    """
    with TemporaryDirectory() as folder:
        path, stand_ins = Path(folder, "config.json"), Path(folder, "missing")
        path.write_text(json.dumps(with_stand_ins(config, stand_ins, to_be_downloaded(config))), encoding="utf-8")
        triggers = {RerunTrigger.MTIME} if stand_ins.exists() else RerunTrigger.all()
        try:
            return _read_graph(path, cores, DAGSettings(force_incomplete=True, rerun_triggers=triggers))
        except (WorkflowError, OSError) as error:
            raise UserError(f"Snakemake cannot find the jobs: {' '.join(str(error).split())}") from error


def _read_graph(path: Path, cores: int, dag_settings: DAGSettings) -> list[Job]:
    with SnakemakeApi(OutputSettings(dryrun=True, log_level_override=logging.ERROR)) as api:
        settings = ResourceSettings(cores=cores), ConfigSettings(configfiles=[path])
        workflow = api.workflow(*settings, snakefile=SNAKEFILE)
        workflow.dag(dag_settings)
        inner = workflow._workflow
        inner._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        inner._build_dag()
        order = {rule.name: number for number, rule in enumerate(inner.rules)}
        found = {}
        for job in sorted(inner.dag.jobs, key=lambda job: (order[job.rule.name], list(job.output))):
            done, gpus = not inner.dag.needrun(job), job.resources.get("gpu", 0)
            found[job] = Job(job.rule.name, dict(job.wildcards_dict), job.threads, gpus, done)
        for job, own in found.items():
            own.sources = [found[source] for source in inner.dag.dependencies[job]]
        return list(found.values())


def to_be_downloaded(config: dict) -> set[str]:
    """The LMDBs that rules of the workflow fetch."""
    return {os.path.normpath(part["lmdb"]) for part in config["datasets"].values() if part["download"]}


def with_stand_ins(node, folder: Path, keep: set[str]):
    """A copy of a config in which an old, empty file in `folder` stands for each that is missing and not in `keep`."""
    if isinstance(node, list):
        return [with_stand_ins(item, folder, keep) for item in node]
    if not isinstance(node, dict):
        return node
    copy = {key: with_stand_ins(value, folder, keep) for key, value in node.items()}
    for key in FILES:
        path, source = copy.get(key), SOURCES.get(key, PLAIN)
        if not isinstance(path, str) or path in ("blur", "heat") or os.path.normpath(path) in keep:
            continue
        if not source.is_there(path):
            copy[key] = str(folder / quote(path, safe=""))
            file = Path(source.file(copy[key]), *["empty"] * source.is_folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.utime(file, (1e9, 1e9))  # older than what was ever made of it
    return copy
