"""Confidence intervals from standard errors."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from cka_widget.result.sums import Array, HsicSums

# Below this squared variation between blocks, rounding is all there is in the fourth moments.
_SAME = 1e-6


def student_quantile(p: float, df: float | Array) -> Array:
    """Quantile of Student's t distribution, df degrees of freedom, number or array.

    t = z + (z^3 + z) / (4 df) + ..., four terms: within 0.5% of the tables from 4 degrees of
    freedom and within 2% from 2, for p up to 0.98 (Abramowitz and Stegun 1964, eq. 26.7.5).
    """
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    quantile = np.full_like(df, z, dtype=np.float64)
    for k, term in enumerate(terms, start=1):
        quantile += term / np.asarray(df) ** k
    return quantile


def widths(sums: HsicSums, level: float) -> Array:
    """Half the confidence interval over the standard error, for every pair of rows (R, R).

    (1 + 2 r) t, from how the self-HSICs d_b of the blocks of a row vary, the worse of both rows:

    - r is the squared relative error of their mean, the size of the terms that the delta method
      drops; samples that dominate a block make both d and its spread too small where they lack.
      The factor 2 is about twice the leave-one-block-out correction; chosen by simulation.
    - t is Student's, of min(B - 1, 2 B / (kurtosis - 1)) degrees of freedom: the variance of a
      sample variance is (kurtosis - 1) sigma^4 / B, so that heavy tails leave few (O'Neill 2014,
      American Statistician 68, result 3). B - 1 of normals; NaN without moments.
    """
    b = max(sums.blocks, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, *powers = sums.moments / b
        second, third, fourth = (m / mean**k for k, m in enumerate(powers, start=2))
        variance = second - 1
        kurtosis = (fourth - 4 * third + 6 * second - 3) / variance**2
        variance = np.maximum(variance, 0)
    kurtosis = np.where(variance < _SAME, 3.0, kurtosis)
    df = np.minimum(b - 1, 2 * b / np.maximum(kurtosis - 1, 1e-9))
    error = variance / (b - 1)
    widening: Array = 1 + 2 * np.maximum(error[:, None], error)
    return widening * student_quantile((1 + level) / 2, np.minimum(df[:, None], df))


def checked(level: float) -> float:
    """The level; raises ValueError where it is no probability."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1")
    return level
