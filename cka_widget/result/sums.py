"""The mergeable sums behind every number shown, in numpy: a saved result needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Fewer blocks than this say too little about their own spread to show an error bar.
MIN_BLOCKS = 5


@dataclass(frozen=True)
class HsicSums:
    """Sums over blocks b of n_b samples of HSICs h_b (R, R) and self-HSICs d_b (R,), float64.

    Attributes:
        weight: sum n_b.
        blocks: number of blocks.
        h: sum n_b h_b.
        d: sum n_b d_b; the diagonal of h for rows, but not for means over particle pairs.
        hh: sum n_b^2 h_b,ij^2.
        hd: sum n_b^2 h_b,ij d_b,i.
        dd: sum n_b^2 d_b,i d_b,j.
        chance2: variance of h over all orders of the samples of one row in every block, which is
            sum n_b^2 2 d_b,i d_b,j / (n_b (n_b - 3)).
        chance4: fourth cumulant of h over these orders, blocks of a negative one left out; like
            chance2 it is 0 of the biased estimator and of means over particle pairs.
        moments: sum d_b^k for k = 1, 2, 3, 4, (4, R).
        unit: whole numbers: row i's Gram counts in 2^unit_i here, so h_ij in 2^(unit_i + unit_j).
            Fourth powers of HSICs would leave float64 else, where features are 1e-20 or 1e20.
    """

    weight: float
    blocks: int
    h: Array
    d: Array
    hh: Array
    hd: Array
    dd: Array
    chance2: Array
    chance4: Array
    moments: Array
    unit: Array

    def cka(self) -> Array:
        """h_ij / sqrt(d_i d_j), ratio of means (Nguyen et al. 2021, eq. 3), (R, R).

        Not clamped; NaN where a self-HSIC is not positive or nothing was computed.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            d = self._self_hsic()
            cka: Array = self._mean(self.h) / np.sqrt(np.outer(d, d))
        return cka

    def stderr(self) -> Array:
        """Standard error of every cell by the delta method, (R, R); NaN under 5 blocks.

        psi_b = h_b,ij / s - CKA/2 (d_b,i / d_i + d_b,j / d_j), s = sqrt(d_i d_j), has weighted
        mean 0, so that Var = B/(B-1) sum (n_b psi_b)^2 / (sum n_b)^2.
        """
        if self.blocks < MIN_BLOCKS:
            return np.full_like(self.h, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            d, cka = self._self_hsic(), self.cka()
            root = np.sqrt(np.outer(d, d))
            by_row = self.hd / d[:, None]  # h_ij d_i / d_i; its mirror image is h_ij d_j / d_j
            square = np.diagonal(self.dd) / d**2
            total: Array = (
                self.hh / root**2
                - cka / root * (by_row + by_row.T)
                + cka**2 / 4 * (square[:, None] + square + 2 * self.dd / root**2)
            )
            scale = self.blocks / (self.blocks - 1) / self.weight**2
            stderr: Array = np.sqrt(np.maximum(total, 0) * scale)
        return stderr

    def take(self, rows: npt.NDArray[np.int64]) -> HsicSums:
        """The chosen rows, in that order; -1 is a row that was never computed (NaN)."""
        blank = rows < 0
        found: dict[str, Array] = {}
        for name in ARRAYS:
            a: Array = getattr(self, name)
            if not a.size:
                found[name] = empty(name, len(rows))
            elif name in SQUARE:
                found[name] = np.where(blank[:, None] | blank, np.nan, a[np.ix_(rows, rows)])
            else:
                found[name] = np.where(blank, np.nan, a[..., rows])
        return HsicSums(self.weight, self.blocks, **found, unit=np.where(blank, 0, self.unit[rows]))

    def merge(self, other: HsicSums) -> HsicSums:
        """The same rows over more data: sums add up."""
        if not self.blocks or not other.blocks:
            return self if self.blocks else other
        # A row that was all zero so far has no unit of its own.
        unit = np.maximum(*(np.where(s.d == 0, -np.inf, s.unit) for s in (self, other)))
        unit = np.where(np.isfinite(unit), unit, self.unit)
        one, two = self.in_unit(unit), other.in_unit(unit)
        return replace(
            one,
            weight=one.weight + two.weight,
            blocks=one.blocks + two.blocks,
            **{name: getattr(one, name) + getattr(two, name) for name in ARRAYS},
        )

    def without_errors(self) -> HsicSums:
        """The same scores, of blocks that depend on each other: no error bar or chance is known."""
        unknown: dict[str, Any] = {
            name: np.full_like(self.h, np.nan) for name in SQUARE if name != "h"
        }
        return replace(self, **unknown)

    def in_unit(self, unit: Array) -> HsicSums:
        """The same sums in other units (R,)."""
        change = unit - self.unit
        if not change.any():
            return self
        arrays: dict[str, Any] = {k: in_unit(k, getattr(self, k), change) for k in ARRAYS}
        return replace(self, **arrays, unit=unit)

    def _self_hsic(self) -> Array:
        d = self._mean(self.d)
        return np.where(d > 0, d, np.nan)

    def _mean(self, total: Array) -> Array:
        return total / (self.weight or np.nan)


def in_unit(name: str, sums: Array, change: Array) -> Array:
    """An array of `HsicSums` once every row's unit has grown by 2^change (R,)."""
    rows, powers = change[:, None], np.arange(1, 5)[:, None]
    exponent = {
        "h": rows + change,
        "d": 2 * change,
        "hh": 2 * (rows + change),
        "hd": 3 * rows + change,
        "dd": 2 * (rows + change),
        "chance2": 2 * (rows + change),
        "chance4": 4 * (rows + change),
        "moments": 2 * powers * change,
    }[name]
    with np.errstate(over="ignore", under="ignore"):
        scaled: Array = np.ldexp(sums, -exponent.astype(np.int64))
    return scaled


SQUARE = ("h", "hh", "hd", "dd", "chance2", "chance4")
ARRAYS = (*SQUARE, "d", "moments")


def empty(name: str, rows: int) -> Array:
    """An array of `HsicSums` of so many rows, nothing known."""
    shape = {"d": (rows,), "unit": (rows,), "moments": (4, rows)}.get(name, (rows, rows))
    return np.full(shape, np.nan)


def of_older_sums(arrays: dict[str, Array], weight: float, blocks: int, samples: int) -> None:
    """Add the cumulants to the sums of a file that has none, as if its blocks had one size.

    The fourth is that of Grams of one dimension, and by Cauchy and Schwarz not below
    12 sum_b v_b^2; of files without moments, that of blocks with one self-HSIC.
    """
    m, n = (total / max(blocks, 1) for total in (samples, weight))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.float64(2) / (m * (m - 3)) if m > 3 else np.nan
        arrays["chance2"] = variance * arrays["dd"]
        powers = np.sqrt(arrays["moments"][3])
        fourth = 12 * (variance * n * n) ** 2 * np.outer(powers, powers)
        even = 12 * arrays["chance2"] ** 2 / max(blocks, 1)
    arrays["chance4"] = np.where(np.isnan(fourth), even, fourth)
