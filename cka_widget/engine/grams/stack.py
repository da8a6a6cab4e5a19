"""The Grams of one batch, all rows side by side, ready for one matrix product.

One buffer serves all batches. A batch *begins* with its number of samples, which fixes its blocks;
hooks *put* every row's features, which become Grams at once; then its blocks are drawn, a few at a
time, for the measures. Rows that nothing was put into are NaN. `formed.suspects` may ask for rows
to be put once more, before the batch counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.blocks import Segment, split
from cka_widget.engine.grams.forming import Forming, Needs
from cka_widget.engine.grams.gram import Slots
from cka_widget.engine.grams.gram_blocks import Blocks
from cka_widget.engine.grams.groups import Arrangement
from cka_widget.engine.grams.raw import RawFacts

# Blocks x R x R numbers multiplied at a time: bounds the memory beside the Grams; the second on
# accelerators, where each time is some 45 launches.
_PAIRS_TOGETHER, _PAIRS_QUEUED = 1 << 19, 1 << 23


class GramStack:
    """Slots for R rows; `put` fills one, `blocks` gives them all.

    Memory R x blocks x m^2 numbers, whatever the features' size. Its Grams are multiples of K by
    powers of two, see `units`: the first batch in which a row's samples differ fixes which, and one
    whose features are too large for it fixes it anew.

    Attributes:
        formed: how the rows' Grams are formed.
        segments: the batch's blocks.
        clusters: number of every block's, where samples have groups.
    """

    def __init__(
        self,
        needs: Needs,
        hsic_batch_size: int | None,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        precision: str = "highest",
        capacity: int = 16,
    ) -> None:
        self.hsic_batch_size = hsic_batch_size
        self.device = device
        self.dtype = dtype
        self.formed = Forming(needs, device, dtype, precision)
        self.segments: list[Segment] = []
        self.clusters: list[int] = []
        self._needs = needs
        self._order: Tensor | None = None  # in which the blocks take the batch's samples
        self._labels: Tensor | None = None
        self._n = 0
        self._filled: list[bool] = []
        self._capacity = capacity
        self._buffer = torch.empty(0, 0, dtype=dtype, device=device)
        self._slots: dict[int, Slots] = {}
        self._raw = RawFacts(device, dtype) if needs.raw else None

    def begin(
        self, n: int, arrangement: Arrangement | None = None, labels: Tensor | None = None
    ) -> int:
        """Start a batch of n samples; returns its number of blocks, 0 when n is too small.

        Args:
            n: number of samples.
            arrangement: which sample goes into which block, where samples have groups.
            labels: number of every sample's class (n,), where measures need it.
        """
        if arrangement is not None:
            self._n, self.segments = -1, arrangement.segments
            self.clusters = arrangement.clusters
            self._order = torch.tensor(arrangement.order, device=self.device)
            self._slots.clear()
            self._reserve()
        elif n != self._n:
            self._n = n
            self.segments = split(n, self.hsic_batch_size, self._needs.min_samples)
            self._reserve()
        self._labels = None if labels is None else labels.to(self.device)
        if self._labels is not None and self._order is not None:
            self._labels = self._labels[self._order]
        self._filled = [False] * self.n_rows
        self.formed.begin()
        return sum(s.blocks for s in self.segments)

    def begin_again(self) -> None:
        """Nothing of the batch that was begun counts."""
        self._filled = [False] * self.n_rows
        self.formed.begin_again()

    @property
    def n_rows(self) -> int:
        """Number of rows, R."""
        return len(self.formed.rows)

    def add_row(self) -> int:
        """A new row; its number."""
        self.formed.add_row()
        self._filled.append(False)
        self._reserve()
        return self.n_rows - 1

    def put(self, row: int, x: Tensor) -> None:
        """Form the Gram of features x (n, d) in the slot of a row."""
        self._filled[row] = True
        if not self.segments:
            return
        x = x.to(self.device)  # a model may be spread over several devices
        if self._order is not None:
            x = x[self._order]
        self.formed.form(row, x, self._slots_of(row))
        if self._raw is not None:
            self._raw.put(row, x, self.segments, self.formed.taken(row, x))

    def put_all(self, rows: list[int], features: Sequence[Tensor] | Tensor) -> None:
        """`put` for the rows of several particles; as one product where features are (P, n, d).

        That needs rows side by side whose first batch has come.
        """
        if (
            not isinstance(features, Tensor)
            or len(self.segments) != 1
            or self._raw is not None
            or rows != list(range(rows[0], rows[0] + len(rows)))
            or not self.formed.together(rows)
        ):
            for row, x in zip(rows, features, strict=True):
                self.put(row, x)
            return
        for row in rows:
            self._filled[row] = True
        blocks, m = self.segments[0].blocks, self.segments[0].size
        out = self._buffer[rows[0] : rows[-1] + 1].view(-1, m, m)
        if self._order is not None:
            features = features[:, self._order]
        x = features.reshape(len(rows), blocks, m, -1).flatten(0, 1)
        self.formed.form_together(rows, x, out)

    def copy(self, row: int, source: int) -> None:
        """The row's output is the source row's: share the Gram and its scale."""
        self._filled[row] = True
        self.formed.share(row, source)
        self._buffer[row].copy_(self._buffer[source])
        if self._raw is not None:
            self._raw.copy(row, source)

    def first(self) -> Blocks:
        """All blocks of the batch's first segment."""
        self._settle()
        return self._of(self.segments[0], 0, self.segments[0].blocks)

    def blocks(self) -> Iterator[Blocks]:
        """The Grams of all rows, a few blocks of one size at a time; each is to be `check`ed."""
        self._settle()
        self.formed.begin_check()
        queued = accelerator.accelerated(self.device)
        numbers = _PAIRS_QUEUED if queued else _PAIRS_TOGETHER
        together = max(1, numbers // max(1, self.n_rows) ** 2)
        for s in self.segments:
            for first in range(0, s.blocks, together):
                yield self._of(s, first, min(first + together, s.blocks))

    def check(self, rho: Tensor) -> bool:
        """See `Forming.check`."""
        return self.formed.check(rho, self._filled)

    def end_check(self) -> None:
        """See `Forming.end_check`."""
        self.formed.end_check(self._filled)

    def to_centre(self) -> list[int]:
        """Rows whose Grams are to be U-centred before products."""
        return [row for row, state in enumerate(self.formed.rows) if state.centre_gram]

    def _settle(self) -> None:
        """Know how all rows were formed, and have NaN where nothing was put."""
        self.formed.read_looks()
        for row in self.missing():
            self._buffer[row].fill_(math.nan)

    def units(self) -> list[int]:
        """K of every row is what stands here times 2^unit."""
        return [row.unit for row in self.formed.rows]

    def energies(self) -> list[float]:
        """log2 of every row's mean energy of a sample in its first batch; 0 before it came."""
        return [row.energy or 0.0 for row in self.formed.rows]

    def grams(self) -> Tensor:
        """What the slots hold, (R, numbers)."""
        return self._buffer[: self.n_rows]

    def formation(self) -> object:
        """Equal where the operations of one filling would do for another."""
        return self._n, self._buffer.data_ptr(), [row.formation() for row in self.formed.rows]

    def filling(self) -> tuple[bool, ...]:
        """Which rows were filled since `begin`."""
        return tuple(self._filled)

    def fill_as(self, filling: tuple[bool, ...]) -> None:
        """The slots were filled as then, by the same operations."""
        self._filled = list(filling)

    def missing(self) -> list[int]:
        """Rows that got nothing since `begin`."""
        return [row for row, filled in enumerate(self._filled) if not filled]

    def _of(self, s: Segment, first: int, last: int) -> Blocks:
        """Some blocks of a segment."""
        # Of whole blocks, from the segment's first sample on.
        samples = slice(s.samples.start + first * s.size, s.samples.start + last * s.size)
        before = sum(other.blocks for other in self.segments[: self.segments.index(s)])
        raw = None
        if self._raw is not None:
            raw = self._raw.of(self.n_rows, samples, slice(before + first, before + last))
        labels = None if self._labels is None else self._labels[samples].view(-1, s.size)
        return Blocks(self.grams_of(s, first, last), tuple(self.units()), labels, raw)

    def grams_of(self, s: Segment, first: int, last: int) -> Tensor:
        """What stands in the slots of some blocks of a segment, (R, blocks, m, m)."""
        m = s.size
        start, end = s.offset + first * m * m, s.offset + last * m * m
        return self.grams()[:, start:end].view(-1, last - first, m, m)

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
        if self.n_rows > self._capacity:
            self._capacity = 2 * self.n_rows
        if self._raw is not None:
            self._raw.reserve(self._capacity, self.segments)
        if self._buffer.shape == (self._capacity, width):
            return
        # Memory that no row touches stays unused: empty() does not write.
        buffer = torch.empty(self._capacity, width, dtype=self.dtype, device=self.device)
        if self._buffer.shape[1] == width:
            buffer[: self._buffer.shape[0]] = self._buffer
        self._buffer = buffer
        self._slots.clear()
