# What single rules ask for: their inputs, what identifies these, and the options of their commands.

import functools

from snakemake.io import IOFile
from snakemake.settings.types import Quietness

from blurdiff.config.keys import files_of
from blurdiff.config.made import SAMPLES, compare, deciding, settings_in, studied
from blurdiff.data import sources
from blurdiff.evaluation.metrics import METRICS
from blurdiff.reporting.exhibits import exhibits
from blurdiff.reporting.figures import FIGURES, INPUTS
from blurdiff.reporting.summaries import TABLES, files, made

# What comes before an evaluation and a study of samplers, in order.
RULE_NAME = workflow.modifier.modify_rulename  # as a module's `use rule` calls them
BEFORE = ["synthesize", "preprocess", "join_parts", "reference", "train", "sample", "gather"]


def refuse_unnoticed(rule, path, expected):
    """End Snakemake if a file carries other settings than the config's, and it does not know: without its records, in
    a .snakemake that was deleted, it would take the file for that of the config. Not if it makes the file anew."""
    path, forced = os.path.normpath(f"{config['results']}/{path}"), workflow.dag_settings
    makers = {path, *map(RULE_NAME, BEFORE[: BEFORE.index(rule) + 1] if rule in BEFORE else [*BEFORE, rule])}
    if forced.forceall or not forced.forcerun.isdisjoint(makers) or not os.path.exists(path):
        return
    if workflow.persistence.metadata(IOFile(path)) is None:
        # A file that is deleted is not missed as long as what was made of it is there.
        remedy = f"Snakemake's records (.snakemake) were deleted: put the config back, or run with --forcerun {RULE_NAME(rule)}"
        try:
            compare(path, settings_in(path), expected, remedy=remedy)
        except UserError as error:
            # Any other exception makes this one a file without a producer, which it need not have.
            raise SystemExit(f"error: {error}") from None


def unnoticed(**names):
    """No input, but the check of these files of a run and seed, by the rules that make them."""

    def check(wildcards):
        settings, study = settings_of(wildcards), config["sampler_study"]
        samplers = [{**settings.sampling, **choice} for choice in study_samplers(config, settings)]
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
# With a name that does not lead to an address, or leads to the node itself alone, torchrun and Gloo wait for minutes.
NAMES_LEAD_TO_NODES = """sh -c '
for name in "$0" "$(hostname)"; do
    case "$(getent hosts "$name")" in
        "" | 127.* | ::1*)
            echo "error: on the node $(hostname), the name $name does not lead to an address that other nodes reach;" \
                "mend its /etc/hosts or DNS, or set training.nodes: 1" >&2
            exit 1
    esac
done' "$(hostname)" """


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
        launch = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={threads} "
        # torchrun says nothing while its nodes wait for one another.
        variables = (
            f'echo "waiting for torchrun on all {nodes} nodes to meet at $(hostname):{port}; after {NODES_WAIT} s it '
            f'gives up" >&2; {launch}{NAMES_LEAD_TO_NODES} && {variables}'
        )
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


def path_options(wildcards, input):
    """`--samples PATH … --images PATH …`."""
    return " ".join(f"--{option} {' '.join(map(shlex.quote, paths))}" for option, paths in input.items())


MADE = made(config)  # the tables, and the runs of each


def tables_with(figure):
    """Those that come with a figure, or without, as a pattern."""
    return "|".join(name for name in MADE if TABLES[name].figure == figure) or "none"


def table_inputs(wildcards):
    """The files that a table is made from, by option."""
    return files(wildcards.table, MADE)


def table_identity(wildcards):
    """What decides a figure that comes with a table, beside its files; a table has it from these."""
    return [identity(settings) for settings in MADE[wildcards.table]] if TABLES[wildcards.table].figure else []


def table_settings(wildcards, threads):
    """The settings.json of the runs of a table."""
    return settings_files(*MADE[wildcards.table])


def table_figure(wildcards, output):
    """The options for the figure that comes with it."""
    drawn = {"figure": output.get("shown"), "pdf": output.get("pdf"), "caption": output.get("caption")}
    return " ".join(f"--{option} {shlex.quote(path)}" for option, path in drawn.items() if path)
