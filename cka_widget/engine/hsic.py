"""Running sums of per-block HSIC matrices, on the device where they arise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cka_widget.engine import accelerator
from cka_widget.engine.clusters import Clusters
from cka_widget.engine.neighbours import Neighbours
from cka_widget.engine.pairs import hsics
from cka_widget.engine.permutations import fourth_cumulants
from cka_widget.engine.stack import GramStack
from cka_widget.engine.sums import ARRAYS, Array, HsicSums, in_unit


class Sums:
    """`HsicSums` on a device; memory O(R^2), no block is kept."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.weight = 0.0
        self.blocks = 0
        self.unit = np.zeros(rows)
        self.d = torch.zeros(rows, dtype=torch.float64, device=device)
        self.moments = torch.zeros(4, rows, dtype=torch.float64, device=device)
        self.h, self.hh, self.hd, self.dd, self.chance2, self.chance4 = (
            torch.zeros(rows, rows, dtype=torch.float64, device=device) for _ in range(6)
        )

    def add(self, h: Tensor, d: Tensor, n: int, shapes: Tensor | None = None) -> None:
        """Add blocks of n samples.

        Args:
            h: HSICs (blocks, R, R).
            d: self-HSICs (blocks, R).
            n: samples of a block.
            shapes: of the Grams, see `permutations`; without them chance is not summed.
        """
        self.weight += n * len(h)
        self.blocks += len(h)
        self.h.add_(_total(h), alpha=n)
        self.d.add_(d.sum(0), alpha=n)
        self.hh.add_(_total(h.square()), alpha=n**2)
        self.hd.add_(_total(h * d[:, :, None]), alpha=n**2)
        self.dd.addmm_(d.mT, d, alpha=n**2)
        self.moments.add_(torch.stack([d, d**2, d**3, d**4]).sum(1))
        if shapes is None:
            return
        self.chance2.addmm_(d.mT, d, alpha=2 * n / (n - 3))
        size = (n * d).square()
        fourth = fourth_cumulants(shapes, n).clamp_(min=0)
        self.chance4.add_(_total(fourth.mul_(size[:, :, None]).mul_(size[:, None, :])))

    def count_in(self, unit: Array) -> None:
        """From now on rows count in 2^unit (R,), see `HsicSums`; rare, so the host does it."""
        change, self.unit = unit - self.unit, unit
        for name in ARRAYS if change.any() else ():
            array: Tensor = getattr(self, name)
            array.copy_(torch.from_numpy(in_unit(name, array.cpu().numpy(), change)))

    def copy(self) -> Sums:
        """The same sums in memory of their own."""
        made = copy.copy(self)
        for name in ARRAYS:
            setattr(made, name, getattr(self, name).clone())
        return made

    def on_host(self) -> HsicSums:
        """A copy in numpy."""
        arrays = {name: getattr(self, name).cpu().numpy().copy() for name in ARRAYS}
        return HsicSums(self.weight, self.blocks, **arrays, unit=self.unit)


def _total(x: Tensor) -> Tensor:
    """The sum over blocks (blocks, R, R), without a copy where there is one block."""
    return x[0] if len(x) == 1 else x.sum(0)


