"""What a schema cannot say about a config: combinations that cannot work, and files that are not there.

Each check raises UserError with one line that begins with the config's name and the key. They take a config whose
types, ranges and defaults are right already (see blurdiff.config.runs).
"""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from blurdiff.config.keys import files_of
from blurdiff.config.settings import SOURCES, NetworkConfig, ProcessConfig, Settings, TrainingConfig
from blurdiff.data import sources
from blurdiff.data.lsun_facts import lsun_name
from blurdiff.errors import UserError

Refuse = Callable[[str, str, str], None]  # section, key, what is wrong
ADDRESS = re.compile(r"https?://[^\s/]+\S*")
DIGEST = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{64}")

# Linux allows 255 bytes for a name and 4,096 for a path. Zips, temporary and unfinished files have longer names.
NAME_BYTES, PATH_BYTES = 200, 3500
# Keys of the process that name a file, and what to do when it is missing.
FILES = {"f_table": "give a CSV with the columns i and f", "power": "give blur, heat or a CSV of numbers"}


# Keys of the process that only family blur reads; the first three shaped-noise as well.
BLUR_KEYS = (
    "basis", "border", "sigma", "power", "f_type", "f_N", "f_anchor", "f_table", "direction", "floor", "mode_order",
)  # fmt: skip


def check_paths(config: dict, name: str) -> None:
    """No path is one that the system refuses, with room for what the workflow adds to it."""
    paths = {
        "results": config["results"],
        "store": config["store"],
        "evaluation.weights": config["evaluation"]["weights"],
    }
    named = [name for name, source in sources.SOURCES.items() if not source.drawn]
    paths |= {f"datasets.{dataset}.{key}": part[key] for dataset, part in config["datasets"].items() for key in named}
    places = {"process": config["process"]} | {f"runs[{number}]": run for number, run in enumerate(config["runs"])}
    paths |= {f"{place}.{key}": part.get(key) for place, part in places.items() for key in FILES}
    for key, path in paths.items():
        for part in Path(path or "").parts:
            if len(os.fsencode(part)) > NAME_BYTES:
                raise UserError(f"{name}: {key}: {part[:30]}… has {len(os.fsencode(part))} bytes, {NAME_BYTES} at most;"
                                " give a shorter one")  # fmt: skip
        if path and len(os.fsencode(os.path.abspath(path))) > PATH_BYTES:
            raise UserError(f"{name}: {key}: this path is longer than {PATH_BYTES} bytes; give a shorter one")


# Of a wildcard's value that ends so, Snakemake thinks that rules call each other without end.
PERIODIC = re.compile(r"(.+)\1{19}$")


def check_no_loops(config: dict, name: str) -> None:
    """No name of a data set or run is one that Snakemake refuses."""
    for key, own in [("datasets", config["datasets"]), ("runs", [run["name"] for run in config["runs"]])]:
        for each in own:
            if found := PERIODIC.search(each):
                raise UserError(f"{name}: {key}: {each} repeats {found[1]} 20 times at its end; give a shorter name")


def check_datasets(config: dict, name: str) -> None:
    """Each data set has one source, and each run a data set."""
    for dataset, part in config["datasets"].items():
        key = f"{name}: datasets.{dataset}"
        given = sources.given(part)
        if len(given) > 1:
            raise UserError(f"{key}: {' and '.join(given)} are given together; keep one (null removes a key)")
        if not given:
            raise UserError(f"{key}: no source of images; give one of {', '.join(SOURCES)}")
        for only_synthetic in ("n_images", "seed"):
            if not part["synthetic"] and part[only_synthetic] is not None:
                raise UserError(f"{key}.{only_synthetic}: is for synthetic data; others are cut by max_images")
        [source] = given
        if sources.SOURCES[source].is_folder and Path(os.path.abspath(config["results"])).is_relative_to(
            os.path.abspath(part[source])
        ):
            raise UserError(
                f"{key}.{source}: {part[source]} holds results ({config['results']}), whose pictures would be taken for"
                " data; keep them apart"
            )
        if "synthetic" in str(part["label"]).lower() and not part["synthetic"]:
            raise UserError(
                f"{key}.label: {part['label']} says synthetic, and {source} is not drawn; give another label"
            )
        _check_download(part, key)
    _check_shared_folders(config["datasets"], name)
    for number, run in enumerate(config["runs"]):
        if run["dataset"] not in config["datasets"]:
            known = ", ".join(config["datasets"])
            raise UserError(
                f"{name}: runs[{number}].dataset: no data set is named {run['dataset']!r}; there is {known}"
            )


