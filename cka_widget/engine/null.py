"""What chance alone would give: the permutation null, exact and without permuting.

Pair the rows of one layer with the other's in random order: over all orders of a block of m
samples the unbiased HSIC has mean 0 and variance

    2 HSIC(K, K) HSIC(L, L) / (m (m - 3)),

because U-centred Grams have zero row sums (the moments of sum_ij K_ij L_p(i)p(j) then involve
nothing but sum K^2 and sum L^2). Self-HSICs do not change with the order. The spread of CKA under
the null therefore stands in the sums every run keeps, for any kernel.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from cka_widget.engine.sums import Array, HsicSums

if TYPE_CHECKING:
    import pandas as pd

    from cka_widget.engine.result import CKAResult


def null_deviation(sums: HsicSums, samples: int) -> Array:
    """Standard deviation of every cell's CKA when rows are paired at random, (R, R).

    sqrt(sum_b n_b^2 v_b / (D_i D_j)), v_b = 2 d_b,i d_b,j / (m (m - 3)), D = sum n_b d_b, with
    the mean block size for m.
    """
    if not sums.blocks:
        return np.full_like(sums.h, np.nan)
    m = samples / sums.blocks
    with np.errstate(invalid="ignore", divide="ignore"):
        d = np.where(sums.d > 0, sums.d, np.nan)
        variance = 2 / (m * (m - 3)) * sums.dd / np.outer(d, d)
    deviation: Array = np.sqrt(variance)
    return deviation


def null(result: CKAResult, row_model: str, col_model: str) -> pd.DataFrame:
    """Standard deviation of `matrix` under the permutation null, whose mean is 0.

    Of ensembles the mean over pairs of the pairs' deviations: the mean of dependent scores
    varies at most that much.

    Args:
        result: of a run with the unbiased estimator.
        row_model: model of the rows.
        col_model: model of the columns.

    Returns:
        A frame, layers x layers; NaN where the score is undefined.

    Raises:
        ValueError: the biased estimator, whose mean by chance is not 0.
    """
    if not result.provenance.get("unbiased", True):
        raise ValueError("the null needs unbiased=True: the biased HSIC is above 0 by chance")
    return result.mean_over_pairs(null_deviation(result.sums, result.samples), row_model, col_model)


def p_values(result: CKAResult, row_model: str, col_model: str) -> pd.DataFrame:
    """Probability of a score at least this high by chance, cell by cell; arguments as of `null`.

    The null of B blocks is taken as a chi-square with B degrees of freedom, brought to mean 0
    and the deviation of `null`: that is its shape for features of one dimension, and a heavier
    tail than that of wider ones. Wilson and Hilferty (1931) give its tail.
    """
    z = _normal(result, row_model, col_model)
    frame: pd.DataFrame = np.frompyfunc(math.erfc, 1, 1)(z / math.sqrt(2)).astype(float) / 2
    return frame


def _normal(result: CKAResult, row_model: str, col_model: str) -> pd.DataFrame:
    """Scores as deviates that chance alone would give a standard normal distribution."""
    ratio = result.matrix(row_model, col_model) / null(result, row_model, col_model)
    width = 2 / (9 * max(result.blocks, 1))
    return (np.cbrt(np.maximum(1 + 3 * math.sqrt(width) * ratio, 0)) - (1 - width)) / math.sqrt(
        width
    )


def above_chance(
    result: CKAResult, row_model: str, col_model: str, alpha: float = 0.01
) -> pd.DataFrame:
    """Is a score higher than chance gives? Booleans; False where it is undefined.

    With probability 1 - alpha no cell of the matrix is called so by chance (Bonferroni).

    Raises:
        ValueError: `alpha` is not between 0 and 1, or the estimator is biased.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha} must be between 0 and 1")
    z = _normal(result, row_model, col_model)
    level = alpha / max(int(z.notna().to_numpy().sum()), 1)
    return z >= -NormalDist().inv_cdf(level)
