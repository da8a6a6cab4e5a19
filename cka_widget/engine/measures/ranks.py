"""Ranks of numbers, equal ones sharing the mean of theirs."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(x: Tensor) -> Tensor:
    """Ranks along the last axis from 0, over the number of entries; ties have their mean rank.

    Args:
        x: (..., n); NaN anywhere along the last axis makes all of it NaN.

    Returns:
        (..., n), within 0 and 1, as `scipy.stats.rankdata(x, axis=-1) - 1` over n.
    """
    n = x.shape[-1]
    ordered, order = x.sort(dim=-1)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    places = torch.arange(n, device=x.device).expand_as(order)
    first = torch.where(starts, places, 0).cummax(-1).values
    # From the end: the last place of every run of equal numbers.
    ends = torch.ones_like(starts)
    ends[..., :-1] = starts[..., 1:]
    last = torch.where(ends, places, n).flip(-1).cummin(-1).values.flip(-1)
    mean = (first + last).to(x.dtype) / (2 * n)
    found = torch.empty_like(x).scatter_(-1, order, mean)
    return found + (x - x).sum(-1, keepdim=True)
