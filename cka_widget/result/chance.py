"""What chance alone would give: the permutation null, without permuting.

Pair the rows of one layer with the other's in random order: over all orders of a block of m
samples the unbiased HSIC has mean 0 and variance

    2 HSIC(K, K) HSIC(L, L) / (m (m - 3)),

because U-centred Grams have zero row sums (the moments of sum_ij K_ij L_p(i)p(j) then involve
nothing but sum K^2 and sum L^2). Self-HSICs do not change with the order. The spread of CKA under
the null therefore stands in the sums every run keeps, for any kernel, and that of other measures of
U-centred matrices; and so does its kurtosis, which tells how far a score can get where a few
samples make most of a Gram.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cka_widget.result.sums import Array, HsicSums


def deviation(sums: HsicSums) -> Array:
    """Standard deviation of every cell's CKA when rows are paired at random, (R, R).

    sqrt(sum_b n_b^2 v_b / (D_i D_j)), v_b = 2 d_b,i d_b,j / (n_b (n_b - 3)), D = sum n_b d_b.
    """
    return _relative(sums, sums.chance2, 2)


def _relative(sums: HsicSums, cumulant: Array, order: int) -> Array:
    """The root of an HSIC's cumulant, as a CKA; NaN where a self-HSIC is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        d = np.where(sums.d > 0, sums.d, np.nan)
        relative: Array = cumulant ** (1 / order) / np.sqrt(np.outer(d, d))
    return relative


def fourth_root(sums: HsicSums) -> Array:
    """Fourth root of every cell's fourth cumulant over all such pairings, as a score, (R, R)."""
    return _relative(sums, sums.chance4, 4)


def caveat(result: Any) -> str:
    """What "above chance" may come down to where the batches had labels; empty where not."""
    classes = getattr(result, "provenance", {}).get("classes") or 0
    if classes < 2:
        return ""
    return "A score above chance may mean no more than that both layers tell the classes apart."


def tail(t: Array, kurtosis: Array) -> Array:
    """Probability that chance gives a score of at least t deviations.

    The null is taken as a chi-square brought to mean 0, with the excess kurtosis k of all orders:
    f = 12 / k degrees of freedom, which are the number of blocks for features of one dimension that
    are alike in all of them, more for wider ones, and fewer where few samples or blocks dominate.
    """
    return _chi_square_tail(t, 12 / np.clip(kurtosis, 1e-9, 1e9))


def _chi_square_tail(t: Array, f: Array) -> Array:
    """P((X - f) / sqrt(2 f) >= t) of a chi-square with f degrees of freedom.

    Above 2 by Wilson and Hilferty (1931), which is somewhat too high far out. Below them
    y^(f/2 - 1) exp(-y) / Gamma(f/2) at 2 y = f + t sqrt(2 f), a bound that is close far out.
    """
    width = 2 / (9 * f)
    root = np.cbrt(np.maximum(1 + 3 * np.sqrt(width) * t, 0))
    p: Array = _each(math.erfc, (root - (1 - width)) / np.sqrt(2 * width)) / 2
    few = f <= 2
    half = f[few] / 2
    y = np.maximum(half + t[few] * np.sqrt(half), 1e-300)
    bound = (half - 1) * np.log(y) - y - _each(math.lgamma, half)
    p[few] = np.exp(np.minimum(bound, 0))
    return p


def _each(function: Callable[[float], float], x: Array) -> Array:
    return np.asarray(np.frompyfunc(function, 1, 1)(x), dtype=np.float64)
