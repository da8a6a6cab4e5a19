"""Where two measures disagree: how differently they rank the same cells."""

from __future__ import annotations

import numpy as np

from cka_widget.result.sums import Array


def rank_difference(first: Array, second: Array) -> Array:
    """Rank of every cell under `first` less that under `second`, of one shape, -1 to 1.

    Ranks run from 0, the lowest cell, to 1, the highest; equal cells share the mean of theirs.
    Cells that are NaN under either are not ranked, and NaN.
    """
    both = np.isfinite(first) & np.isfinite(second)
    found = np.full(first.shape, np.nan)
    found[both] = _ranks(first[both]) - _ranks(second[both])
    return found


def _ranks(values: Array) -> Array:
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(number)
    mean = (ends - number + ends - 1) / 2  # of the places from the first to the last
    ranks: Array = mean[place.reshape(-1)] / max(len(values) - 1, 1)
    return ranks
