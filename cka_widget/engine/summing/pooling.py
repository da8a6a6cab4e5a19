"""Means over the particle pairs of ensembles, block by block."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cka_widget.result.sums import Array


class Pooling:
    """Which rows are averaged, and how.

    The covariance between the pairs of an ensemble is not in the pairwise sums. The error of
    the mean score is therefore taken from pooled sums: of the mean inner product over pairs, the
    particles brought to one scale, against their mean with themselves. To first order its influence
    is that of the mean score where blocks move the particles' own products alike.
    """

    def __init__(
        self, groups: list[int], owners: list[int], n_groups: int, device: torch.device
    ) -> None:
        """Which rows belong together.

        Args:
            groups: for every row the number, below `n_groups`, of the layer it is a particle of.
            owners: for every row the number of its particle, -1 in single models. Pairs of an
                ensemble are pairs of different particles.
            n_groups: number of layers of all models.
            device: of the sums.
        """
        self.n_groups = n_groups
        self.ensembles = bool(owners) and max(owners) >= 0
        self._device = device
        self._group = np.array(groups, dtype=np.int64)
        self._groups = torch.tensor(groups, dtype=torch.long, device=device)
        self._size = self._groups.bincount(minlength=n_groups).double()
        if self.ensembles:  # numbers of all pairs of rows
            owner = torch.tensor(owners, dtype=torch.long, device=device)
            self._counts = ((owner[:, None] != owner) | (owner < 0)).double()[None]
            self._pairs = self._by_group(self._counts)

    def scale(self, unit: Array, energy: Array) -> tuple[Array, Tensor]:
        """What brings particles to one scale.

        Args:
            unit: inner products of rows count in 2^(unit_i + unit_j), (R,).
            energy: log2 of every row's size in its first batch, (R,).

        Returns:
            Units of the layers (layers,), and a factor for every row as it counts now (R,).
        """
        mean = np.zeros(self.n_groups)
        np.add.at(mean, self._group, energy)
        # What brings a particle's vectors, as they stand, to its layer's mean size.
        mean /= np.maximum(self._size.cpu().numpy(), 1)
        weight = mean[self._group] - energy + unit
        layers = np.full_like(mean, -np.inf)
        far = np.flatnonzero(unit)
        np.maximum.at(layers, self._group[far], np.round(weight[far]))
        layers[np.isinf(layers)] = 0.0
        weights = np.exp2(weight - layers[self._group])
        return layers, torch.from_numpy(weights).to(self._device)

    def pool(self, h: Tensor, d: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Means of inner products (blocks, R, R) and of rows with themselves (blocks, R).

        Args:
            h: as of `Sums.add`.
            d: as of `Sums.add`.
            factor: of every row, see `scale`.
        """
        own = d.new_zeros(len(d), self.n_groups)
        own.index_add_(1, self._groups, d * factor.square())
        means = self._by_group(h * torch.outer(factor, factor) * self._counts) / self._pairs
        return means, own / self._size

    def _by_group(self, h: Tensor) -> Tensor:
        """Sums over the particles of every layer, (blocks, R, R) to (blocks, layers, layers)."""
        by_row = h.new_zeros(len(h), self.n_groups, h.shape[-1])
        by_row.index_add_(1, self._groups, h)
        total = h.new_zeros(len(h), self.n_groups, self.n_groups)
        return total.index_add_(2, self._groups, by_row)
