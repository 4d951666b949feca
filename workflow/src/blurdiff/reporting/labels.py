"""Words for the reader: how a run, a data set and the scale of an experiment are called in tables and figures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from blurdiff.config import runs as config
from blurdiff.config.settings import SAMPLERS, Settings
from blurdiff.errors import UserError

DIRECTIONS = {"coarse-to-fine": "coarse-to-fine", "fine-to-coarse": "fine-to-coarse", "reversed": "reversed D"}
FAMILIES = {"shaped-noise": "shaped noise", "blurring-diffusion": "Blurring Diffusion", "ihdm": "IHDM"}
PREDICTIONS = {"gaussian": "Gaussian prior"}
BASES = {"dct": "DCT basis", "dst": "DST basis", "haar": "Haar basis", "pixel": "pixel basis"}
SYMBOLS = {"snr_tilt": "tilt p", "snr_shift": "δ"}  # of keys, as tables and docs/hypothesis.md write them
# What names a run in words of its own; every other process key is told only where runs differ in it.
NAMED_KEYS = {"family", "f_type", "f_N", "f_table", "direction", "mode_order", "basis", "prediction"}


def read_runs(paths: Sequence[str]) -> list[Settings]:
    """The settings of the runs of a figure, in order; UserError when one is bad or they differ in resolution."""
    runs = config.read_runs(paths)
    if len({run.resolution for run in runs}) > 1:
        name = ", ".join(dict.fromkeys(paths))
        raise UserError(f"{name}: the runs have different resolutions; draw those of each in a figure of their own")
    return runs


def number_label(value: float) -> str:
    """A number for the eye: 3,000 and 0.1406, with a true minus."""
    return (f"{value:,}" if isinstance(value, int) else f"{value:.4g}").replace("-", "−")


def fixed(value: float, places: int) -> str:
    """A number with so many decimals, a true minus, and none before 0."""
    text = f"{value:.{places}f}"
    return text.replace("-", "−" if float(text) else "")


def value_label(value: object) -> str:
    """A setting's value for the eye: numbers without needless digits, all else as it is."""
    return number_label(value) if isinstance(value, float) else str(value)


def count(n: int | None, what: str) -> str:
    """`1 step`, `3,000 steps`; `all steps` where the number is not known."""
    if n is None or pd.isna(n):
        return f"all {what}s"
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def join_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def one_line(text: object) -> str:
    """The text with every line break and run of spaces as one space."""
    return " ".join(str(text).split())


def verbatim(text: str) -> str:
    """The text for matplotlib, which would take what stands between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def markdown(text: str) -> str:
    """The text in Markdown, also in a table's cell: what would be markup is shown as it is."""
    # An underscore within a word is none in Markdown either.
    return re.sub(r"[\\`*{}\[\]<>&|$^~#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", one_line(text))


