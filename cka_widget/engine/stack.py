"""The centred Grams of one batch, all rows side by side, ready for one matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cka_widget.engine import gram

# Features whose mean holds over ten times the energy of their spread are centred first: below
# that a float32 Gram keeps U(K) to 1e-5 (largest error seen at batch 256: 2e-5).
_CENTRE_ABOVE = 10.0


@dataclass(frozen=True)
class Kernel:
    """What is computed of features: kernel and estimator.

    `bandwidth` is sigma as a fraction of the median distance between samples of a row's first
    batch (Kornblith et al. 2019 use 0.2, 0.4 and 0.8); only the RBF kernel has one.
    """

    name: str = "linear"
    unbiased: bool = True
    bandwidth: float = 0.4

    def __post_init__(self) -> None:
        if self.name not in ("linear", "rbf"):
            raise ValueError(f"kernel={self.name!r} is not known; choose 'linear' or 'rbf'")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth={self.bandwidth!r} must be above 0")

    @property
    def min_samples(self) -> int:
        """Fewest samples of a block: the unbiased HSIC divides by m (m - 3)."""
        return 4 if self.unbiased else 2


class Segment(NamedTuple):
    """Blocks of equal size in a batch: samples start ... start + blocks * size."""

    samples: slice
    blocks: int
    size: int
    offset: int  # of the first Gram's first number in a row of the stack

    def bounds(self) -> list[tuple[int, int]]:
        """First sample and end of every block."""
        starts = range(self.samples.start, self.samples.stop, self.size)
        return [(start, start + self.size) for start in starts]


def split(n: int, hsic_batch_size: int | None, min_samples: int) -> list[Segment]:
    """Cut n samples into near-equal blocks of at most `hsic_batch_size`, none left out."""
    if n < min_samples:
        return []
    blocks = 1 if hsic_batch_size is None else math.ceil(n / hsic_batch_size)
    blocks = max(1, min(blocks, n // min_samples))
    size, larger = divmod(n, blocks)
    segments, start, offset = [], 0, 0
    for count, m in ((larger, size + 1), (blocks - larger, size)):
        if count:
            segments.append(Segment(slice(start, start + count * m), count, m, offset))
            start, offset = start + count * m, offset + count * m * m
    return segments


@dataclass
class _Row:
    """What is fixed for a row by its first batch, so that all its Grams are comparable."""

    alpha: float | None = None  # power of two that brings K to about 1: products stay in range
    sigma: float | None = None
    centre: bool = True


class GramStack:
    """Slots for R rows; `put` fills one, `products` multiplies all pairs.

    One buffer serves all batches: memory R x blocks x m^2 numbers, whatever the features' size.
    """

    def __init__(
        self,
        kernel: Kernel,
        hsic_batch_size: int | None,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        capacity: int = 16,
    ) -> None:
        self.kernel = kernel
        self.hsic_batch_size = hsic_batch_size
        self.device = device
        self.dtype = dtype
        self.segments: list[Segment] = []
        self.rows: list[_Row] = []
        self._n = 0
        self._filled: list[bool] = []
        self._capacity = capacity
        self._buffer = torch.empty(0, 0, dtype=dtype, device=device)

    def begin(self, n: int) -> int:
        """Start a batch of n samples; returns its number of blocks, 0 when n is too small."""
        self._n = n
        self.segments = split(n, self.hsic_batch_size, self.kernel.min_samples)
        self._filled = [False] * len(self.rows)
        self._reserve()
        return sum(s.blocks for s in self.segments)

    def add_row(self) -> int:
        """A new row; its number."""
        self.rows.append(_Row())
        self._filled.append(False)
        self._reserve()
        return len(self.rows) - 1

    def put(self, row: int, x: Tensor) -> None:
        """Form the centred Gram of features x (n, d) in the slot of a row."""
        self._filled[row] = True
        if not self.segments:
            return
        outs = [(s.samples, self._slot(row, s)) for s in self.segments]
        self._form(self.rows[row], x, outs)
        for _, out in outs:
            (gram.u_centre_ if self.kernel.unbiased else gram.centre_)(out)

    def copy(self, row: int, source: int) -> None:
        """The row's output is the source row's: share the Gram and its scale."""
        self._filled[row] = True
        self.rows[row] = self.rows[source]
        self._buffer[row].copy_(self._buffer[source])

    def products(self) -> Iterator[tuple[Tensor, int]]:
        """HSIC of all pairs of rows: (blocks, R, R) and the block size, per segment.

        Unbiased: <U(K), U(L)> / (m (m-3)). Biased: <HKH, HLH> / (m-1)^2. Rows that were not
        filled since `begin` are NaN.
        """
        for row, filled in enumerate(self._filled):
            if not filled:
                self._buffer[row].fill_(math.nan)
        scale = self.scales()
        for s in self.segments:
            m = s.size
            flat = self._segment(s).view(-1, s.blocks, m * m).transpose(0, 1)
            norm = m * (m - 3) if self.kernel.unbiased else (m - 1) ** 2
            yield torch.bmm(flat, flat.mT).double() * (scale[:, None] * scale / norm), m

    def missing(self) -> list[int]:
        """Rows that got nothing since `begin`."""
        return [row for row, filled in enumerate(self._filled) if not filled]

    def scales(self) -> Tensor:
        """1 / alpha of every row, float64 (R,)."""
        alphas = [r.alpha if r.alpha is not None else 1.0 for r in self.rows]
        return torch.tensor(alphas, dtype=torch.float64, device=self.device).reciprocal()

    def _form(self, row: _Row, x: Tensor, outs: list[tuple[slice, Tensor]]) -> None:
        alpha = 1.0 if row.alpha is None else row.alpha
        rbf = self.kernel.name == "rbf"
        if row.centre or rbf or torch.float64 in (x.dtype, self.dtype):
            self._form_centred(row, x, outs, alpha)
        else:
            x = x.to(self.dtype)
            for samples, out in outs:
                gram.linear_gram_(out, x[samples].reshape(*out.shape[:2], -1), alpha)
            if self._mean_is_large(outs):
                self._form_centred(row, x, outs, alpha)
                row.centre = True
        if rbf:
            self._to_rbf(row, outs)
        elif row.alpha is None and (spread := float(_trace(outs)) / self._n):
            row.alpha = _power_of_two(1.0 / spread)
            for _, out in outs:
                out.mul_(row.alpha)

    def _form_centred(
        self, row: _Row, x: Tensor, outs: list[tuple[slice, Tensor]], alpha: float
    ) -> None:
        energy = gram.centred_gram_(outs, x, alpha) * alpha
        spread = _trace(outs) / self._n
        # What varies by less than the rounding of the mean is constant: exactly zero then.
        eps = torch.finfo(energy.dtype).eps
        varies = ~(spread <= (4 * eps) ** 2 * energy)
        for _, out in outs:
            out.mul_(varies)
        if row.alpha is None:
            row.centre = not bool(energy <= _CENTRE_ABOVE * spread)

    def _mean_is_large(self, outs: list[tuple[slice, Tensor]]) -> bool:
        # Reading a number back is free on the CPU only; elsewhere the first batch decides.
        if self.device.type != "cpu":
            return False
        trace = float(_trace(outs)) / self._n
        blocks = sum(out.shape[0] for _, out in outs)
        mean = float(sum(out.mean(dim=(-2, -1)).sum() for _, out in outs)) / blocks
        return mean > _CENTRE_ABOVE * (trace - mean)

    def _to_rbf(self, row: _Row, outs: list[tuple[slice, Tensor]]) -> None:
        for _, out in outs:
            gram.squared_distances_(out)
        if row.sigma is None:
            squared = outs[0][1]
            # Where most samples coincide the median is 0: the root mean square serves then.
            typical = float(gram.median_distance(squared)) or float(squared.mean().sqrt())
            row.sigma = self.kernel.bandwidth * typical or None
            row.alpha = 1.0
        for _, out in outs:
            if row.sigma is None:  # no two samples differ yet
                out.fill_(1.0)
            else:
                gram.rbf_(out, row.sigma)

    def _slot(self, row: int, s: Segment) -> Tensor:
        end = s.offset + s.blocks * s.size**2
        return self._buffer[row, s.offset : end].view(s.blocks, s.size, s.size)

    def _segment(self, s: Segment) -> Tensor:
        """All rows' Grams, (R, blocks * m^2)."""
        end = s.offset + s.blocks * s.size**2
        return self._buffer[: len(self.rows), s.offset : end]

    def _reserve(self) -> None:
        width = sum(s.blocks * s.size**2 for s in self.segments)
        if len(self.rows) > self._capacity:
            self._capacity = 2 * len(self.rows)
        if self._buffer.shape == (self._capacity, width):
            return
        # Memory that no row touches stays unused: empty() does not write.
        buffer = torch.empty(self._capacity, width, dtype=self.dtype, device=self.device)
        if self._buffer.shape[1] == width:
            buffer[: self._buffer.shape[0]] = self._buffer
        self._buffer = buffer


def _trace(outs: list[tuple[slice, Tensor]]) -> Tensor:
    total = outs[0][1].diagonal(dim1=-2, dim2=-1).sum()
    for _, out in outs[1:]:
        total = total + out.diagonal(dim1=-2, dim2=-1).sum()
    return total


def _power_of_two(x: float) -> float:
    if not math.isfinite(x):
        return 1.0
    return 2.0 ** max(-120, min(120, round(math.log2(x))))
