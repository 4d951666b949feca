"""Every number that a run's samples get, by its name: what measures it, how it is called, and which way is better.

To add one, write one function from a Comparison to a Score (measures.py) and one entry of METRICS. Evaluation, the
floor of the data, fid.json, tables and the report take all they need from here, and Snakemake evaluates
anew. It reads this file too, so the file imports next to nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """A number that compares samples with images of the data, by their features."""

    measure: str  # the function of evaluation/measures.py
    label: str | Mapping[str, str]  # how tables call it; by feature network where the literature does
    better: str  # "lower" or "higher"
    meaning: str  # a sentence for captions, without its full stop


FRECHET = "frechet"  # the metric of Table 1
METRICS = {
    FRECHET: Metric(
        "frechet", {"inception": "FID", "efficientnet-lite0": "FD-EfficientNet-Lite0"}, "lower",
        "the Fréchet distance (arXiv 1706.08500) to all images of the data; it grows as samples get fewer",
    ),
    "kernel": Metric(
        "kernel", {"inception": "KID", "efficientnet-lite0": "KD-EfficientNet-Lite0"}, "lower",
        "the kernel distance (arXiv 1801.01401), the same in expectation whatever the number of samples",
    ),
    "precision": Metric(
        "precision", "precision", "higher",
        "the share of samples that lie nearer to an image of the data than its third neighbour (arXiv 1904.06991)",
    ),
    "recall": Metric(
        "recall", "recall", "higher",
        "the share of the data's images that lie nearer to a sample than its third neighbour (arXiv 1904.06991)",
    ),
    "density": Metric(
        "density", "density", "higher",
        "how many images of the data have a sample within their fifth neighbour, over 5, on average (arXiv 2002.09797);"
        " it can exceed 1",
    ),
    "coverage": Metric(
        "coverage", "coverage", "higher",
        "the share of the data's images that have a sample within their fifth neighbour (arXiv 2002.09797)",
    ),
}  # fmt: skip


def label(name: str, network: str) -> str:
    """How a metric of features of `network` is called."""
    given = METRICS[name].label
    return given if isinstance(given, str) else given[network]