def _check_download(dataset: dict, key: str) -> None:
    """What `download` and `download_digest` of a data set say can be done; `key` names the data set."""
    download, digest = dataset["download"], dataset["download_digest"]
    if download is None:
        if digest is not None:
            raise UserError(f"{key}.download_digest: is of a zip to download; give download, or remove it")
        return
    if not dataset["lmdb"]:
        raise UserError(f"{key}.download: is for lmdb, the folder that it makes; remove it")
    if download == "lsun" and not lsun_name(dataset["lmdb"]):
        raise UserError(
            f"{key}.download: lsun goes by the folder's name, and LSUN has no {Path(dataset['lmdb']).name}; call it as"
            " LSUN does (church_outdoor_train_lmdb), or give the address of a zip"
        )
    if download != "lsun" and not ADDRESS.fullmatch(download):
        raise UserError(f"{key}.download: {download!r} is neither lsun nor the http(s) address of a zip")
    if digest is not None and not DIGEST.fullmatch(digest):
        raise UserError(f"{key}.download_digest: must be a SHA-256 (64 hex digits) or an MD5 (32), not {digest!r}")


def _check_shared_folders(datasets: dict, name: str) -> None:
    """Data sets that share a folder do not download different things to it."""
    first: dict[str, str] = {}
    for dataset, part in datasets.items():
        if part["download"]:
            other = first.setdefault(os.path.normpath(part["lmdb"]), dataset)
            for key in ("download", "download_digest"):
                if part[key] != datasets[other][key]:
                    raise UserError(
                        f"{name}: datasets.{dataset}.{key}: differs from that of {other}, which has the same lmdb"
                    )


def check_runs(config: dict, resolved: list[Settings], name: str) -> None:
    """No two runs are the same, and each can work; `resolved` holds one seed's settings a run, in order."""
    seen: list[Settings] = []
    for number, (run, settings) in enumerate(zip(config["runs"], resolved, strict=True)):
        check_run(settings, run, number, name)
        unnamed = dataclasses.replace(settings, run="")
        if unnamed in seen:
            raise UserError(f"{name}: runs[{number}]: the same as runs[{seen.index(unnamed)}]; remove one of them")
        seen.append(unnamed)


def check_run(settings: Settings, run: dict, number: int, name: str) -> None:
    """A run's resolved settings can work: process, network, sampling, evaluation."""

    def refuse(section: str, key: str, text: str) -> None:
        overrides = run if section == "process" else run.get(section, {})
        inside = "" if section == "process" else f"{section}."
        where = f"runs[{number}].{inside}{key}" if key in overrides else f"{section}.{key}"
        of_run = f" (run {settings.run})" if key in overrides or section == "process" else ""
        raise UserError(f"{name}: {where}: {text}{of_run}")

    _check_process(settings.process, refuse)
    family = settings.process.family
    for key in {"blur": (), "shaped-noise": BLUR_KEYS[3:]}.get(family, BLUR_KEYS):
        if key in run:
            refuse("process", key, f"has no effect in family {family}; remove it")
    _check_network(settings.network, settings.resolution, refuse)
    check_training(settings.training, refuse)
    _check_sampling(settings, refuse)
    evaluation = settings.evaluation
    if evaluation.weights and evaluation.network != "inception":
        refuse("evaluation", "weights", f"is for network: inception; {evaluation.network} has its own")


def _check_process(process: ProcessConfig, refuse: Refuse) -> None:
    f_type, f_N = process.f_type, process.f_N
    if f_type == "none" and f_N != 0:
        refuse("process", "f_N", f"f_type none means f_N 0, not {f_N:g}; give an f_type or remove f_N")
    if f_type not in ("none", "table") and f_N == 0:
        refuse("process", "f_N", f"f_type {f_type} needs f_N > 0; without blur give f_type: none")
    if f_type == "table" and not process.f_table:
        refuse("process", "f_table", "f_type table needs the path of a CSV with the columns i and f")
    if process.snr_tilt is not None and process.family != "blur":
        refuse("process", "snr_tilt", f"is for family blur, not {process.family}; remove it")
    if process.noise_shape != 0 and process.family != "shaped-noise":
        refuse("process", "noise_shape", f"is for family shaped-noise, not {process.family}; remove it")
    if process.noise_schedule == "linear" and process.beta_1 > process.beta_N:
        refuse("process", "beta_1", f"{process.beta_1:g} is larger than beta_N {process.beta_N:g}")
    keeps_mean = process.basis in ("dct", "haar", "pixel") or (
        process.basis == "gaussian-blur" and process.border != "zero"
    )
    if process.direction == "fine-to-coarse" and f_type != "none" and keeps_mean and process.floor == 0:
        refuse(
            "process", "floor", "with this basis or border 1 − D is 0 for the mean; give a floor, for example 1.0e-4"
        )


def _check_network(network: NetworkConfig, resolution: int, refuse: Refuse) -> None:
    levels = len(network.multipliers)
    if resolution % 2 ** (levels - 1):
        text = f"{levels} levels halve the resolution {levels - 1} times, which {resolution} does not allow"
        refuse("network", "multipliers", f"{text}; it must be divisible by {2 ** (levels - 1)}")
    widths = {resolution >> level: network.channels * m for level, m in enumerate(network.multipliers)}
    for width in [network.channels, *widths.values()]:
        if width % network.n_groups:
            refuse("network", "n_groups", f"{network.n_groups} does not divide the width {width}")
    for at in network.attention_resolutions:
        if at not in widths:
            known = ", ".join(map(str, widths))
            refuse("network", "attention_resolutions", f"no feature map is {at}×{at}; there are {known}")
    # The middle of the network attends as well.
    for at in [*network.attention_resolutions, min(widths)]:
        if widths[at] % network.n_heads:
            refuse("network", "n_heads", f"{network.n_heads} does not divide the width {widths[at]} at {at}×{at}")