class HsicAccumulator:
    """Sums of all rows and, for ensembles, of the layers' means over particle pairs.

    The covariance between the pairs of an ensemble is not in the pairwise sums. The error of
    the mean CKA is therefore taken from pooled sums: of the mean HSIC over pairs, the particles
    brought to one scale, against their mean self-HSIC. To first order its influence is that of
    the mean CKA where blocks move the particles' self-HSICs alike.
    """

    def __init__(
        self, groups: list[int], owners: list[int], n_groups: int, device: torch.device
    ) -> None:
        """Which rows are averaged.

        Args:
            groups: for every row the number, below `n_groups`, of the layer it is a particle of.
            owners: for every row the number of its particle, -1 in single models. Pairs of an
                ensemble are pairs of different particles.
            n_groups: number of layers of all models.
            device: of the sums.
        """
        self._device = accelerator.sums_device(device)
        self._group = np.array(groups, dtype=np.int64)
        self._groups = torch.tensor(groups, dtype=torch.long, device=self._device)
        self._known: object = None  # the rows' units and energies that sums are made for
        self.rows = Sums(len(groups), self._device)
        self.pooled: Sums | None = None
        self.neighbours = Neighbours()
        self._size = self._groups.bincount(minlength=n_groups).double()
        if owners and max(owners) >= 0:
            self.pooled = Sums(n_groups, self._device)
            owner = torch.tensor(owners, dtype=torch.long, device=self._device)
            self._counts = ((owner[:, None] != owner) | (owner < 0)).double()[None]
            self._pairs = self._by_group(self._counts)

    def update(self, stack: GramStack, again: Callable[[set[int]], None]) -> None:
        """Add the blocks of the stack's batch.

        Args:
            stack: filled.
            again: puts rows once more whose Grams had lost their digits, see `products`.
        """
        # Taking bad products away again would leave their rounding, which can be all there is.
        rows, pooled = self.rows, self.pooled
        try:
            while True:
                self._count_in(stack, rows, pooled)
                self.rows, self.pooled = rows.copy(), pooled and pooled.copy()
                self._add(stack)
                if not stack.suspects:
                    self.neighbours = stack.neighbours(self.neighbours)
                    return
                again(set(stack.suspects))  # each is suspect once a batch at most
        except BaseException:
            self.rows, self.pooled = rows, pooled
            raise

    def _add(self, stack: GramStack) -> None:
        clusters = None
        if stack.clusters:
            clusters = Clusters(stack.clusters, len(self._group), self._device)
        for h, shapes, n in stack.products(partial(hsics, unbiased=stack.kernel.unbiased)):
            h = h.to(self._device)
            d = h.diagonal(dim1=-2, dim2=-1)
            if clusters is not None:
                clusters.add(h, d, n, shapes)
            else:
                self._add_blocks(h, d, n, shapes)
        if clusters is not None:
            for h, d, weight in clusters.means():
                self._add_blocks(h, d, weight)
            for total, new in zip(
                (self.rows.chance2, self.rows.chance4), clusters.chance(), strict=True
            ):
                total += new

    def _add_blocks(self, h: Tensor, d: Tensor, n: int, shapes: Tensor | None = None) -> None:
        self.rows.add(h, d, n, shapes)
        if self.pooled is not None:
            self.pooled.add(*self._pool(h, d, self._weights), n)

    def _count_in(self, stack: GramStack, rows: Sums, pooled: Sums | None) -> None:
        """Have the sums count in the units that the stack's rows have now."""
        stack.read_looks()
        known = stack.units(), stack.energies()
        if known == self._known:
            return
        self._known = known
        unit, energy = (np.array(numbers, dtype=np.float64) for numbers in known)
        rows.count_in(unit)
        if pooled is None:
            return
        mean = np.zeros(len(self._size))
        np.add.at(mean, self._group, energy)
        # What brings a particle's Gram, as it stands, to its layer's mean energy.
        mean /= np.maximum(self._size.cpu().numpy(), 1)
        weight = mean[self._group] - energy + unit
        layers = np.full_like(mean, -np.inf)
        far = np.flatnonzero(unit)
        np.maximum.at(layers, self._group[far], np.round(weight[far]))
        layers[np.isinf(layers)] = 0.0
        pooled.count_in(layers)
        weights = np.exp2(weight - layers[self._group])
        self._weights = torch.from_numpy(weights).to(self._device)

    def _pool(self, h: Tensor, d: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        own = d.new_zeros(len(d), len(self._size))
        own.index_add_(1, self._groups, d * unit.square())
        return self._by_group(h * torch.outer(unit, unit) * self._counts) / self._pairs, (
            own / self._size
        )

    def _by_group(self, h: Tensor) -> Tensor:
        """Sums over the particles of every layer, (blocks, R, R) to (blocks, layers, layers)."""
        by_row = h.new_zeros(len(h), len(self._size), h.shape[-1])
        by_row.index_add_(1, self._groups, h)
        total = h.new_zeros(len(h), len(self._size), len(self._size))
        return total.index_add_(2, self._groups, by_row)
