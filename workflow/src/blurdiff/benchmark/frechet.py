"""The Fréchet distance of two sets of statistics: ours, and SciPy's sqrtm as pytorch-fid calls it."""

from functools import partial

import numpy as np
from scipy import linalg

from blurdiff.benchmark.rows import Bench, Row, Target, Work
from blurdiff.evaluation.frechet import frechet_distance, moments

STAGE = "Fréchet distance"
SQRTM = "scipy.linalg.sqrtm, as pytorch-fid"
OURS = "ours, symmetric eigenvalues"


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of the one stage."""
    arguments = {"dimension": bench.size(64, 2048, 2048)}
    row = partial(Row, STAGE, arguments=arguments, unit="distances/s", baseline=SQRTM, on_cpu=True)
    return [[row(SQRTM, by_root), row(OURS, ours, tolerance=1e-10, targets=(Target(SQRTM, 5.0),))]]


def statistics(dimension: int, n: int, seed: int) -> tuple:
    """Mean and covariance of n correlated random features; the covariance has full rank if n > dimension."""
    rng = np.random.default_rng(seed)
    # Variances over two decades, in directions of their own.
    mixed = rng.standard_normal((dimension, dimension)) / dimension**0.5 * np.geomspace(1, 0.1, dimension)
    found = moments(rng.standard_normal((n, dimension)) @ mixed + 0.1 * rng.standard_normal(dimension))
    return found.mu, found.sigma


def ours(device, threads: int, dimension: int) -> Work:
    def of_few(a: tuple, b: tuple) -> str:
        value = frechet_distance(*a, *b)
        if not (isinstance(value, float) and np.isfinite(value)):
            raise ArithmeticError(f"the distance of {dimension // 2} images is {value}")
        return f"{value:.10g}"

    return _work(dimension, frechet_distance, of_few)


def by_root(device, threads: int, dimension: int) -> Work:
    from pytorch_fid.fid_score import calculate_frechet_distance

    def of_few(a: tuple, b: tuple) -> str:
        """By SciPy's root, whose imaginary part pytorch-fid drops, and how large that is."""
        (mu1, sigma1), (mu2, sigma2) = a, b
        root = linalg.sqrtm(sigma1 @ sigma2)
        value = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real
        if not np.iscomplexobj(root):
            return f"{value:.10g}"
        return f"{value:.10g}, dropping an imaginary part of up to {np.abs(root.imag).max():.2g} in the root"

    return _work(dimension, calculate_frechet_distance, of_few)


def _work(dimension: int, distance, of_few) -> Work:
    """The distance; and in the note what comes of fewer images than dimensions."""
    a, b = (statistics(dimension, 5 * dimension, seed) for seed in (0, 1))
    few = [statistics(dimension, dimension // 2, seed) for seed in (2, 3)]
    value: list[float] = []

    def call() -> None:
        value[:] = [distance(*a, *b)]

    def result():
        work.note += f"; of {dimension // 2:,} images: {of_few(*few)}"
        return np.array(value)

    n_bytes = sum(part.nbytes for part in (*a, *b))
    work = Work(call, 1, "fp64", note=f"d = {dimension:,}", n_bytes=n_bytes, result=result)
    return work