def table(heads: Sequence[str], numbers: int, lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; its last `numbers` columns are of numbers. Cells are Markdown."""
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, rule, *lines))


def data_label(settings: Mapping) -> str:
    """A data set's label; synthetic data is always called so."""
    label = one_line(settings["label"])
    return f"{label} (synthetic)" if settings["synthetic"] and "synthetic" not in label.lower() else label


def schedule_label(process: Mapping) -> str:
    """A blur schedule in words, from process keys: `no blur`, `log, f(N) = 0.6`; other families by their name."""
    if process["family"] != "blur":
        return FAMILIES.get(process["family"], process["family"])
    if process["f_type"] == "none":
        return "no blur"
    if process["f_type"] == "table":
        return one_line(f"table {Path(process['f_table'] or '').stem}")
    return f"{process['f_type']}, f(N) = {number_label(float(process['f_N']))}"


def variant_label(settings: Mapping, with_direction: bool = False) -> str:
    """What sets a process apart beside its schedule: direction, order of modes, basis; empty for the paper's own.

    `settings` holds process keys; coarse-to-fine is told only when `with_direction`, no direction without blur.
    """
    words = []
    direction = settings["direction"]
    blurs = settings["f_type"] != "none"
    if blurs and (with_direction or direction != "coarse-to-fine"):
        words.append(DIRECTIONS.get(direction, direction))
    if blurs and settings["mode_order"] != "paper":
        words.append(f"{settings['mode_order']} mode order")
    if settings["prediction"] != "epsilon":
        words.append(PREDICTIONS.get(settings["prediction"], f"predicts {settings['prediction']}"))
    basis = settings["basis"]
    if basis != "gaussian-blur":
        words.append(BASES.get(basis, f"{basis} basis"))
    return ", ".join(words)


def own_texts(runs: Sequence[Mapping]) -> list[str]:
    """What figures show of the user's own words: labels of data sets, names of tables."""
    return distinct(text for run in runs for text in (data_label(run), schedule_label(run["process"])))


def run_labels(runs: Sequence[Mapping], with_seed: bool = True) -> list[str]:
    """One label per run, without its data set: schedule and variant, and whatever else tells the runs apart.

    A schedule that occurs in several directions has each told; with `with_seed`, so has a run with several seeds. What
    more than half of the runs share is not told.
    """
    directions: dict[str, set] = {}
    for run in runs:
        directions.setdefault(schedule_label(run["process"]), set()).add(run["process"]["direction"])
    differing = [key for key in differing_keys([run["process"] for run in runs]) if key not in NAMED_KEYS]
    both = {(run["process"]["prediction"], run["process"]["loss"]) for run in runs}
    if len(both) == len({prediction for prediction, _ in both}):  # what is predicted tells the loss as well
        differing = [key for key in differing if key != "loss"]
    values = {key: [run["process"][key] for run in runs] for key in differing}
    usual = {key: [v for v in own if own.count(v) > len(runs) / 2] for key, own in values.items()}
    names = [run["run"] for run in runs]
    labels = []
    for run in runs:
        process = run["process"]
        words = [schedule_label(process)]
        variant = variant_label(process, with_direction=len(directions[words[0]]) > 1)
        if variant:
            words.append(variant)
        told = [key for key in differing if process[key] not in (*usual[key], None)]
        words += [f"{SYMBOLS.get(key, key.replace('_', ' '))} = {value_label(process[key])}" for key in told]
        if with_seed and names.count(run["run"]) > 1:
            words.append(f"seed {run['seed']}")
        labels.append(one_line(", ".join(words)))
    # Runs that differ in training or sampling alone.
    places = [(run["dataset"], label) for run, label in zip(runs, labels, strict=True)]
    alike = {place: {run["run"] for run, own in zip(runs, places, strict=True) if own == place} for place in places}
    return [
        f"{label}, run {run['run']}" if len(alike[place]) > 1 else label
        for run, label, place in zip(runs, labels, places, strict=True)
    ]


def differing_keys(settings: Sequence[Mapping]) -> list[str]:
    """The keys (in order of appearance) that do not have one and the same value in all of `settings`."""
    return [key for key in settings[0] if any(one[key] != settings[0][key] for one in settings)]


def distinct(values: Iterable) -> list:
    """The values without repetition, in order of appearance; None left out."""
    return list(dict.fromkeys(value for value in values if value is not None))


def either(values: Iterable) -> str:
    """Distinct values for a caption: `3,000` or `3,000 or 5,000`."""
    return " or ".join(number_label(v) if isinstance(v, int | float) else str(v) for v in distinct(values))


def data_note(runs: Sequence[Mapping]) -> str:
    """The data sets of `runs` and their resolution, as part of a sentence in Markdown."""
    names = join_words(distinct(markdown(data_label(run)) for run in runs))
    size = either(f"{run['resolution']}×{run['resolution']}" for run in runs)
    note = ", drawn procedurally, not photographs" if any(run["synthetic"] for run in runs) else ""
    return f"{names}{note}, {size} pixels"


def images_note(runs: Sequence[Mapping], counts: Sequence[int]) -> str:
    """How many images each data set of `runs` has, as a sentence of a caption; empty without `counts`."""
    sizes = distinct(f"{markdown(data_label(run))}: {n:,}" for run, n in zip(runs, counts, strict=bool(counts)))
    return f" Images to train on: {'; '.join(sizes)}." if sizes else ""


def training_note(runs: Sequence[Mapping]) -> str:
    """How long the runs were trained, as part of a sentence."""
    iterations, batch = (either(run["training"][key] for run in runs) for key in ("iterations", "batch_size"))
    decay = " or ".join(map(str, distinct(run["training"]["ema_decay"] for run in runs)))
    return f"{iterations} iterations of batch {batch}, EMA {decay}"


def n_steps(settings: Mapping) -> int:
    """How many steps the run's sampler takes: all that are trained, unless the settings say fewer."""
    trained = settings["process"]["n_timesteps"] - settings["process"]["skip_last_timestep"]
    return min(settings["sampling"]["n_steps"] or trained, trained)


def drawn_label(n_steps: int | None, sampler: str) -> str:
    """`200 reverse diffusion steps`."""
    return count(n_steps, f"{SAMPLERS.get(sampler, sampler).replace(', ', ' ')} step")


def sampling_note(runs: Sequence[Mapping]) -> str:
    """How the samples of the runs were drawn, as part of a sentence."""
    drawn = either(drawn_label(n_steps(run), run["sampling"]["sampler"]) for run in runs)
    timesteps = either(run["process"]["n_timesteps"] for run in runs)
    seeds = distinct(run["seed"] for run in runs)
    return f"{drawn} of N = {timesteps}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
