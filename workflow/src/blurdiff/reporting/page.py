"""results/report.html: what a run gave, on one page that needs no other file and no network.

The same results give the same bytes on one machine, with one version of the code and its packages.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from blurdiff import __version__
from blurdiff.config import made
from blurdiff.config.runs import trained_runs
from blurdiff.config.settings import Settings
from blurdiff.data import sources
from blurdiff.data.manifest import read_manifest
from blurdiff.evaluation.metrics import FRECHET
from blurdiff.reporting import differences, grids, inputs, labels, markup, mosaic, tables, timings
from blurdiff.reporting.exhibits import CHAPTERS, Exhibit, exhibits
from blurdiff.runtime import arrays, machine
from blurdiff.runtime.text import duration, size

TEMPLATE = Path(__file__).with_name("page.html")
PACKAGES = ("torch", "numpy", "scipy", "pillow", "pandas", "matplotlib", "snakemake")
SHEET = 4  # images of a run side by side and one above another
SHEET_WIDTH = 320  # pixels, at least
# What the names of runs say, for those who know nothing of the paper.
WORDS = {
    "no blur": "noise alone",
    "log": "a blur that grows early",
    "quartic": "a blur that grows late",
    "f(N)": "how strong the blur is in the end",
    "fine-to-coarse": "the opposite order, fine detail first",
    "Gaussian prior": "the network learns only what a Gaussian does not know of the images",
}
SATURATED = 0.05  # from which share on of its images a run is marked


class Card(NamedTuple):
    """A run, or a data set, as a sheet of its first images and a few words."""

    title: str
    sheet: markup.Picture
    distance: str = ""  # mean ± deviation
    against: str = ""  # the difference from no blur
    broken: str = ""  # what is wrong with its samples
    name: str = ""  # by which a config calls it


def render(config: Mapping) -> str:
    """The page of a complete config, from what is in its folder of results. What is not there yet is listed, as is what
    was made with other settings than the config's.

    Raises UserError when a file is damaged.
    """
    results = Path(config["results"])
    runs = trained_runs(dict(config))
    shown = exhibits(dict(config))
    missing = [name for exhibit in shown for name in exhibit.files if not (results / name).exists()]
    whole = [exhibit for exhibit in shown if not set(missing) & set(exhibit.files)]
    stale = stale_files(config, runs)
    data = data_cards(config, runs, missing, stale)
    samples = [samples_of(run) for run in runs]
    missing += [name for name in samples if not (results / name).exists() and name not in missing]
    titles = " ".join(card.title for _, cards in data for card in cards)
    values = {
        "data": data,
        "words": {word: meaning for word, meaning in WORDS.items() if re.search(rf"(?<!\w){re.escape(word)}", titles)},
        "chapters": [
            (key, chapter, [content(results, one) for one in whole if one.chapter == key])
            for key, chapter in CHAPTERS.items()
        ],
        "times": times(results, config, runs),
        "stale": list(stale.values()),
        "missing": list(dict.fromkeys(str(Path(name).with_suffix("")) for name in missing)),
        "facts": facts(results, runs),
        "machine": machine_of(runs),
        "datasets": labels.join_words(labels.distinct(labels.data_label(run) for run in runs)),
        "metric": metric_of(results),
        "config": yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100),
        "manifests": manifests(results, runs),
        "version": __version__,
        "commit": machine.commit(),
        "packages": machine.versions(PACKAGES),
        "synthetic": any(run.synthetic for run in runs),
        "n_runs": len(runs),
        "n_models": len({model_of(run) for run in runs}),
        "n_drawn": len({model_of(run) for run in runs if (results / samples_of(run)).exists()}),
        "blurred": sum(blurs(run) for run in runs),
        "seeds": len(config["seeds"]),
    }  # fmt: skip
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["table"] = lambda part: isinstance(part, markup.Table)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)


def samples_of(run: Settings) -> str:
    """Where the samples of a run and seed are, among the results."""
    return f"runs/{run.run}/seed{run.seed}/samples.npz"


def model_of(run: Settings) -> str:
    """What tells its model from others; runs that differ in sampling share one."""
    return json.dumps([run.dataset, made.deciding(run, *made.MODEL)], sort_keys=True)


def blurs(run: Settings) -> bool:
    """Whether images are blurred while noise is added."""
    family, f_type = run.process.family, run.process.f_type
    return family == "blurring-diffusion" or (family == "blur" and f_type != "none")


def stale_files(config: Mapping, runs: Sequence[Settings]) -> dict[str, str]:
    """The images and samples that are there, but were made with other settings than the config's, and which."""
    results, found = Path(config["results"]), {}
    for name in dict.fromkeys(run.dataset for run in runs):
        path, part = results / "data" / name / "manifest.json", config["datasets"][name]
        _, source = sources.source_of(part, str(results / "data" / f"{name}_lmdb"))
        expected = {"resolution": config["resolution"], **part, "source": os.path.normpath(source)}
        of_images = {key: os.path.normpath(v) if key == "source" else v for key, v in made.settings_in(path).items()}
        found[f"data/{name}/images.npy"] = made.difference(path, of_images, expected)
    for run in runs:
        path = results / samples_of(run)
        if path.exists():
            wanted = made.deciding(run, *made.SAMPLES)
            found[samples_of(run)] = made.difference(path, arrays.read_made_with(path), wanted, *made.STRIPS)
    return {name: text for name, text in found.items() if text}


