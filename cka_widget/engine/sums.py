"""The mergeable sums behind every number shown, in numpy: a saved result needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Fewer blocks than this say too little about their own spread to show an error bar.
MIN_BLOCKS = 5


@dataclass(frozen=True)
class HsicSums:
    """Sums over blocks b of n_b samples of HSIC matrices h_b (R, R), all float64.

    Attributes:
        weight: sum n_b.
        blocks: number of blocks.
        h: sum n_b h_b.
        hh: sum n_b^2 h_b * h_b, cell by cell.
        hd: sum n_b^2 h_b,ij h_b,ii.
        dd: sum n_b^2 h_b,ii h_b,jj.
        groups: number of the group (a layer of a model) of every row (R,).
        influence: sum n_b^2 psi_b^2 of the mean CKA over particle pairs, groups x groups;
            None when every group is a single row. See `hsic.HsicAccumulator`.
    """

    weight: float
    blocks: int
    h: Array
    hh: Array
    hd: Array
    dd: Array
    groups: npt.NDArray[np.int64]
    influence: Array | None = None

    def cka(self) -> Array:
        """HSIC_ij / sqrt(HSIC_ii HSIC_jj), ratio of means (Nguyen et al. 2021, eq. 3), R x R.

        Not clamped; NaN where a self-HSIC is not positive or nothing was computed.
        """
        d = self.diagonal()
        return self.h / self.weight / np.sqrt(np.outer(d, d)) if self.blocks else self.h * np.nan

    def diagonal(self) -> Array:
        """Mean self-HSIC of every row, NaN where not positive, (R,)."""
        d = np.diagonal(self.h) / (self.weight or np.nan)
        return np.where(d > 0, d, np.nan)

    def stderr(self) -> Array:
        """Standard error of every cell by the delta method, R x R; NaN under 5 blocks.

        psi_b = h_b,ij / s - CKA/2 (h_b,ii / H_ii + h_b,jj / H_jj), s = sqrt(H_ii H_jj), has
        weighted mean 0, so that Var = B/(B-1) sum (n_b psi_b)^2 / (sum n_b)^2.
        """
        if self.blocks < MIN_BLOCKS:
            return np.full_like(self.h, np.nan)
        d, cka = self.diagonal(), self.cka()
        root = np.sqrt(np.outer(d, d))
        by_row = self.hd / d[:, None]  # h_ij h_ii / H_ii; its mirror image is h_ij h_jj / H_jj
        square = np.diagonal(self.dd) / d**2
        total = (
            self.hh / root**2
            - cka / root * (by_row + by_row.T)
            + cka**2 / 4 * (square[:, None] + square + 2 * self.dd / root**2)
        )
        found: Array = np.sqrt(np.maximum(total, 0) * self._per_block())
        return found

    def group_stderr(self) -> Array | None:
        """Standard error of the mean CKA over particle pairs, groups x groups; None if single."""
        if self.influence is None:
            return None
        if self.blocks < MIN_BLOCKS:
            return np.full_like(self.influence, np.nan)
        return np.sqrt(np.maximum(self.influence, 0) * self._per_block())

    def _per_block(self) -> float:
        return self.blocks / (self.blocks - 1) / self.weight**2

    def take(self, rows: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> HsicSums:
        """The chosen rows, in that order; -1 is a row that was never computed (NaN).

        `groups` are the new rows' groups, under the same numbers as before.
        """
        square = {name: _take(getattr(self, name), rows) for name in ("h", "hh", "hd", "dd")}
        return HsicSums(self.weight, self.blocks, **square, groups=groups, influence=self.influence)

    def merge(self, other: HsicSums) -> HsicSums:
        """The same rows over more data: sums add up."""
        if not np.array_equal(self.groups, other.groups):
            raise ValueError("the two results do not hold the same layers and particles")
        if not self.blocks or not other.blocks:
            return self if self.blocks else other
        added: dict[str, Any] = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("groups", "influence")
        }
        merged = HsicSums(**added, groups=self.groups)
        if self.influence is None or other.influence is None:
            return merged
        influence = self.influence + other.influence
        for part in (self, other):
            psi = group_mean(influence_of(part.h / part.weight, merged), self.groups)
            influence = influence + part.weight**2 / part.blocks * psi**2
        return HsicSums(**added, groups=self.groups, influence=influence)


def influence_of(h: Array, sums: HsicSums) -> Array:
    """First-order change of every cell's CKA when the mean HSIC moves towards h, R x R."""
    d, cka = sums.diagonal(), sums.cka()
    own = np.diagonal(h) / d
    moved: Array = h / np.sqrt(np.outer(d, d)) - cka / 2 * (own[:, None] + own)
    return moved


def group_mean(x: Array, groups: npt.NDArray[np.int64]) -> Array:
    """Mean over particle pairs, (R, R) to (groups, groups).

    A group against itself averages pairs of different rows, or is the row itself when single.
    """
    order = np.argsort(groups, kind="stable")
    size = np.bincount(groups)
    start = np.cumsum(size) - size
    x = x[np.ix_(order, order)]
    np.fill_diagonal(x, np.where(size[groups[order]] > 1, 0, np.diagonal(x)))
    total = np.add.reduceat(np.add.reduceat(x, start, axis=0), start, axis=1)
    mean: Array = total / pair_counts(size)
    return mean


def pair_counts(size: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of averaged pairs of every pair of groups, from the groups' sizes."""
    pairs = np.outer(size, size)
    np.fill_diagonal(pairs, np.where(size > 1, size * (size - 1), 1))
    return pairs


def _take(a: Array, rows: npt.NDArray[np.int64]) -> Array:
    out: Array = a[np.ix_(rows, rows)].copy()
    out[rows < 0, :] = np.nan
    out[:, rows < 0] = np.nan
    return out
