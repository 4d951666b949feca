"""What breaks, and what mends it: schedule, direction and prediction by sampler, from the same weights throughout."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from blurdiff.config.settings import Settings
from blurdiff.diffusion.samplers import evaluations
from blurdiff.errors import UserError
from blurdiff.evaluation.spectrum import power_of_data, radial_power_spectrum
from blurdiff.reporting import labels, mosaic
from blurdiff.reporting.samplers import method_label, together
from blurdiff.reporting.style import GREY, TEXT_WIDTH
from blurdiff.reporting.summaries import Made

COLUMNS = (
    "run", "dataset", "label", "seed", "f_type", "f_N", "direction", "prediction", "loss", "sampler", "grid", "eta",
    "noise_free_steps", "n_steps", "evaluations", "n_samples", "metric", "value", "saturated", "fine_power",
)  # fmt: skip
N_SHOWN = 5  # samples of each in the figure
N_OF_DATA = 10_000  # images of a data set, at most, whose power is what samples should have


def saturated(images: np.ndarray) -> float:
    """The share of images (n, R, R, 3) uint8 that are black, white or of one pure colour nearly everywhere: every
    channel of more than nine in ten pixels is 0 or 255."""
    at_end = ((images == 0) | (images == 255)).all(axis=3)
    return float((at_end.mean(axis=(1, 2)) > 0.9).mean())


def finest_octave(spectrum: tuple[np.ndarray, np.ndarray]) -> float:
    """The power from 1/4 to 1/2 cycles a pixel, of (frequencies, power)."""
    frequency, power = spectrum
    return float(power[(frequency >= 0.25) & (frequency <= 0.5)].sum())


def make(
    runs: Sequence[Settings], evaluations: Sequence[Mapping], samples: Sequence[np.ndarray],
    images: Sequence[np.ndarray], studies: Sequence[pd.DataFrame], drawn: Sequence[np.ndarray],
) -> Made:  # fmt: skip
    """A row for each run's own samples and for each sampler of its study, with a figure of the first samples of each.

    `samples` and `images` (the data set's): uint8 (n, R, R, 3) per run; `drawn`: (rows of the study, n, R, R, 3).
    Raises UserError as samplers.together does, and when a run's `drawn` does not belong to its study.
    """
    study, own = together(studies, runs), {(each["run"], each["seed"]): each for each in evaluations}
    octaves: dict[str, float] = {}  # of the data sets
    rows = []
    for run, its_samples, data, its_drawn in zip(runs, samples, images, drawn, strict=True):
        if run.dataset not in octaves:
            octaves[run.dataset] = finest_octave(power_of_data(data, N_OF_DATA))
        tried = study[(study["run"] == run.run) & (study["seed"] == run.seed)]
        rows += rows_of(run, own[run.run, run.seed], its_samples, octaves[run.dataset], tried, its_drawn)
    return Made(pd.DataFrame(rows, columns=COLUMNS), render(rows, runs), *draw(rows, runs))


def rows_of(
    settings: Settings, evaluation: Mapping, samples: np.ndarray, octave: float, study: pd.DataFrame,
    drawn: np.ndarray,
) -> list[dict[str, Any]]:  # fmt: skip
    """A run's own samples and, of each sampler of its study, those with the most steps; `images` holds the first, and
    `place` tells the run's own (0) from those of the study, and these from one another.

    `octave` is the `finest_octave` of the data, `drawn` (rows of the study, n, R, R, 3) uint8. Raises UserError when
    that does not belong to the study.
    """
    if len(drawn) != len(study):
        raise UserError(
            f"run {settings.run}: {len(drawn)} sets of images for {len(study)} rows of its study; make both anew"
        )
    process, sampling = settings.process, settings.sampling
    base = {key: settings[key] for key in ("run", "dataset", "label", "seed")}
    base |= {key: process[key] for key in ("f_type", "f_N", "direction", "prediction", "loss")}
    own: dict[str, Any] = {key: sampling[key] for key in ("sampler", "grid", "eta", "noise_free_steps")}
    own |= {
        "n_steps": settings.n_steps,
        "evaluations": evaluations(sampling.sampler, settings.n_steps),
        **{key: evaluation[key] for key in ("metric", "value", "n_samples")},
    }
    found = [(own, samples)]
    for k, row in enumerate(study.to_dict("records")):
        if row["n_steps"] == study["n_steps"].max():
            found.append(({key: row[key] for key in own}, drawn[k]))
    rows = []
    for place, (row, images) in enumerate(found):
        power = finest_octave(radial_power_spectrum(images)) / octave
        numbers = {"saturated": saturated(images), "fine_power": power}
        rows.append(base | row | numbers | {"place": place, "images": images[:N_SHOWN]})
    return rows


def methods_of(rows: Sequence[Mapping]) -> dict[tuple[int, str, int], str]:
    """What each sampler is called, by `place`, method and network evaluations; where a run's own samples were drawn
    like those of the study, it says which they are."""
    keys = dict.fromkeys(map(_method, rows))
    drawn = [key[1:] for key in keys]
    alike = {key for key in keys if key[0] == 0 and drawn.count(key[1:]) > 1}
    return {key: f"own samples, {key[1]}" if key in alike else key[1] for key in keys}


def render(rows: Sequence[Mapping], runs: Sequence[Mapping]) -> str:
    """The table in Markdown: a line for each run and sampler."""
    names = dict(zip([run["run"] for run in runs], labels.run_labels(runs), strict=True))
    metric = rows[0]["metric"]
    methods = methods_of(rows)
    heads = ("data", "run", "sampler", "network evaluations", metric, "saturated", "power at the finest octave")
    lines = []
    for row in rows:
        lines.append((
            labels.markdown(labels.data_label(next(run for run in runs if run["run"] == row["run"]))),
            labels.markdown(names[row["run"]]), methods[_method(row)], str(row["evaluations"]),
            f"{row['value']:.1f}", f"{row['saturated']:.0%}", f"{row['fine_power']:.2f}",
        ))  # fmt: skip
    note = (
        "Distance: smaller is better. Saturated: images of which more than nine in ten pixels have every channel at 0"
        " or 255. Power at the finest octave: that of the samples over that of the data. One seed; the same weights"
        " and noise across samplers."
    )
    return f"{labels.table(heads, 4, lines)}\n{note}\n"


def draw(rows: Sequence[Mapping], runs: Sequence[Mapping]) -> tuple[Figure, str]:
    """A line of the figure for each run, a block of its first samples for each sampler; returns figure and caption."""
    methods = methods_of(rows)
    resolution = runs[0]["resolution"]
    factor, dpi = mosaic.fit(N_SHOWN * len(methods), resolution, TEXT_WIDTH - 0.25)
    gap, between, line, margin = round(0.01 * dpi), round(0.1 * dpi), round(0.15 * dpi), round(0.02 * dpi)
    block = N_SHOWN * (resolution * factor + gap)
    height = resolution * factor + 2.3 * line
    width = len(methods) * (block + between) + 2 * margin
    figure = mosaic.blank(width, round(2 * margin + 1.2 * line + len(runs) * (height + 0.4 * line)), dpi)
    for column, ((_, _, n_evaluations), name) in enumerate(methods.items()):
        method, left = f"{name}: {n_evaluations}", margin + column * (block + between)
        points = mosaic.font_size(method, block, dpi, 7)
        mosaic.put_text(figure, method, left, margin + 0.5 * line, fontsize=points, fontweight="bold")
    for number, (run, name) in enumerate(zip(runs, labels.run_labels(runs), strict=True)):
        top = round(margin + 1.2 * line + number * (height + 0.4 * line))
        text = f"{labels.data_label(run)}: {name}"
        mosaic.put_text(figure, text, margin, top + 0.6 * line, fontsize=mosaic.font_size(text, width, dpi, 7))
        for row in rows:
            if row["run"] != run["run"]:
                continue
            left = margin + list(methods).index(_method(row)) * (block + between)
            images = row["images"][None]
            mosaic.put_image(figure, mosaic.mosaic(images, factor, gap), left, round(top + 1.2 * line))
            numbers = f"{row['value']:.0f}   {row['saturated']:.0%} saturated   finest octave {row['fine_power']:.2f}"
            under = top + 1.2 * line + resolution * factor + 0.6 * line
            mosaic.put_text(figure, numbers, left, under, fontsize=5.5, color=GREY)
    caption = (
        f"The first {N_SHOWN} samples of every run, none selected, by sampler (number of network evaluations an image),"
        f" from the same weights and the same noise. Under each: {rows[0]['metric']} (smaller is better), the share of"
        " images of which more than nine in ten pixels have every channel at 0 or 255, and the power at the finest"
        f" octave over that of the data. One seed. Data: {labels.data_note(runs)}; {labels.training_note(runs)}."
        + mosaic.note(resolution)
    )
    return figure, caption


def _method(row: Mapping) -> tuple[int, str, int]:
    return row["place"], method_label(row), row["evaluations"]
