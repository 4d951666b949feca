"""The Fréchet distance of two sets of statistics: ours, and SciPy's sqrtm as pytorch-fid calls it."""

from blurdiff.benchmark.rows import NotInstalled, Row, Target, Work

STAGE = "Fréchet distance"
SQRTM = "scipy.linalg.sqrtm, as pytorch-fid"
OURS = "ours, symmetric eigenvalues"


def rows(quick: bool) -> list[Row]:
    dimension = 64 if quick else 2048
    of = {"unit": "distances/s", "baseline": SQRTM, "on_cpu": True}
    return [
        Row(STAGE, SQRTM, build, {"dimension": dimension, "ours": False}, **of),
        Row(STAGE, OURS, build, {"dimension": dimension, "ours": True}, tolerance=1e-10, targets=(Target(SQRTM, 5.0),),
            **of),
    ]  # fmt: skip


def statistics(dimension: int, n: int, seed: int) -> tuple:
    """Mean and covariance of n correlated random features; the covariance has full rank if n > dimension."""
    import numpy as np

    from blurdiff.evaluation.frechet import moments

    rng = np.random.default_rng(seed)
    # Variances over two decades, in directions of their own.
    mixed = rng.standard_normal((dimension, dimension)) / dimension**0.5 * np.geomspace(1, 0.1, dimension)
    found = moments(rng.standard_normal((n, dimension)) @ mixed + 0.1 * rng.standard_normal(dimension))
    return found.mu, found.sigma


def build(device, threads: int, dimension: int, ours: bool) -> Work:
    import numpy as np

    if ours:
        from blurdiff.evaluation.frechet import frechet_distance as distance
    else:
        try:
            from pytorch_fid.fid_score import calculate_frechet_distance as distance
        except ImportError as error:
            raise NotInstalled("pytorch-fid") from error
    a, b = (statistics(dimension, 5 * dimension, seed) for seed in (0, 1))
    few = [statistics(dimension, dimension // 2, seed) for seed in (2, 3)]
    n_bytes = sum(part.nbytes for part in (*a, *b))
    value = []

    def call() -> None:
        value[:] = [distance(*a, *b)]

    work = Work(call, 1, "fp64", note=f"d = {dimension:,}", n_bytes=n_bytes)

    def result():
        """The distance; and in the note what comes of fewer images than dimensions."""
        of_few = distance(*few[0], *few[1]) if ours else _by_root(few)
        if ours and not (isinstance(of_few, float) and np.isfinite(of_few)):
            raise ArithmeticError(f"the distance of {dimension // 2} images is {of_few}")
        work.note += f"; of {dimension // 2:,} images: " + (f"{of_few:.10g}" if ours else of_few)
        return np.array(value)

    work.result = result
    return work


def _by_root(few: list) -> str:
    """The distance by SciPy's root, whose imaginary part pytorch-fid drops, and how large that is."""
    import numpy as np
    from scipy import linalg

    (mu1, sigma1), (mu2, sigma2) = few
    root = linalg.sqrtm(sigma1 @ sigma2)
    value = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real
    if not np.iscomplexobj(root):
        return f"{value:.10g}"
    return f"{value:.10g}, dropping an imaginary part of up to {np.abs(root.imag).max():.2g} in the root"
