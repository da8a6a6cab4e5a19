"""HSICs of blocks that share their groups of samples, summed to one of their cluster."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cka_widget.engine.summing.permutations import fourth_cumulants


class Clusters:
    """Sums over the blocks of every cluster of a batch, float64 on the sums' device.

    By chance blocks of a cluster may be as one, since the same groups are paired in all of them:
    the root of the variance of their sum is at most the sum of the roots, and so is the fourth
    root of its fourth moment (Minkowski).
    """

    def __init__(self, clusters: list[int], rows: int, device: torch.device) -> None:
        """For every block, in their order, the number of its cluster."""
        self._of = torch.tensor(clusters, device=device)
        self._at = 0
        count = max(clusters, default=-1) + 1
        self._h, self._spread, self._fourth = (
            torch.zeros(count, rows, rows, dtype=torch.float64, device=device) for _ in range(3)
        )
        self._d = torch.zeros(count, rows, dtype=torch.float64, device=device)
        self._weight = [0] * count
        self._numbers = clusters

    def add(self, h: Tensor, d: Tensor, n: int, shapes: Tensor | None) -> None:
        """The next blocks, of n samples each; arguments as of `Sums.add`."""
        stop = self._at + len(h)
        of, numbers = self._of[self._at : stop], self._numbers[self._at : stop]
        self._at = stop
        self._h.index_add_(0, of, h, alpha=n)
        self._d.index_add_(0, of, d, alpha=n)
        for number in numbers:
            self._weight[number] += n
        if shapes is None:
            return
        size = n * d.clamp(min=0)
        pairs = size[:, :, None] * size[:, None, :]
        variance = pairs * (2 / (n * (n - 3)))
        fourth = fourth_cumulants(shapes, n).clamp(min=0) * pairs.square() + 3 * variance.square()
        self._spread.index_add_(0, of, variance.sqrt())
        self._fourth.index_add_(0, of, fourth.sqrt().sqrt())

    def means(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """HSICs (1, R, R), self-HSICs (1, R) and samples of every cluster."""
        for number, weight in enumerate(self._weight):
            yield self._h[number, None] / weight, self._d[number, None] / weight, weight

    def chance(self) -> tuple[Tensor, Tensor]:
        """Bounds of variance and fourth cumulant, summed over the clusters, (R, R) each."""
        variance = self._spread.square()
        fourth = self._fourth**4 - 3 * variance.square()
        return variance.sum(0), fourth.clamp(min=0).sum(0)
