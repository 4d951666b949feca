"""All pairs of two sets of features, once: sums of KID's kernel, and which images lie among each other's neighbours.

Distances and kernel come from the same products of features, in float64, tile by tile: in float32 the squares of far
features would drown the distances of near ones. Beside the features, memory is that of some tiles (about 0.3 GB), for
50,000 × 2,048 as for less.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TILE = 2048  # rows and columns that are compared at once


@dataclass(frozen=True)
class Set:
    """One of two sets, n rows of features: sums of the kernel, and its balls.

    The ball of a row is what lies no farther from it than its k-th neighbour of the same set (itself left out).
    """

    kernel_own: np.ndarray  # float64 (n,), over the other rows of the set
    kernel_other: np.ndarray  # float64 (n,), over all rows of the other set
    balls: dict[int, np.ndarray]  # by k, int64 (n,): how many of the other set lie in each row's ball
    inside: dict[int, np.ndarray]  # by k, int64 (n,): in how many balls of the other set each row lies

    def __len__(self) -> int:
        return len(self.kernel_own)


def compare(
    one: np.ndarray, two: np.ndarray, neighbours: tuple[int, ...], device: torch.device | str = "cpu"
) -> tuple[Set, Set]:
    """The two sets, of features (n, d) and (m, d), for each k of `neighbours` that is below n and m."""
    features = [Features(rows, device) for rows in (one, two)]
    known = [k for k in neighbours if k < min(len(one), len(two))]
    own, radii = zip(*(within(each, max(known, default=0)) for each in features), strict=True)
    other = [torch.zeros_like(sums) for sums in own]
    balls, inside = ([{k: each.new_zeros(len(each), dtype=torch.int64) for k in known} for each in own] for _ in "bi")
    for rows in features[0].slices():
        for columns in features[1].slices():
            kernel, squares = features[0].tile(rows, features[1], columns)
            other[0][rows] += kernel.sum(1)
            other[1][columns] += kernel.sum(0)
            for k in known:
                of_one = squares <= radii[0][rows, k - 1, None]
                of_two = squares <= radii[1][None, columns, k - 1]
                balls[0][k][rows] += of_one.sum(1)
                inside[1][k][columns] += of_one.sum(0)
                balls[1][k][columns] += of_two.sum(0)
                inside[0][k][rows] += of_two.sum(1)
    one_set, two_set = (
        Set(own[s].cpu().numpy(), other[s].cpu().numpy(), *({k: n.cpu().numpy() for k, n in counts[s].items()}
            for counts in (balls, inside))) for s in range(2)
    )  # fmt: skip
    return one_set, two_set


class Features:
    """Features (n, d) of any float type on the host, of which tiles go to `device` in float64."""

    def __init__(self, rows: np.ndarray, device: torch.device | str):
        self.rows, self.device = rows, device
        self.norms = torch.cat([self.part(each).square().sum(1) for each in self.slices()])  # float64 (n,)

    def slices(self, first: int = 0) -> Iterator[slice]:
        return (slice(start, min(start + TILE, len(self.rows))) for start in range(first, len(self.rows), TILE))

    def part(self, rows: slice) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.rows[rows])).to(self.device, torch.float64)

    def tile(self, rows: slice, other: "Features", columns: slice) -> tuple[Tensor, Tensor]:
        """KID's kernel (xᵀy/d + 1)³ and squared distances, each (rows, columns)."""
        products = self.part(rows) @ other.part(columns).T
        squares = (self.norms[rows, None] + other.norms[None, columns] - 2 * products).clamp(min=0)
        return (products / self.rows.shape[1] + 1) ** 3, squares


def within(features: Features, k: int) -> tuple[Tensor, Tensor]:
    """Sums of the kernel over the other rows (n,), and squared distances of the k nearest of them, ascending (n, k)."""
    n = len(features.norms)
    sums = features.norms.new_zeros(n)
    nearest = features.norms.new_full((n, k), torch.inf)
    for rows in features.slices():
        for columns in features.slices(rows.start):
            kernel, squares = features.tile(rows, features, columns)
            if rows == columns:
                kernel.fill_diagonal_(0)
                squares.fill_diagonal_(torch.inf)
            # The other half of the pairs is this one's mirror image.
            mirrored = [] if rows == columns else [(columns, kernel.T, squares.T)]
            for part, values, distances in [(rows, kernel, squares), *mirrored]:
                sums[part] += values.sum(1)
                nearest[part] = torch.cat([nearest[part], distances], 1).topk(k, largest=False).values
    return sums, nearest
