# What the rules share: the checked config, the runs' settings, and how a stage of the library is called.

import atexit
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
from snakemake.settings.types import DeploymentMethod, Quietness
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

from blurdiff.config.keys import Section, digests_of, files_of, made_by
from blurdiff.config.made import SAMPLES, compare, deciding, settings_in, studied
from blurdiff.config.runs import check_config, check_files, is_forward_only, read_yaml, resolve_runs
from blurdiff.data import sources
from blurdiff.errors import UserError
from blurdiff.evaluation.metrics import METRICS
from blurdiff.reporting.exhibits import exhibits
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


def source_of(wildcards):
    """The kind of a data set and its path: the user's, or that of the LMDB that rule synthesize writes."""
    name, path = sources.source_of(config["datasets"][wildcards.dataset], f"<results>/data/{wildcards.dataset}_lmdb")
    return sources.SOURCES[name], path


def source_file(wildcards):
    """The file of a data set that must be there. A folder's own time does not tell of its files; see source_state."""
    source, path = source_of(wildcards)
    return ancient(path) if source.is_folder else source.file(path)


@functools.cache
def state_of(name, path):
    """What tells a data set's files from those that replace them, however old these are."""
    try:
        return json.dumps(sources.SOURCES[name].state(path))
    except (UserError, OSError):
        return ""  # it is still to come, or the job will say what is wrong with it


def source_state(wildcards):
    """That of a user's data set; one that is drawn Snakemake knows itself."""
    name, path = sources.source_of(config["datasets"][wildcards.dataset])
    return "" if sources.SOURCES[name].drawn else state_of(name, path)


def source_option(wildcards, input):
    """The option that names the data set."""
    source, _ = source_of(wildcards)
    return f"--{source.option} {shlex.quote(os.path.dirname(input[0]) if source.inside else str(input[0]))}"


def preprocess_options(wildcards):
    """What decides the images, beside the resolution."""
    dataset = config["datasets"][wildcards.dataset]
    options = f"--max-corrupt-fraction {dataset['max_corrupt_fraction']}"
    for key in ("max_images", "crop"):
        if dataset[key]:
            options += f" --{key.replace('_', '-')} {dataset[key]}"
    return f"{options} --synthetic" if dataset["synthetic"] else options


def download_options(dataset):
    """Address and checksum of a data set's zip, where they are not LSUN's."""
    url, digest = dataset["download"], dataset["download_digest"]
    options = "" if url == "lsun" else f"--url {shlex.quote(url)}"
    return f"{options} --digest {digest}" if digest else options


NODES_WAIT = 600  # seconds; torchrun's default


def trainer(wildcards, threads):
    """The start of the command line: one process, or torchrun with one for each GPU. What torchrun is told by the
    environment, an older one ignores: to pass on Slurm's signals, and to wait while the state is being saved."""
    training, command = settings_of(wildcards).training, blurdiff(wildcards, threads)
    gpus, nodes = training["gpus"], training["nodes"]
    if gpus * nodes == 1:
        return told(command)
    variables = f"OMP_NUM_THREADS={max(1, threads // gpus)} PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    variables += " TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600"
    # By its own name a machine may not find itself.
    launch, place = "", "--standalone --local-addr 127.0.0.1"
    if nodes > 1:
        port = "$((20000 + SLURM_JOB_ID % 20000))"
        # torchrun says nothing while its nodes wait for one another.
        variables = (
            f'echo "waiting for torchrun on all {nodes} nodes to meet at $(hostname):{port}; after {NODES_WAIT} s it '
            f'gives up" >&2; {variables}'
        )
        launch = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={threads} "
        place = (
            f'--nnodes={nodes} --rdzv-backend=c10d --rdzv-endpoint="$(hostname):{port}" --rdzv-conf=join_timeout={NODES_WAIT} '
            '--rdzv-id="${SLURM_JOB_ID:?training.nodes larger than 1 needs Slurm}"'
        )
    torchrun = f"{launch}python -m torch.distributed.run {place} --nproc-per-node={gpus} -m blurdiff"
    return told(f"{variables} {command.replace('python -m blurdiff', torchrun)}")