def check_training(training: TrainingConfig, refuse: Refuse) -> None:
    """The batch can be shared out: `refuse(section, key, text)` is called if not."""
    batch, ranks = training.batch_size, training.gpus * training.nodes
    micro = training.micro_batch_size
    if batch % ranks:
        refuse("training", "batch_size", f"{batch} cannot be shared out evenly to {ranks} GPUs (gpus × nodes)")
    if micro and batch // ranks % micro:
        of_each = f"of each of the {ranks} GPUs " if ranks > 1 else ""
        refuse("training", "micro_batch_size", f"{micro} does not divide the {batch // ranks} images {of_each}a step")


def _check_sampling(settings: Settings, refuse: Refuse) -> None:
    sampling, process = settings.sampling, settings.process
    n_steps, start = settings.n_steps, process.last_timestep
    if n_steps > start:
        refuse("sampling", "n_steps", f"{n_steps} is more than the {start} timesteps (process.n_timesteps)")
    if sampling.noise_free_steps > n_steps:
        refuse("sampling", "noise_free_steps", f"{sampling.noise_free_steps} is more than the {n_steps} steps")
    if sampling.n_snapshots > n_steps + 1:
        refuse(
            "sampling",
            "n_snapshots",
            f"{sampling.n_snapshots} is more than the {n_steps + 1} states of {n_steps} steps",
        )
    if sampling.n_strip > sampling.shard_size:
        refuse("sampling", "n_strip", f"{sampling.n_strip} is more than shard_size {sampling.shard_size}")


UNTRAINED = ("figures.forward", "figures.tilts")  # what shows a process, with no run of it needed
ONE_RANGE = ("figures.figure1", "figures.animation", "figures.forward")  # what shows states, on one scale


def check_figures(config: dict, resolved: list[Settings], name: str) -> None:
    """Every figure, and the study of samplers, shows runs that exist and can be shown there.

    `resolved` holds one seed's settings a run, in order.
    """
    processes = {settings.run: settings.process for settings in resolved}
    study = config["sampler_study"]
    shown = {f"figures.{figure}": runs for figure, runs in config["figures"].items()}
    for key, runs in (shown | {"sampler_study.runs": study["runs"]}).items():
        for run in runs:
            if run not in processes:
                raise UserError(f"{name}: {key}: no run is named {run!r}; there are {', '.join(processes)}")
            if processes[run]["family"] == "ihdm" and key not in UNTRAINED:
                places = " or ".join(UNTRAINED)
                raise UserError(f"{name}: {key}: {run} (ihdm) is a forward process only; show it in {places}")
            if processes[run].of_images and key == "figures.factor":
                raise UserError(f"{name}: {key}: {run} takes its process from the images, and this figure has none")
            if key in ONE_RANGE and processes[run].range != processes[runs[0]].range:
                raise UserError(f"{name}: {key}: {runs[0]} and {run} differ in process.range; show runs of one range")
    for number, choice in enumerate(study["samplers"]):
        same = [{**config["sampling"], **other} for other in study["samplers"][:number]]
        if (whole := {**config["sampling"], **choice}) in same:
            raise UserError(
                f"{name}: sampler_study.samplers[{number}]: the same as samplers[{same.index(whole)}]; remove it"
            )
    for run in study["runs"]:
        if max(study["n_steps"]) > processes[run].last_timestep:
            raise UserError(
                f"{name}: sampler_study.n_steps: {max(study['n_steps'])} is more than the"
                f" {processes[run].last_timestep} timesteps of {run}"
            )


def check_files(config: dict, resolved: list[Settings], name: str) -> None:
    """The images of the data sets in use exist, unless they are to be made, and the weights and all tables do."""
    missing = []
    used = dict.fromkeys(settings.dataset for settings in resolved)
    to_come = {os.path.normpath(part["lmdb"]) for part in config["datasets"].values() if part["download"]}
    for dataset in used:
        part = config["datasets"][dataset]
        if sources.source_of(part)[1] not in to_come and (text := sources.missing(part, dataset)):
            missing.append(text)
    paths = {("evaluation.weights", config["evaluation"]["weights"]): "give the path of pytorch-fid's weights"}
    for settings in resolved:
        for key, path in files_of(settings.process).items():
            paths[f"process.{key}", path] = FILES[key]
    missing += [
        f"{key}: {path} is missing; {hint}" for (key, path), hint in paths.items() if path and not Path(path).is_file()
    ]
    if missing:
        raise UserError(f"{name}: {' | '.join(missing)}")
