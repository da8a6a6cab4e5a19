"""Confidence intervals from standard errors; numpy and pandas only."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from cka_widget.engine.result import CKAResult


def student_quantile(p: float, df: float) -> float:
    """Quantile of Student's t distribution, df degrees of freedom.

    t = z + (z^3 + z) / (4 df) + ..., four terms: within 0.5% of the tables from 4 degrees of
    freedom and for p up to 0.98 (Abramowitz and Stegun 1964, eq. 26.7.5).
    """
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df**k for k, term in enumerate(terms, start=1))


def interval(
    result: CKAResult, row_model: str, col_model: str, level: float = 0.95
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lower and upper end of the confidence interval of every cell of `matrix`.

    value -+ t stderr, with Student's t of blocks - 1 degrees of freedom: the spread between a
    few blocks is itself uncertain, and 1.96 is too small under about 30 of them.

    Args:
        result: of a run.
        row_model: model of the rows.
        col_model: model of the columns.
        level: probability that the interval covers the value of unlimited data.

    Returns:
        Two frames, layers x layers; NaN under 5 blocks and where the value is undefined.

    Raises:
        ValueError: a level outside 0 ... 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1")
    value, stderr = result.matrix(row_model, col_model), result.stderr(row_model, col_model)
    half = stderr * student_quantile((1 + level) / 2, max(result.blocks - 1, 1))
    return value - half, value + half
