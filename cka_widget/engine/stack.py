"""The centred Grams of one batch, all rows side by side, ready for one matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cka_widget.engine import accelerator, gram
from cka_widget.engine.blocks import Segment, split
from cka_widget.engine.care import CENTRE_FEATURES_ABOVE, CENTRE_GRAM_ABOVE, FORM_AGAIN, Care
from cka_widget.engine.gram import Slots
from cka_widget.engine.kernel import Kernel
from cka_widget.engine.pairs import biased_hsics, unbiased_hsics

# Blocks x R x R numbers multiplied at a time: bounds the memory beside the Grams.
_PAIRS_TOGETHER = 1 << 19


class Filling(NamedTuple):
    """Which rows a batch filled, and the sizes of Grams that nobody has read yet."""

    filled: tuple[bool, ...]
    unsized: dict[int, Tensor]


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
        precision: str = "highest",
        capacity: int = 16,
    ) -> None:
        self.kernel = kernel
        self.hsic_batch_size = hsic_batch_size
        self.device = device
        self.dtype = dtype
        self.precision = precision
        # Where reading a number waits for all queued work, decisions wait for the batch's end.
        self._queued = accelerator.accelerated(device)
        self._sums_device = accelerator.sums_device(device)
        self.segments: list[Segment] = []
        self.rows: list[Care] = []
        self._n = 0
        self._filled: list[bool] = []
        self._capacity = capacity
        self._buffer = torch.empty(0, 0, dtype=dtype, device=device)
        self._slots: dict[int, Slots] = {}
        self.suspects: set[int] = set()
        self._unsized: dict[int, Tensor] = {}  # row -> its Gram's size, not read yet
        self._factors: tuple[Tensor, Tensor] | None = None
        self._centre_above = CENTRE_FEATURES_ABOVE[precision]

    def begin(self, n: int) -> int:
        """Start a batch of n samples; returns its number of blocks, 0 when n is too small."""
        if n != self._n:
            self._n = n
            self.segments = split(n, self.hsic_batch_size, self.kernel.min_samples)
            self._reserve()
        self._filled = [False] * len(self.rows)
        # The models keep the user's setting of torch's; it may have changed since the last batch.
        self._chosen = accelerator.matmul(self.device, self.precision)
        return sum(s.blocks for s in self.segments)

    def begin_again(self) -> None:
        """Nothing of the batch that was begun counts."""
        self._filled = [False] * len(self.rows)
        self._unsized = {}

    def add_row(self) -> int:
        """A new row; its number."""
        self.rows.append(Care(centre_gram=self._queued, centre_features=self.precision == "medium"))
        self._filled.append(False)
        self._factors = None
        self._reserve()
        return len(self.rows) - 1

    def put(self, row: int, x: Tensor) -> None:
        """Form the Gram of features x (n, d) in the slot of a row."""
        self._filled[row] = True
        if not self.segments:
            return
        state, slots = self.rows[row], self._slots_of(row)
        x = x.to(self.device)  # a model may be spread over several devices
        # A hook runs under the autocast of the model's forward pass.
        with accelerator.uncast(self.device):
            with self._chosen:
                rho = self._form(state, x, slots)
            if self.kernel.name == "rbf":
                self._to_rbf(state, slots)
            if not state.seen:
                self._first(row, slots, rho)

    def put_all(self, rows: list[int], features: Sequence[Tensor] | Tensor) -> None:
        """`put` for the rows of several particles; as one product where features are (P, n, d).

        That needs rows side by side whose first batch has come; if one of them needs centring,
        all get it.
        """
        states = [self.rows[row] for row in rows]
        if (
            not isinstance(features, Tensor)
            or len(self.segments) != 1
            or self.kernel.name == "rbf"
            or {(s.seen, s.alpha) for s in states} != {(True, states[0].alpha)}
            or rows != list(range(rows[0], rows[0] + len(rows)))
        ):
            for row, x in zip(rows, features, strict=True):
                self.put(row, x)
            return
        centre = any(s.centre_features for s in states)
        for row, state in zip(rows, states, strict=True):
            self._filled[row], state.centre_features = True, centre
        blocks, m = self.segments[0].blocks, self.segments[0].size
        out = self._buffer[rows[0] : rows[-1] + 1].view(-1, m, m)
        x = features.reshape(len(rows), blocks, m, -1).flatten(0, 1)
        with accelerator.uncast(self.device), self._chosen:
            self._form(states[0], x, [(slice(None), out)], len(rows))

    def _decides(self, state: Care) -> bool:
        """May the row's Gram be looked at now?"""
        return not (state.seen or (self._queued and state.tried))

    def _form(self, state: Care, x: Tensor, slots: Slots, rows: int = 1) -> float | None:
        """Write the Grams; their rho, where it was looked at."""
        if not (state.centre_features or self.kernel.name == "rbf" or x.dtype is torch.float64):
            x = x if x.dtype is self.dtype else x.to(self.dtype)
            gram.linear_gram_(slots, x, state.alpha)
            if not self._decides(state):
                return None
            rho = gram.cancellation(slots)
            if not rho > self._centre_above:
                return rho
            state.centre_features = True
        rounded = self.precision == "medium"
        gram.centred_gram_(slots, x, state.alpha, rounded=rounded, rows=rows)
        return None

    def copy(self, row: int, source: int) -> None:
        """The row's output is the source row's: share the Gram and its scale."""
        self._filled[row] = True
        if self.rows[row] is not self.rows[source]:
            self.rows[row], self._factors = self.rows[source], None
        self._buffer[row].copy_(self._buffer[source])

    def grams(self) -> Tensor:
        """What the slots hold, (R, numbers)."""
        return self._buffer[: len(self.rows)]

    def settled(self) -> bool:
        """Will the next batch be formed without a look at its numbers?"""
        rbf = self.kernel.name == "rbf"
        return bool(self.rows) and not any(
            self._decides(state) or (rbf and state.sigma is None) for state in self.rows
        )

    def formation(self) -> object:
        """Equal where the operations of one filling would do for another."""
        return self._n, self._buffer.data_ptr(), [state.formation() for state in self.rows]

    def filling(self) -> Filling:
        """What `put` noted since `begin`."""
        return Filling(tuple(self._filled), dict(self._unsized))

    def fill_as(self, filling: Filling) -> None:
        """The slots were filled as then, by the same operations."""
        self._filled, self._unsized = list(filling.filled), dict(filling.unsized)

    def missing(self) -> list[int]:
        """Rows that got nothing since `begin`."""
        return [row for row, filled in enumerate(self._filled) if not filled]

    def products(self) -> Iterator[tuple[Tensor, int]]:
        """HSIC of all pairs of rows, a few blocks at a time: (blocks, R, R) float64, block size.

        Unbiased: <U(K), U(L)> / (m (m-3)). Biased: <HKH, HLH> / (m-1)^2. Rows that were not
        filled since `begin` are NaN. When all are drawn, `suspects` are the rows whose features'
        mean has grown so large since their first batch that their float32 Grams lost their
        digits: `put` them once more, they will be centred, and draw the products again.
        """
        for row in self.missing():
            self._buffer[row].fill_(math.nan)
        uncentred = [not row.centre_features for row in self.rows]
        self.suspects.clear()
        together = max(1, _PAIRS_TOGETHER // max(1, len(self.rows)) ** 2)
        worst: Tensor | None = None
        for s in self.segments:
            for first in range(0, s.blocks, together):
                last = min(first + together, s.blocks)
                product, rho = self._multiply(s, first, last)
                if self._queued:
                    worst = rho if worst is None else torch.fmax(worst, rho)
                elif self._note(rho.tolist(), uncentred):
                    product, _ = self._multiply(s, first, last)
                yield product, s.size
        if worst is not None and (self._unsized or any(uncentred)):
            self._settle(worst, uncentred)

    def _settle(self, rho: Tensor, uncentred: list[bool]) -> None:
        """Read what a batch decides on an accelerator, all in one transfer."""
        waiting, self._unsized = self._unsized, {}
        numbers = torch.cat([rho, *(size.to(rho)[None] for size in waiting.values())]).tolist()
        self._note(numbers[: len(rho)], uncentred)
        for row, size in zip(waiting, numbers[len(rho) :], strict=True):
            if size:
                self.rows[row].set_size(size)
                self._factors = None
                self._buffer[row].mul_(size * self.rows[row].alpha)

    def _note(self, rho: list[float], uncentred: list[bool]) -> bool:
        """Remember which rows need more care; was one not centred that should have been?"""
        found = False
        for row, r in enumerate(rho):
            if not r > CENTRE_GRAM_ABOVE:
                continue
            state = self.rows[row]
            found |= not state.centre_gram
            state.centre_gram = True
            if r > self._centre_above and uncentred[row]:
                state.centre_features = True
                if r > FORM_AGAIN * self._centre_above:
                    self.suspects.add(row)
        return found

    def sizes(self) -> Tensor:
        """Mean energy of a sample of every row in its first batch, float64 (R,)."""
        return self._constants()[1]

    def _constants(self) -> tuple[Tensor, Tensor]:
        """What undoes the scales (R, R), and the sizes (R,)."""
        if self._factors is None:
            numbers = [(1 / row.alpha, row.size or 1.0) for row in self.rows]
            table = torch.tensor(numbers, dtype=torch.float64).to(self._sums_device)
            self._factors = torch.outer(table[:, 0], table[:, 0]), table[:, 1]
        return self._factors

    def _scales(self) -> Tensor:
        """What undoes the rows' scales in products of all pairs, (R, R)."""
        scale, _ = self._constants()
        if self._unsized:
            late = scale.new_ones(len(scale))
            for row, size in self._unsized.items():
                late[row] = torch.where(size > 0, size, 1.0)
            scale = scale * torch.outer(late, late)
        return scale

    def _multiply(self, s: Segment, first: int, last: int) -> tuple[Tensor, Tensor]:
        """HSICs of some blocks of a segment, and every row's rho (R,)."""
        m = s.size
        start, end = s.offset + first * m * m, s.offset + last * m * m
        grams = self.grams()[:, start:end].view(-1, last - first, m, m)
        scale = self._scales()
        if self.kernel.unbiased:
            centred = [row for row, state in enumerate(self.rows) if state.centre_gram]
            product, rho = unbiased_hsics(grams, centred)
        else:
            product, rho = biased_hsics(grams)
        return product * scale, rho

    def _first(self, row: int, slots: Slots, rho: float | None) -> None:
        """Fix the row's scale and care by its first batch that is not all zero."""
        state = self.rows[row]
        if not self._decides(state):
            size = self._unsized[row] = gram.magnitude(slots)
            for _, out in slots:
                out.div_(torch.where(size > 0, size, 1.0))
            return
        state.tried = True
        if not self._queued:
            rho = gram.cancellation(slots) if rho is None else rho
            state.centre_gram = rho > CENTRE_GRAM_ABOVE
        if state.size is not None:  # the RBF kernel's
            state.seen, self._factors = True, None
            return
        state.set_size(float(gram.magnitude(slots)))
        self._factors = None
        for _, out in slots:
            out.mul_(state.alpha)

    def _to_rbf(self, state: Care, slots: Slots) -> None:
        for _, out in slots:
            gram.squared_distances_(out)
        if state.sigma is None:
            squared = slots[0][1]
            # Where most samples coincide the median is 0: the root mean square serves then.
            typical = float(gram.median_distance(squared)) or float(squared.mean().sqrt())
            state.sigma = self.kernel.bandwidth * typical or None
            state.size = 1.0
        for _, out in slots:
            if state.sigma is None:  # no two samples differ yet: all ones, centred
                out.zero_()
            else:
                gram.rbf_(out, state.sigma)

    def _slots_of(self, row: int) -> Slots:
        found = self._slots.get(row)
        if found is None:
            found = self._slots[row] = [
                (
                    s.samples,
                    self._buffer[row, s.offset : s.offset + s.blocks * s.size**2].view(
                        s.blocks, s.size, s.size
                    ),
                )
                for s in self.segments
            ]
        return found

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
        self._slots.clear()
