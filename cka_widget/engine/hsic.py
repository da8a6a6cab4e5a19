"""Running sums of per-block HSIC matrices, on the device where they arise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cka_widget.engine.stack import GramStack
from cka_widget.engine.sums import HsicSums, pair_counts


class HsicAccumulator:
    """Adds up blocks into the sums of `HsicSums`; memory O(R^2), no block is kept.

    The covariance between the pairs of an ensemble is not in the pairwise sums. The error of
    their mean therefore runs beside them: with psi the influence of a block on the mean CKA,
    linearised at the running mean, its squares add up as in Welford (1962) and Chan et al.
    (1983): within the batch, and between the batch and all before it.
    """

    def __init__(self, groups: list[int], n_groups: int, device: torch.device) -> None:
        """`groups[r]`: number, below `n_groups`, of the layer that row r is a particle of."""
        # Apple's devices have no float64.
        self._device = torch.device("cpu") if device.type == "mps" else device
        rows = len(groups)
        self.weight = 0.0
        self.blocks = 0
        self.h, self.hh, self.hd, self.dd = (
            torch.zeros(rows, rows, dtype=torch.float64, device=self._device) for _ in range(4)
        )
        self.groups = torch.tensor(groups, dtype=torch.long, device=self._device)
        size = np.bincount(np.array(groups, dtype=np.int64), minlength=n_groups)
        self.influence: Tensor | None = None
        if size.max(initial=0) > 1:
            self._pairs = torch.tensor(pair_counts(size), device=self._device)
            self._own = torch.tensor(np.diag((size > 1)[groups]), device=self._device)
            self.influence = torch.zeros_like(self._pairs, dtype=torch.float64)

    def update(self, stack: GramStack) -> None:
        """Add the blocks of the stack's batch."""
        for h, n in stack.products():
            self.add(h, n)

    def add(self, h: Tensor, n: int) -> None:
        """Add HSIC matrices h (blocks, R, R) of blocks of n samples each."""
        h = h.to(self._device, torch.float64)
        before = self.weight
        self.weight += n * len(h)
        self.blocks += len(h)
        d = h.diagonal(dim1=-2, dim2=-1)
        self.h.add_(h.sum(0), alpha=n)
        self.hh.add_(h.square().sum(0), alpha=n**2)
        self.hd.add_((h * d[:, :, None]).sum(0), alpha=n**2)
        self.dd.addmm_(d.mT, d, alpha=n**2)
        if self.influence is not None:
            psi = self._group_influence(h)
            mean = psi.mean(0)
            self.influence.add_((psi - mean).square().sum(0), alpha=n**2)
            if before:
                between = n**2 * len(h) * self.weight / before
                self.influence.add_(mean.square(), alpha=between)

    def _group_influence(self, h: Tensor) -> Tensor:
        mean = self.h / self.weight
        d = mean.diagonal()
        root = torch.outer(d, d).sqrt()
        own = h.diagonal(dim1=-2, dim2=-1) / d
        psi = h / root - mean / root / 2 * (own[:, :, None] + own[:, None, :])
        psi = psi.masked_fill(self._own, 0)
        total = psi.new_zeros(len(h), *self._pairs.shape)
        by_row = psi.new_zeros(len(h), len(self._pairs), psi.shape[-1])
        by_row.index_add_(1, self.groups, psi)
        total.index_add_(2, self.groups, by_row)
        return total / self._pairs

    def sums(self) -> HsicSums:
        """A copy on the host, in numpy."""
        h, hh, hd, dd = (t.cpu().numpy().copy() for t in (self.h, self.hh, self.hd, self.dd))
        influence = None if self.influence is None else self.influence.cpu().numpy().copy()
        groups = self.groups.cpu().numpy().copy()
        return HsicSums(self.weight, self.blocks, h, hh, hd, dd, groups, influence)
