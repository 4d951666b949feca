"""Moments of features, and the Fréchet distance between two Gaussians; all in float64.

The Fréchet distance of Inception features is the FID (Heusel et al., arXiv 1706.08500).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Features are summed up this many rows at a time: the cost of a merge, d^2, is then small beside that of the products.
CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Moments:
    """Count, mean (d,) and scatter (d, d), the sum of outer products of the centred rows, of n rows of features."""

    n: int
    mu: np.ndarray
    scatter: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        """The unbiased covariance (d, d), as numpy.cov and pytorch-fid have it; needs n ≥ 2."""
        return self.scatter / (self.n - 1)


def moments(features: np.ndarray) -> Moments:
    """Moments of features (n, d), of any float type, n ≥ 1."""
    features = np.asarray(features, np.float64)
    mu = features.mean(axis=0)
    centred = features - mu
    return Moments(len(features), mu, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of `a` and `b` together (Chan, Golub & LeVeque 1979): no cancellation of large sums."""
    n = a.n + b.n
    step = b.mu - a.mu
    scatter = a.scatter + b.scatter
    scatter += np.outer(step * (a.n * b.n / n), step)
    return Moments(n, a.mu + step * (b.n / n), scatter)


def remove(whole: Moments, part: Moments) -> Moments:
    """Moments of the rows of `whole` that are not in `part`: the inverse of `merge`. ValueError if none is left."""
    n = whole.n - part.n
    if n < 1:
        raise ValueError(f"{part.n} rows taken from {whole.n} leave none")
    step = part.mu - whole.mu
    scatter = whole.scatter - part.scatter
    scatter -= np.outer(step * (whole.n * part.n / n), step)
    return Moments(n, whole.mu - step * (part.n / n), scatter)


def accumulate(batches: Iterable[np.ndarray]) -> Moments:
    """Moments of all rows of the batches (b, d), in one pass and constant memory. ValueError when there is no batch."""
    total: Moments | None = None
    waiting: list[np.ndarray] = []
    rows = 0

    def add() -> Moments:
        chunk = moments(np.concatenate(waiting))
        return chunk if total is None else merge(total, chunk)

    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        if rows >= CHUNK_ROWS:
            total, waiting, rows = add(), [], 0
    if waiting:
        total = add()
    if total is None:
        raise ValueError("no features")
    return total


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """Squared Fréchet distance |mu1 - mu2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of N(mu1, Σ1) and N(mu2, Σ2), float64.

    tr (Σ1 Σ2)^½ is the sum of the square roots of the eigenvalues of the symmetric Rᵀ Σ2 R with R Rᵀ = Σ1, which are
    those of Σ1 Σ2: real, and ≥ 0 up to rounding (clipped), at full rank and below it (fewer images than dimensions)
    alike. mu: (d,), sigma: (d, d) symmetric positive semidefinite, finite. Raises ValueError when shapes differ.
    """
    mu1, mu2 = np.asarray(mu1, np.float64), np.asarray(mu2, np.float64)
    sigma1, sigma2 = np.asarray(sigma1, np.float64), np.asarray(sigma2, np.float64)
    if not (mu1.shape == mu2.shape == (len(mu1),) and sigma1.shape == sigma2.shape == (len(mu1), len(mu1))):
        raise ValueError(f"moments of different shapes: {mu1.shape} {sigma1.shape}, {mu2.shape} {sigma2.shape}")
    root, other = _root(sigma1, sigma2)
    product = root.T @ other @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)
    trace = np.trace(sigma1) + np.trace(sigma2) - 2 * np.sqrt(eigenvalues).sum()
    return float(((mu1 - mu2) ** 2).sum() + trace)


def _root(sigma1: np.ndarray, sigma2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R with R Rᵀ one of the two covariances, and the other of them; the distance does not mind which."""
    # By a Cholesky factor the distance takes half of the time that it takes by eigenvectors; but only a covariance of
    # full rank has one.
    for one, other in ((sigma1, sigma2), (sigma2, sigma1)):
        try:
            return np.linalg.cholesky(one), other
        except np.linalg.LinAlgError:
            continue
    values, vectors = np.linalg.eigh(sigma1)
    return vectors * np.sqrt(values.clip(min=0)), sigma2
