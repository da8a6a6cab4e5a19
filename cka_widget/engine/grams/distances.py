"""Distances between the samples of a block, from the inner products of their features.

The inner products may be of features whose mean over the block was taken off, which keeps digits
where the mean is large. Distances do not notice; angles do, and are restored without forming the
large inner products again: with c = x - mu, |x|^2 = |c|^2 + 2 c . mu + |mu|^2, and

    1 - cos(x, y) = (|x - y|^2 - (|x| - |y|)^2) / (2 |x| |y|).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Raw:
    """What the mean mu over a block took from features c = x - mu, in units as of their Gram.

    mu is zero where nothing was taken off. A bar is the mean over features, d is their number.

    Attributes:
        level: sqrt(d) c_bar of every sample, (R, blocks, m).
        along: c . mu of every sample, (R, blocks, m).
        along_varying: c . (mu - mu_bar) of every sample, (R, blocks, m).
        energy: |mu|^2, (R, blocks).
        varying: |mu - mu_bar|^2, (R, blocks).
    """

    level: Tensor
    along: Tensor
    along_varying: Tensor
    energy: Tensor
    varying: Tensor

    def part(self, rows: slice) -> Raw:
        """That of some rows."""
        return Raw(*(getattr(self, one.name)[rows] for one in fields(self)))


def euclidean(grams: Tensor) -> Tensor:
    """|x_i - x_j| of all pairs of samples, from K (..., m, m); the diagonal is 0."""
    return _squared(grams, grams.diagonal(dim1=-2, dim2=-1)).clamp_(min=0).sqrt_()


def cosine(grams: Tensor, raw: Raw) -> Tensor:
    """1 - cos(x_i, x_j) of all pairs of samples (..., m, m); 1 where one of them is zero."""
    own = grams.diagonal(dim1=-2, dim2=-1)
    return _angular(_squared(grams, own), own + 2 * raw.along, raw.energy)


def correlation(grams: Tensor, raw: Raw) -> Tensor:
    """1 - corr(x_i, x_j) of all pairs of samples (..., m, m), over features; 1 where one varies
    over no features.
    """
    own, level = grams.diagonal(dim1=-2, dim2=-1), raw.level
    squared = _squared(grams, own)
    squared -= (level[..., None] - level[..., None, :]).square_()
    return _angular(squared, own - level.square() + 2 * raw.along_varying, raw.varying)


def _squared(grams: Tensor, own: Tensor) -> Tensor:
    """K_ii + K_jj - 2 K_ij, zero on the diagonal."""
    squared = (grams * -2).add_(own[..., None]).add_(own[..., None, :])
    squared.diagonal(dim1=-2, dim2=-1).zero_()
    return squared


def _angular(squared: Tensor, part: Tensor, rest: Tensor) -> Tensor:
    """(|x - y|^2 - (|x| - |y|)^2) / (2 |x| |y|), where |x|^2 = part + rest; in place on |x - y|^2.

    Norms are subtracted as differences of `part`, so that a large common `rest` costs no digits.
    """
    length = (part + rest[..., None]).clamp_(min=0).sqrt_()
    zero = length == 0
    safe = torch.where(zero, 1.0, length)
    between = part[..., None] - part[..., None, :]
    between /= safe[..., None] + safe[..., None, :]
    squared.sub_(between.square_()).div_(2 * safe[..., None]).div_(safe[..., None, :])
    squared.masked_fill_(zero[..., None] | zero[..., None, :], 1.0).clamp_(0.0, 2.0)
    squared.diagonal(dim1=-2, dim2=-1).zero_()
    return squared
