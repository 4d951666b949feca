"""Every table of runs by its name, some with a figure: what makes it, from which files and runs, and what it says.

To add a table, write one function and one entry of TABLES: the command `table`, the workflow's rule, the page and
Snakemake's report take all they need from here. Snakemake reads this file too, so it imports next to nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from blurdiff.config.runs import trained_runs
from blurdiff.config.settings import Settings
from blurdiff.reporting.figures import INPUTS

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Made(NamedTuple):
    """What the function of a table gives."""

    table: "pandas.DataFrame"  # tidy
    text: str  # the same to read, in Markdown
    figure: "Figure | None" = None
    caption: str = ""  # of the figure


def every(config: Mapping, trained: Sequence[Settings]) -> list[Settings]:
    """All that are trained."""
    return list(trained)


def studied(config: Mapping, trained: Sequence[Settings]) -> list[Settings]:
    """Those of the study of samplers, in its order."""
    study, own = config["sampler_study"], {(each.run, each.seed): each for each in trained}
    seeds = config["seeds"] if study["seeds"] == "all" else config["seeds"][:1]
    return [own[run, seed] for run in study["runs"] for seed in seeds]


def first_studied(config: Mapping, trained: Sequence[Settings]) -> list[Settings]:
    """Of these, the first seed of each run."""
    return [settings for settings in studied(config, trained) if settings.seed == config["seeds"][0]]


def tilted(config: Mapping, trained: Sequence[Settings]) -> list[Settings]:
    """Those whose process has a spectral tilt."""
    return [settings for settings in trained if settings.process.snr_tilt is not None]


Choice = Callable[
    [Mapping, Sequence[Settings]], list[Settings]
]  # from a config and its runs and seeds that are trained


class Table(NamedTuple):
    """A table, and perhaps a figure of the same."""

    title: str  # what is in it, for the command's help and for Snakemake's report
    make: str  # "module:function" of blurdiff.reporting, from the runs' settings and their files, by option, to Made
    chapter: str  # where results/report.html shows it: a key of exhibits.CHAPTERS
    caption: str  # what stands in its columns, in reStructuredText
    inputs: tuple[str, ...] = ("evaluations",)  # keys of figures.INPUTS
    runs: Choice = every  # which runs and seeds of a config; without any it is not made
    figure: bool = False  # whether it comes with a figure of its name
    digits: int | None = 10  # of numbers in the CSV; None: all


TABLES = {
    "table1": Table(
        "Table 1: Fréchet distance by blur schedule and data set", "tables:make", "table1",
        "Smaller is better. *mean* and *std* are over seeds; *floor* is the distance of as many real images to all"
        " others, what a perfect model would get; *paper* is what the paper reports at its own scale.",
    ),
    "metrics": Table(
        "All metrics of every run", "metrics:make", "metrics",
        "*mean* and *std* are over seeds; *error* is the standard error of one seed's number, where there is one;"
        " *floor* is what as many images of the data get as samples; *better* says which way is better.",
    ),
    "differences": Table(
        "Differences from no blur, in pairs of the same seed", "differences:make", "pairs",
        "Runs with the same seed share initial weights, the order of the data and the noise. *difference* is a run's"
        " number minus that of *against*, its run without blur, as the mean over *seeds* such pairs; *low* and *high*"
        " are the ends of the 95 % t interval, for which it takes two seeds or more; *better* says which way the"
        " metric is better. First each run's own samples, then those of the study of samplers.",
        ("evaluations", "studies"),
    ),
    "failures": Table(
        "Samples, distance and saturation by sampler", "failures:make", "breaks",
        "What breaks, and what mends it: every run of the study of samplers, by the sampler that draws from the same"
        " weights and the same noise. Saturated: the share of images of which more than nine in ten pixels have every"
        " channel at 0 or 255. Power at the finest octave: that of the samples over that of the data, 1 where the"
        " detail is right. One seed.",
        ("evaluations", "samples", "images", "studies", "drawn"), first_studied, figure=True, digits=6,
    ),
    "samplers": Table(
        "Distance against the number of network evaluations", "samplers:make", "samplers",
        "Fréchet distance against the number of network evaluations an image, for the samplers and grids of timesteps"
        " that the config lists; smaller is better. The models are those of Table 1, nothing is trained again.",
        ("studies",), studied, figure=True, digits=None,
    ),
    "tilt": Table(
        "Distance by spectral tilt", "tilt:make", "tilt",
        "Is coarse to fine better? Distance by the spectral tilt p of the process: 0 is DDPM, 1 gives all frequencies"
        " the same SNR at every timestep, more is fine to coarse, and below 0 fine detail is lost even earlier than in"
        " DDPM. *difference* is a run's number minus that of *against*, the same run with p = 0, as the mean over"
        " *pairs* of runs with the same seed; *low* and *high* are the ends of its 95 % t interval.",
        ("evaluations", "samples", "images", "studies"), tilted, figure=True,
    ),
}  # fmt: skip


def made(config: dict) -> dict[str, list[Settings]]:
    """The tables of a complete config, and the runs and seeds of each."""
    trained = trained_runs(config)
    found = {name: table.runs(config, trained) for name, table in TABLES.items()}
    return {name: runs for name, runs in found.items() if runs}


def files(name: str, runs_of: Mapping[str, Sequence[Settings]]) -> dict[str, list[str]]:
    """The files that one of the tables `made` is from, by option: those of studies only where there is a study."""
    has_study = {(run.run, run.seed) for run in runs_of.get("samplers", ())}
    return {
        option: [
            INPUTS[option].path.format(**run)
            for run in runs_of[name]
            if option != "studies" or (run.run, run.seed) in has_study
        ]
        for option in TABLES[name].inputs
    }
