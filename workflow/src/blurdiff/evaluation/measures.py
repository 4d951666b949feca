"""What METRICS measures: each function takes a Comparison and gives a Score; all of them in float64."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from blurdiff.evaluation import pairs
from blurdiff.evaluation.frechet import Moments, frechet_distance, moments
from blurdiff.evaluation.metrics import METRICS
from blurdiff.evaluation.records import Reference

PRECISION_K = 3  # Kynkäänniemi et al.
DENSITY_K = 5  # Naeem et al.


class Score(NamedTuple):
    """A metric's value and its standard error; None for what cannot be computed from so few images, or is not known."""

    value: float | None
    error: float | None = None


@dataclass
class Comparison:
    """Samples and images of the data, by their features."""

    samples: np.ndarray  # (n, d)
    whole: Moments | Reference  # mean and covariance of all images of the data
    real: np.ndarray | None  # (m, d), of some of them; None where only the moments are known
    device: torch.device | str = "cpu"

    @cached_property
    def own(self) -> Moments:
        """Of the samples."""
        return moments(self.samples)

    @cached_property
    def sets(self) -> tuple[pairs.Set, pairs.Set] | None:
        """`real` and `samples`, with what all their pairs give; None without images of the data."""
        if self.real is None:
            return None
        return pairs.compare(self.real, self.samples, (PRECISION_K, DENSITY_K), self.device)

    def scores(self, names: Iterable[str] = METRICS) -> dict[str, Score]:
        """The metrics `names`, by name."""
        return {name: globals()[METRICS[name].measure](self) for name in names}


def frechet(comparison: Comparison) -> Score:
    """Fréchet distance of the samples to all images of the data."""
    own, whole = comparison.own, comparison.whole
    return Score(frechet_distance(own.mu, own.sigma, whole.mu, whole.sigma))


def kernel(comparison: Comparison) -> Score:
    """Squared maximum mean discrepancy under KID's kernel, unbiased, so that it may be negative.

    KID's estimator over all pairs at once, where KID takes the mean over random subsets of 1,000 images: the same
    expectation, and less noise. The standard error is the jackknife's over the images of both sets (3 of each or more).
    """
    if comparison.sets is None or min(map(len, comparison.sets)) < 2:
        return Score(None)
    real, samples = comparison.sets
    value = own_mean(real) + own_mean(samples) - 2 * real.kernel_other.mean() / len(samples)
    if min(len(real), len(samples)) < 3:
        return Score(float(value))
    variance = sum(jackknife(one, two) for one, two in ((real, samples), (samples, real)))
    return Score(float(value), float(np.sqrt(variance)))


def own_mean(one: pairs.Set) -> float:
    """Mean of the kernel over pairs of different rows of a set."""
    return one.kernel_own.sum() / (len(one) * (len(one) - 1))


def jackknife(one: pairs.Set, other: pairs.Set) -> float:
    """The jackknife's variance of the kernel distance from leaving out each row of `one`."""
    n = len(one)
    without = (one.kernel_own.sum() - 2 * one.kernel_own) / ((n - 1) * (n - 2))
    without -= 2 * (one.kernel_other.sum() - one.kernel_other) / ((n - 1) * len(other))
    return (n - 1) * without.var()


def precision(comparison: Comparison) -> Score:
    """Share of samples in the ball of an image of the data."""
    return counted(comparison, PRECISION_K, lambda real, samples: (samples.inside[PRECISION_K] > 0).mean())


def recall(comparison: Comparison) -> Score:
    """Share of images of the data in the ball of a sample."""
    return counted(comparison, PRECISION_K, lambda real, samples: (real.inside[PRECISION_K] > 0).mean())


def density(comparison: Comparison) -> Score:
    """Balls of images of the data in which a sample lies, over k, on average."""
    return counted(comparison, DENSITY_K, lambda real, samples: samples.inside[DENSITY_K].mean() / DENSITY_K)


def coverage(comparison: Comparison) -> Score:
    """Share of images of the data with a sample in their ball."""
    return counted(comparison, DENSITY_K, lambda real, samples: (real.balls[DENSITY_K] > 0).mean())


def counted(comparison: Comparison, k: int, share) -> Score:
    """What `share` makes of the two sets; no value where a set has no k neighbours."""
    if comparison.sets is None or min(map(len, comparison.sets)) <= k:
        return Score(None)
    return Score(float(share(*comparison.sets)))
