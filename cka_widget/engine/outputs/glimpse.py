"""A few numbers of one output, to compare passes on different numbers of samples by."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEW, MORE = 2, 3  # samples of short passes

# At most so many entries of an output are kept along its first axis, and numbers of each entry.
_ENTRIES, _NUMBERS = 4096, 1024
# Until the first batch comes, only so many entries are kept along all axes but the samples'.
_CORNER = 8


class Glimpse:
    """The shape of one call's output, and numbers that lie evenly over it."""

    def __init__(self, x: Tensor, like: Glimpse | None) -> None:
        self.shape = tuple(x.shape)
        self.steps: tuple[int, ...] = _steps(self.shape)
        if like is not None and len(like.steps) == len(self.steps):
            self.steps = like.steps
        # Kernels for another number of samples round otherwise.
        self.rounding = 4 * torch.finfo(x.dtype).eps
        self.tolerance = math.sqrt(torch.finfo(x.dtype).eps)
        x = x.detach()[tuple(slice(None, None, step) for step in self.steps)]
        self.values = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)

    def corner(self, axis: int) -> Glimpse:
        """Keep only the beginning of every axis besides this one; returns itself."""
        kept = (slice(None if i == axis else _CORNER) for i in range(self.values.dim()))
        self.values = self.values[tuple(kept)].clone()
        return self

    def same_of(self, x: Tensor, axis: int) -> Tensor:
        """The numbers of another output, of any number of samples, that `corner` keeps of this."""
        if x.dim() != self.values.dim():
            return x[:0]
        sizes = enumerate(zip(self.values.shape, self.steps, strict=True))
        kept = (slice(None, None if i == axis else a * step, step) for i, (a, step) in sizes)
        return x.detach()[tuple(kept)].to(self.values.dtype)

    def elsewhere(self, one: Tensor, other: Tensor) -> bool:
        """Are the samples (2, ...) of this pass found in another (n, ...), at other places?"""
        if self.distance(one, other[:FEW]) <= self.tolerance:
            return False
        x, y = one.flatten(1), other.flatten(1)
        places = [int((y - row).abs().mean(1).argmin()) for row in x]
        apart = self.distance(x, y[places])
        return len(set(places)) == FEW and places != [0, 1] and apart <= self.tolerance

    def equals(self, other: Glimpse) -> bool:
        """Did another pass on the same samples give the same?"""
        same = self.values.shape == other.values.shape
        return same and self.distance(self.values, other.values) <= self.tolerance

    def distance(self, x: Tensor, y: Tensor) -> float:
        """Mean difference of two parts (n, ...) over the spread of the first."""
        if torch.equal(x, y):
            return 0.0
        difference, size = (x - y).abs().mean(), x.abs().mean()
        if difference <= self.rounding * size:
            return 0.0
        if not torch.isfinite(difference):  # NaN counts as a number
            x, y = x.nan_to_num(posinf=0.0, neginf=0.0), y.nan_to_num(posinf=0.0, neginf=0.0)
            difference = (x - y).abs().mean()
        spread = (x - x.mean(0)).abs().mean().clamp(min=torch.finfo(x.dtype).tiny)
        return float(difference / spread)


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    most = int(_NUMBERS ** (1 / max(1, len(shape) - 1)))
    limits = [_ENTRIES, *[most] * (len(shape) - 1)]
    return tuple(max(1, -(-size // limit)) for size, limit in zip(shape, limits, strict=False))
