"""Every figure by its name: what draws it, from which files, and which settings decide it.

To add a figure, write one function and one entry of FIGURES: the command `figure`, the workflow's rule and the captions
of Snakemake's report take all they need from here. Snakemake reads this file too, so it imports next to nothing.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from blurdiff.config import settings
from blurdiff.config.keys import check_names


class Input(NamedTuple):
    """A kind of file that figures and tables are made from: the option of its name takes one path for each run."""

    path: str  # where the workflow keeps it; keys of the run's settings stand in braces
    read: str  # "module:function" that reads it, from its path and the run's settings
    help: str
    ordered: bool = True  # one for each run, in their order; otherwise they say themselves of which run they are, and
    # `read` takes all paths and runs


class Figure(NamedTuple):
    """A figure: `draw` takes the runs' settings, `inputs` (a list for each, in the order of the runs) and `options`.

    `draw` returns what is drawn, a matplotlib figure or (as webp) an animation.Animation, and its caption.
    """

    title: str  # what is shown, for the command's help and for Snakemake's report
    draw: str  # "module:function" of blurdiff.reporting
    inputs: tuple[str, ...] = ()  # keys of INPUTS
    sections: tuple[str, ...] = ("process",)  # sections of the settings that decide the figure, beside its files
    options: tuple[str, ...] = ()  # keys of OPTIONS
    all_samples: bool = False  # whether all samples are read, not the first few
    all_seeds: bool = False  # whether it shows every seed of its runs, not the first alone
    formats: tuple[str, ...] = ("png", "pdf")  # its files; reports show the first
    shows_data: bool = False  # whether images of the data set can be seen in it
    chapter: str = "inside"  # where results/report.html shows it: a key of exhibits.CHAPTERS


class Option(NamedTuple):
    """A whole number that some figures take."""

    default: int
    minimum: int
    help: str


INPUTS = {
    "strips": Input("<results>/runs/{run}/seed{seed}/strips.npz", "inputs:read_strips", "strips.npz of each run"),
    "samples": Input("<results>/runs/{run}/seed{seed}/samples.npz", "inputs:read_samples", "samples.npz of each run"),
    "images": Input("<results>/data/{dataset}/images.npy", "inputs:read_images", "images.npy of each run's data set"),
    "histories": Input("<results>/runs/{run}/seed{seed}/history.csv", "inputs:read_history", "history.csv of each run"),
    "evaluations": Input(
        "<results>/runs/{run}/seed{seed}/fid.json", "tables:read_evaluations", "fid.json of each run", ordered=False
    ),
    "studies": Input(
        "<results>/runs/{run}/seed{seed}/samplers.csv", "tables:read_studies", "samplers.csv of runs", ordered=False
    ),
    "drawn": Input("<results>/runs/{run}/seed{seed}/samplers.npz", "inputs:read_drawn", "samplers.npz of each run"),
}
OPTIONS = {
    "n_images": Option(1, 1, "figure1 and animation: samples shown of each run"),
    "image_index": Option(0, 0, "forward: which image of the data set"),
}
TRAINED = ("process", "training")
SAMPLED = (*TRAINED, "sampling")
FIGURES = {
    "figure1": Figure(
        "Figure 1: reverse processes side by side, from noise to image", "strips:reverse_process", ("strips",), SAMPLED,
        options=("n_images",), chapter="reverse",
    ),
    "animation": Figure(
        "Figure 1 that moves: reverse processes from noise to image", "animation:reverse_processes", ("strips",),
        SAMPLED, options=("n_images",), formats=("webp",), chapter="reverse",
    ),
    "figure2": Figure(
        "Figure 2: samples of different blur schedules", "grids:sample_grids", ("samples",), SAMPLED, chapter="samples",
    ),
    "figure3": Figure(
        "Figure 3: samples of different directions of the blur", "grids:sample_grids", ("samples",), SAMPLED,
        chapter="samples",
    ),
    "figure4": Figure("Figure 4: blur schedules f(i) against the timestep i", "curves:blur_schedules"),
    "factor": Figure(
        "What ε prediction multiplies: σ/√Ā by timestep and mode", "factor:error_factors", chapter="breaks",
    ),
    "tilts": Figure(
        "Where each process stands between coarse to fine and fine to coarse", "tilts:tilts", ("images",),
        chapter="tilt",
    ),
    "samples": Figure(
        "Samples of every run beside images of its data set", "grids:overview", ("samples", "images"), SAMPLED,
        shows_data=True, chapter="samples",
    ),
    "forward": Figure(
        "The forward process: one image while it is diffused", "forward:forward_process", ("images",),
        options=("image_index",), shows_data=True, chapter="reverse",
    ),
    "training": Figure(
        "Training loss against the iteration, overall and by quarter of the timesteps", "curves:training_curves",
        ("histories",), TRAINED,
    ),
    "spectrum": Figure(
        "Power spectrum of samples over that of the data", "curves:spectra", ("samples", "images"), SAMPLED,
        all_samples=True,
    ),
    "metrics": Figure(
        "Every metric of every run, beside what the data gets", "dots:metrics_of_runs", ("evaluations",),
        (*SAMPLED, "evaluation"), all_seeds=True, chapter="metrics",
    ),
}  # fmt: skip
check_names(FIGURES, settings.FIGURES, "reporting.figures.FIGURES")


def function(name: str) -> Callable:
    """The function that "module:function" names; modules are those of blurdiff.reporting, or have a dot in their name.

    It is imported only now.
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module if "." in module else f"blurdiff.reporting.{module}"), attribute)
