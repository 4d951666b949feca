"""Every table of the evaluations by its name: what makes it, and how the report calls and explains it.

To add a table, write one function and one entry of TABLES: the command `table`, the workflow's rule and Snakemake's
report take all they need from here. Snakemake reads this file too, so it imports next to nothing.
"""

from typing import NamedTuple


class Table(NamedTuple):
    """A table of fid.json of every run and seed."""

    title: str  # what is in it, for the command's help and for Snakemake's report
    make: str  # "module:function" from evaluations (tables.read_evaluation) to a tidy DataFrame and Markdown
    chapter: str  # where results/report.html shows it: a key of exhibits.CHAPTERS
    caption: str  # what stands in its columns, in reStructuredText
    studies: bool = False  # whether `make` also takes the rows of the studies of samplers


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
        studies=True,
    ),
}  # fmt: skip
