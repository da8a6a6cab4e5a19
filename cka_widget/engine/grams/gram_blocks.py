"""What measures are given: the Grams of some blocks, and the distances in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.distances import Raw, correlation, cosine, euclidean


@dataclass
class Blocks:
    """Blocks of m samples of a batch, for all R rows (layers of particles) at once.

    Attributes:
        grams: inner products K (R, blocks, m, m) of the samples' features; each block's mean may
            have been taken off them, and row r counts in 2^unit_r. Not to be changed.
        units: a row's true Gram is 2^unit times the one that stands here.
        labels: number of every sample's class (blocks, m), -1 of a sample without one; None where
            the batches carry no class labels.
        raw: what is needed to know the features before their mean was taken, for measures that
            ask for it.
        rows: which rows of all these are.
    """

    grams: Tensor
    units: tuple[int, ...]
    labels: Tensor | None = None
    raw: Raw | None = None
    rows: slice = field(default_factory=lambda: slice(None))

    @property
    def size(self) -> int:
        """Samples of a block, m."""
        return self.grams.shape[-1]

    def part(self, start: int, stop: int) -> Blocks:
        """The rows from start to before stop."""
        rows = slice(start, stop)
        raw = self.raw and self.raw.part(rows)
        return Blocks(self.grams[rows], self.units[rows], self.labels, raw, rows)

    @property
    def unit(self) -> Tensor:
        """`units` on the device of the sums, (R,) float64."""
        return _numbers(self.units, accelerator.sums_device(self.grams.device))

    @cached_property
    def distances(self) -> Tensor:
        """|x_i - x_j| of all pairs of samples, (R, blocks, m, m); not to be changed."""
        return euclidean(self.grams)

    @cached_property
    def cosine_distances(self) -> Tensor:
        """1 - cos(x_i, x_j), (R, blocks, m, m); of a zero vector 1; not to be changed."""
        return cosine(self.grams, self._raw())

    @cached_property
    def correlation_distances(self) -> Tensor:
        """1 - corr(x_i, x_j), (R, blocks, m, m); of a constant vector 1; not to be changed."""
        return correlation(self.grams, self._raw())

    def _raw(self) -> Raw:
        if self.raw is None:
            raise ValueError("a measure of angles must say needs_raw = True")
        return self.raw


@lru_cache(64)  # making a tensor of numbers waits for all that a device has queued
def _numbers(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=device)