def content(results: Path, exhibit: Exhibit) -> dict[str, Any]:
    """What the template is told of an exhibit: title, picture, and paragraphs and tables below it."""
    parts: list[Markup | markup.Table] = []
    for name in (exhibit.caption, exhibit.table):
        if name:
            blocks = markup.blocks((results / name).read_text(encoding="utf-8"))
            parts += sorted(blocks, key=lambda block: not isinstance(block, markup.Table))  # tables before their text
    if exhibit.text:
        parts.append(markup.inline(exhibit.text))
    picture = markup.picture_file(results / exhibit.picture, exhibit.title) if exhibit.picture else None
    return {"title": exhibit.title, "picture": picture, "parts": parts}


def table_of(results: Path, name: str) -> pd.DataFrame | None:
    """A table of the results, None if it is not there."""
    path = results / name
    return inputs.read_csv(path, "delete it and run again") if path.exists() else None


def metric_of(results: Path) -> str | None:
    """How the distance of Table 1 is called."""
    table = table_of(results, "table1.csv")
    return None if table is None else str(table["metric"].iloc[0])


def data_cards(
    config: Mapping, runs: Sequence[Settings], missing: list[str], stale: Mapping[str, str]
) -> list[tuple[str, list[Card]]]:
    """For each data set its label and cards: its own images, then the samples of each run's first seed.

    What is not there is added to `missing`; what is `stale` is left out.
    """
    results = Path(config["results"])
    first = {run.run: run for run in reversed(runs)}
    ordered = [first[name] for name in dict.fromkeys(run.run for run in runs)]
    names = labels.run_labels(ordered)
    scores, pairs, failures = (table_of(results, f"{name}.csv") for name in ("table1", "differences", "failures"))
    studied = config["sampler_study"]["runs"]
    found: dict[str, tuple[str, list[Card]]] = {}
    for run, name in zip(ordered, names, strict=True):
        images, samples = f"data/{run.dataset}/images.npy", samples_of(run)
        _, cards = found.setdefault(run.dataset, (labels.data_label(run), []))
        if not cards and images not in stale and (results / images).exists():
            sheet = sheet_of(inputs.read_images(results / images, run), f"images of {labels.data_label(run)}")
            floor = row_of(scores, dataset=run.dataset)
            cards.append(Card("the data itself", sheet, tables.cell(tables.of_floor(floor)) if floor else ""))
        if samples not in stale and (results / samples).exists():
            drawn = inputs.read_samples(results / samples, run, first=SHEET**2)
            sheet = sheet_of(drawn, f"samples of {run.run}")
            score, pair = row_of(scores, run=run.run), row_of(pairs, run=run.run, metric=FRECHET)
            evaluation = (results / samples).with_name("fid.json")
            if score is None and evaluation.exists():  # the table waits for all runs
                score = {"mean": tables.read_evaluation(str(evaluation))["value"], "std": float("nan")}
            against = differences.cell(pair | {"pairs": pair["seeds"]}, pair["seeds"]) if pair else ""
            failure = row_of(failures if run.run in studied else None, run=run.run)
            share = failure["saturated"] if failure else 0.0
            broken = f"{share:.0%} black, white or one colour" if share >= SATURATED else ""
            cards.append(Card(name, sheet, tables.cell(score) if score else "", against, broken, run.run))
        missing += [path for path in (images, samples) if not (results / path).exists() and path not in missing]
    return list(found.values())