def told(command):
    """A trainer's command that also says on Snakemake's terminal how far it is, unless that is --quiet: its standard
    output goes there, whatever it prints else to the log. In a file a line a minute is enough, since weeks add up.

    All of it is part of a parameter and not of the rule, of which a change would have every run sampled anew."""
    if (workflow.output_settings.quiet or set()) & {Quietness.PROGRESS, Quietness.ALL}:
        return f'told() {{ {command} "$@"; }}; told'  # all that it consists of prints to the log
    seconds = os.environ.get("BLURDIFF_TELL_SECONDS", 10 if sys.stderr.isatty() else 60)
    return f'exec 3>&2; told() {{ {command} "$@" --tell {seconds} 2>&1 >&3 3>&-; }}; told'


def gpus_to_train(wildcards):
    """For `resources`: as many GPUs as there are processes, on all nodes together."""
    training = settings_of(wildcards).training
    return training["gpus"] * training["nodes"] * (training["device"] == "cuda")


def images_of(wildcards):
    """images.npy of the run's data set."""
    return f"<results>/data/{settings_of(wildcards).dataset}/images.npy"


def manifest_of(wildcards):
    """manifest.json of the run's data set."""
    return f"<results>/data/{settings_of(wildcards).dataset}/manifest.json"


def tables_of(wildcards):
    """CSV files that define the run's process, if there are any."""
    return list(files_of(settings_of(wildcards).process).values())


def shard_identity(wildcards):
    """What decides a shard: how many there are in all does not, and the strips come from the first alone."""
    settings = settings_of(wildcards)
    of_strips = () if wildcards.shard == "0" else ("n_strip", "n_snapshots", "strip_x0")
    return {"seed": settings.seed, "sampling": made_by(settings.sampling, "n_samples", *of_strips)}


def shards_of(wildcards):
    """All shards of a run and seed."""
    n_shards = -(-config["sampling"]["n_samples"] // config["sampling"]["shard_size"])
    return [f"<results>/runs/{wildcards.run}/seed{wildcards.seed}/shards/{shard}.npz" for shard in range(n_shards)]


def figures_as(suffix):
    """The config's figures that are made with this suffix, as a pattern."""
    return "|".join(name for name in config["figures"] if suffix in FIGURES[name].formats) or "none"


def figure_runs(wildcards):
    """The resolved settings of the runs that a figure shows: of each run its first seed, or all of them."""
    seeds = SEEDS if FIGURES[wildcards.figure].all_seeds else SEEDS[:1]
    return [SETTINGS[run, seed] for run in config["figures"][wildcards.figure] for seed in seeds]


def figure_identity(wildcards):
    """What decides a figure, beside its files."""
    words = ["run", "dataset", "label", "synthetic", "seed", "resolution"]
    sections = FIGURES[wildcards.figure].sections
    return [identity(settings, *words, *sections) for settings in figure_runs(wildcards)]


def figure_settings(wildcards, threads):
    """The settings.json of the runs that a figure shows."""
    return settings_files(*figure_runs(wildcards))


def figure_title(wildcards, threads):
    """What the figure shows, for the report."""
    return FIGURES[wildcards.figure].title


def figure_inputs(wildcards):
    """The files that a figure is drawn from, by option: one path for each run."""
    return {
        option: [INPUTS[option].path.format(**run) for run in figure_runs(wildcards)]
        for option in FIGURES[wildcards.figure].inputs
    }


def figure_options(wildcards, input):
    """`--samples PATH … --images PATH …`."""
    return " ".join(f"--{option} {' '.join(map(shlex.quote, paths))}" for option, paths in input.items())


@atexit.register
def show_page():
    """Say where the page is, if it was asked for and is there: the last line, after all that Snakemake prints itself."""
    dag, page = workflow.dag, rules.page.output[0]
    pages = [job for job in dag.jobs if page in job.output] if dag is not None and in_earnest() else []
    if pages and all(dag.noneedrun_finished(job) for job in pages):
        print(f"All results are on one page: {page}", file=sys.stderr)