def sheet_of(images: np.ndarray, text: str) -> markup.Picture:
    """The first images of uint8 (n, R, R, 3) as a square sheet, enlarged like those of figures."""
    grid = grids.first_grid(images, SHEET, SHEET)
    factor = -(-SHEET_WIDTH // (SHEET * images.shape[1]))
    return markup.picture_of(mosaic.mosaic(grid, factor, factor), text)


def row_of(table: pd.DataFrame | None, **wanted: str) -> dict | None:
    """The first row of a table that has these values; None if there is none, or no table. Of the rows of a run, the
    first is that of its own samples."""
    if table is None:
        return None
    chosen = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return chosen.iloc[:1].to_dict("records")[0] if len(chosen) else None


def facts(results: Path, runs: Sequence[Settings]) -> dict[str, str]:
    """What the run was, in a few words each."""
    seeds = len({run.seed for run in runs})
    sizes = labels.either(f"{run.resolution}×{run.resolution} pixels" for run in runs)
    n_samples = labels.either(run.sampling.n_samples for run in runs)
    return {
        "models": f"{len(runs) // seeds} runs, {seeds} seed{'s' * (seeds > 1)} each",
        "images": sizes,
        "training": labels.training_note(runs),
        "samples": f"{n_samples} a run; {labels.sampling_note(runs)}",
    }


def machine_of(runs: Sequence[Settings]) -> str:
    """The machine that this is written on, with its GPU if the runs want one and it is here."""
    name = machine.cpu_name()
    if any(run.training.device == "cuda" for run in runs):
        import torch

        if torch.cuda.is_available():
            return f"{machine.name_of_device('cuda')}; {name}"
    return name


def times(results: Path, config: Mapping, runs: Sequence[Settings]) -> dict[str, Any]:
    """Time and memory of the jobs, by stage: {} where nothing was timed.

    Training counts by history.csv, which knows the time of a model that was resumed or found in the store.
    """
    models = {f"{run.run}.seed{run.seed}": history_seconds(results, run) for run in runs}
    jobs = timings.of_config(timings.read_timings(results / "benchmarks"), config["datasets"], models)
    trained = jobs["job"].map(models).astype(float).where(jobs["rule"] == "train")
    jobs = jobs.assign(seconds=trained.fillna(jobs["seconds"]))
    rows, total, longest = [], 0.0, (0.0, "")
    for rule, words in timings.STAGES.items():
        own = jobs[jobs["rule"] == rule]
        if len(own):
            sums, most = own.sum(numeric_only=True), own.max(numeric_only=True).fillna(0)
            numbers = (sums["seconds"], most["seconds"], sums["cpu_seconds"], most["max_rss_mb"])
            rows.append([words, f"{len(own)}", *(f"{each:,.0f}" for each in numbers)])
            total += sums["seconds"]
            longest = max(longest, (most["seconds"], words))
    if not rows:
        return {}
    heads = ["stage", "jobs", "seconds", "longest job", "processor seconds", "memory (MB)"]
    table = markup.Table([Markup(head) for head in heads], [False] + [True] * 5, [[Markup(c) for c in r] for r in rows])
    return {"total": duration(total), "longest": duration(longest[0]), "which": longest[1], "table": table}


def history_seconds(results: Path, run: Settings) -> float | None:
    """The seconds that training took, by a run's history.csv; None if there is none."""
    path = results / "runs" / run.run / f"seed{run.seed}" / "history.csv"
    if not path.exists():
        return None
    history = inputs.read_csv(path, "train the run again")
    return float(history["seconds"].iloc[-1]) if "seconds" in history and len(history) else None


def manifests(results: Path, runs: Sequence[Settings]) -> list[dict[str, Any]]:
    """Of each data set: label, source, images used and left out, digest."""
    found = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        path = results / "data" / dataset / "manifest.json"
        if path.exists():
            one = read_manifest(path, "n_used", "sha256")
            about = f"{one.n_used:,} images of {one.source}, {len(one.skipped)} left out"
            about += f", {size((results / 'data' / dataset / 'images.npy').stat().st_size)}"
            found.append({"name": dataset, "about": about, "sha256": one.sha256})
    return found
