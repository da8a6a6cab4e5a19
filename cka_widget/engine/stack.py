"""The centred Grams of one batch, all rows side by side, ready for one matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cka_widget.engine import accelerator, gram
from cka_widget.engine.blocks import Segment, split
from cka_widget.engine.care import (
    CENTRE_FEATURES_ABOVE,
    CENTRE_GRAM_ABOVE,
    FORM_AGAIN,
    HARDLY_VARIES,
    MARGIN,
    OUTGREW,
    VARIES_BY_BATCH,
    Care,
)
from cka_widget.engine.gram import Slots
from cka_widget.engine.groups import Arrangement
from cka_widget.engine.kernel import Kernel
from cka_widget.engine.neighbours import Neighbours

# Blocks x R x R numbers multiplied at a time: bounds the memory beside the Grams; the second on
# accelerators, where each time is some 45 launches.
_PAIRS_TOGETHER, _PAIRS_QUEUED = 1 << 19, 1 << 23
# Of Grams (R, blocks, m, m) and the rows to centre: HSICs, every row's rho, and shapes, if any.
Multiply = Callable[[Tensor, list[int]], tuple[Tensor, Tensor, Tensor | None]]


class GramStack:
    """Slots for R rows; `put` fills one, `products` multiplies all pairs.

    One buffer serves all batches: memory R x blocks x m^2 numbers, whatever the features' size.
    Its Grams are multiples of K by powers of two, see `units`: the first batch in which a row's
    samples differ fixes which, and one whose features are too large for it fixes it anew.

    Attributes:
        steady: is how Grams are formed to stay as the first batch has it, as far as can be? A
            recording serves that alone.
    """

    steady = False

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
        self.clusters: list[int] = []  # number of every block's, where samples have groups
        self._order: Tensor | None = None  # in which the blocks take the batch's samples
        self.rows: list[Care] = []
        self._n = 0
        self._filled: list[bool] = []
        self._capacity = capacity
        self._buffer = torch.empty(0, 0, dtype=dtype, device=device)
        self._slots: dict[int, Slots] = {}
        self.suspects: set[int] = set()
        self._looks: dict[int, Tensor] = {}  # what a row's look showed, not read yet
        self._looked: set[int] = set()  # rows that were looked at in this batch
        self._asleep: set[int] = set()  # rows that nobody looks at and that were zero so far

    def begin(self, n: int, arrangement: Arrangement | None = None) -> int:
        """Start a batch of n samples; returns its number of blocks, 0 when n is too small."""
        if arrangement is not None:
            self._n, self.segments = -1, arrangement.segments
            self.clusters = arrangement.clusters
            self._order = torch.tensor(arrangement.order, device=self.device)
            self._slots.clear()
            self._reserve()
        elif n != self._n:
            self._n = n
            self.segments = split(n, self.hsic_batch_size, self.kernel.min_samples)
            self._reserve()
        self._filled = [False] * len(self.rows)
        self._looked.clear()
        self._looks.clear()
        # The models keep the user's setting of torch's; it may have changed since the last batch.
        self._chosen = accelerator.matmul(self.device, self.precision)
        return sum(s.blocks for s in self.segments)

    def begin_again(self) -> None:
        """Nothing of the batch that was begun counts."""
        self._filled = [False] * len(self.rows)
        self._looks.clear()

    def add_row(self) -> int:
        """A new row; its number."""
        self.rows.append(Care(centre_gram=self._queued))
        self._filled.append(False)
        self._reserve()
        return len(self.rows) - 1

    def put(self, row: int, x: Tensor) -> None:
        """Form the Gram of features x (n, d) in the slot of a row."""
        self._filled[row] = True
        if not self.segments:
            return
        state, slots = self.rows[row], self._slots_of(row)
        x = x.to(self.device)  # a model may be spread over several devices
        if self._order is not None:
            x = x[self._order]
        # A hook runs under the autocast of the model's forward pass.
        with accelerator.uncast(self.device), self._chosen:
            if state.look:
                self._look(row, x, slots)
            else:
                self._form(state, x, slots)

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
            or {(s.look, s.shift, s.boost) for s in states}
            != {(False, states[0].shift, states[0].boost)}
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
        if self._order is not None:
            features = features[:, self._order]
        x = features.reshape(len(rows), blocks, m, -1).flatten(0, 1)
        with accelerator.uncast(self.device), self._chosen:
            self._form(states[0], x, [(slice(None), out)], len(rows))

    def _form(self, state: Care, x: Tensor, slots: Slots, rows: int = 1) -> None:
        """Write the Grams of rows that are known."""
        if self._plain(state, x):
            self._plain_gram(x, slots, state.shift, state.alpha)
        else:
            self._centred_gram(x, slots, state.shift, state.alpha, rows)
        if self.kernel.name == "rbf":
            sigma = state.sigma and math.ldexp(state.sigma, state.shift)
            for _, out in slots:
                gram.squared_distances_(out)
                if sigma is None:  # no two samples differ yet: all ones, centred
                    out.zero_()
                else:
                    gram.rbf_(out, sigma)

    def _plain(self, state: Care, x: Tensor) -> bool:
        """Are features multiplied without centring them?"""
        return not (state.centre_features or self.kernel.name == "rbf" or x.dtype is torch.float64)

    def _plain_gram(self, x: Tensor, slots: Slots, shift: int = 0, alpha: float = 1.0) -> None:
        x = gram.scaled(x, shift)
        if x.dtype is not self.dtype and not self._exact(x):
            x = x.to(self.dtype)
        gram.linear_gram_(slots, x, alpha)

    def _exact(self, x: Tensor) -> bool:
        """Are features multiplied in the half precision that they have?"""
        return self.dtype is torch.float32 and accelerator.exact(x)

    def _centred_gram(
        self, x: Tensor, slots: Slots, shift: int = 0, alpha: float = 1.0, rows: int = 1
    ) -> None:
        rounded = self.precision == "medium"
        gram.centred_gram_(slots, x, alpha, shift=shift, rounded=rounded, rows=rows)

    def _look(self, row: int, x: Tensor, slots: Slots) -> None:
        """Form the Gram of a row of which nothing is known, and find out how it is to be formed.

        Where reading a number waits for all queued work, nothing is read before `read_looks`.
        """
        state, rbf = self.rows[row], self.kernel.name == "rbf"
        self._looked.add(row)
        # Nothing rounds what is exact; but tensor cores cut off digits where they sum.
        precision = "high" if self._exact(x) else self.precision
        state.centre_above = CENTRE_FEATURES_ABOVE[precision]
        state.centre_features |= precision == "medium"
        if not self._queued and self._plain(state, x) and self._ordinary(row, x, slots):
            return
        shift = gram.shift_of(x)
        x = gram.scaled(x, shift if self._queued else int(shift))
        rho = formed = shift.new_tensor(math.nan, dtype=torch.float32)
        if self._plain(state, x):
            self._plain_gram(x, slots)
            rho = gram.cancellation(slots)
            if self._queued:
                self._centre_where(rho > self._centre_above(state), x, slots)
            else:
                state.centre_features = bool(rho > self._centre_above(state))
        if not self._plain(state, x):
            self._centred_gram(x, slots)
        size = self._to_first_rbf(state, shift, slots) if rbf else gram.magnitude(slots)
        boost = torch.zeros_like(size) if rbf else gram.boost_of(size)
        for _, out in slots:
            out.mul_(boost.exp2())
        if not self._queued:  # an accelerator centres all
            formed = gram.cancellation(slots)
        found = (shift, boost, rho, formed, size)
        self._looks[row] = torch.stack([n.to(self._sums_device, torch.float64) for n in found])
        if not self._queued:
            self.read_looks()
            if not size:
                self._look_at_zeros(state, x, slots)

    def _ordinary(self, row: int, x: Tensor, slots: Slots) -> bool:
        """Form a Gram whose own size shows that features need no factor, as nearly all have."""
        self._plain_gram(x, slots)
        size = float(gram.magnitude(slots))
        if not 1 / gram.PLAIN_SIZE < size < gram.PLAIN_SIZE:  # or NaN
            return False
        rho = float(gram.cancellation(slots))
        if rho > self._centre_above(self.rows[row]):
            return False
        self._fix(row, 0, 0, rho, rho, size)
        return True

    def _centre_above(self, state: Care) -> float:
        """The rho above which a look decides to centre features."""
        return state.centre_above / (MARGIN if self.steady else 1.0)

    def _centre_where(self, needed: Tensor, x: Tensor, slots: Slots) -> None:
        plain = [out.clone() for _, out in slots]
        self._centred_gram(x, slots)
        for (_, out), kept in zip(slots, plain, strict=True):
            out.copy_(torch.where(needed.to(out.device), out, kept))

    def _look_at_zeros(self, state: Care, x: Tensor, slots: Slots) -> None:
        """Find out what a Gram of zeros comes from."""
        first = float(x[0].sum())
        if not (x == x[:1]).all():
            state.why = VARIES_BY_BATCH if gram.all_equal(slots, x) else HARDLY_VARIES
        elif state.constant not in (None, first):
            state.why = VARIES_BY_BATCH
        state.constant = first

    def _to_first_rbf(self, state: Care, shift: Tensor, slots: Slots) -> Tensor:
        """Make kernels of Grams of features times 2^shift; sigma of those, 0 if all are equal."""
        for _, out in slots:
            gram.squared_distances_(out)
        squared = slots[0][1]
        # Where most samples coincide the median is 0: the root mean square serves then.
        median = gram.median_distance(squared)
        sigma = self.kernel.bandwidth * torch.where(median > 0, median, squared.mean().sqrt())
        if state.sigma is not None:
            mantissa, exponent = math.frexp(state.sigma)
            sigma = mantissa * (shift + exponent).to(squared.dtype).exp2()
        for _, out in slots:
            gram.rbf_(out, sigma)
            out.mul_(sigma != 0)
        return sigma

    def read_looks(self) -> None:
        """Fix how rows' Grams are formed by what was seen of them, read in one transfer."""
        looks, self._looks = self._looks, {}
        if not looks:
            return
        for row, found in zip(looks, torch.stack(list(looks.values())).tolist(), strict=True):
            self._fix(row, *found)

    def _fix(
        self, row: int, shift: float, boost: float, rho: float, formed: float, size: float
    ) -> None:
        """Take what a look has found: exponents, rho before and after centring, and the size."""
        state, rbf = self.rows[row], self.kernel.name == "rbf"
        state.centre_features |= rho > self._centre_above(state)
        state.centre_gram |= formed > CENTRE_GRAM_ABOVE
        state.broken = not math.isfinite(size)
        state.look = size == 0 and (rbf or not self._queued)
        if size == 0 and not state.look:
            self._asleep.add(row)
        if state.broken or not size:
            return
        self._asleep.discard(row)
        state.shift, state.boost = int(shift), int(boost)
        if rbf:
            state.sigma = state.sigma or math.ldexp(size, -state.shift)
        if state.energy is None:
            state.energy = 0.0 if rbf else math.log2(size) - 2 * state.shift

    def why(self, row: int, own: float) -> str | None:
        """Why a row has no score, where its self-HSIC, summed over all batches, does not say it."""
        state = self.rows[row]
        if math.isnan(own) and self._queued and not state.broken:
            return OUTGREW if all(r.centre_features for r in self.rows) else None
        return state.why if own == 0 else None

    def copy(self, row: int, source: int) -> None:
        """The row's output is the source row's: share the Gram and its scale."""
        self._filled[row] = True
        self.rows[row] = self.rows[source]
        self._buffer[row].copy_(self._buffer[source])

    def grams(self) -> Tensor:
        """What the slots hold, (R, numbers)."""
        return self._buffer[: len(self.rows)]

    def settled(self) -> bool:
        """Will the next batch be formed without a look at its numbers?"""
        return bool(self.rows) and not any(state.look for state in self.rows)

    def formation(self) -> object:
        """Equal where the operations of one filling would do for another."""
        return self._n, self._buffer.data_ptr(), [state.formation() for state in self.rows]

    def filling(self) -> tuple[bool, ...]:
        """Which rows were filled since `begin`."""
        return tuple(self._filled)

    def fill_as(self, filling: tuple[bool, ...]) -> None:
        """The slots were filled as then, by the same operations."""
        self._filled = list(filling)

    def missing(self) -> list[int]:
        """Rows that got nothing since `begin`."""
        return [row for row, filled in enumerate(self._filled) if not filled]

    def products(self, multiply: Multiply) -> Iterator[tuple[Tensor, Tensor | None, int]]:
        """HSIC of all pairs of rows, a few blocks at a time.

        Each time (blocks, R, R) float64 and the Grams' shapes, as `multiply` makes them, and the
        blocks' size. HSICs are in the rows' `units`; rows that were not filled since `begin` are
        NaN. When all are drawn, `suspects` are the rows whose features have grown since their
        first batch: their mean, so that float32 Grams lost their digits, or themselves, so that
        they left float32's range. `put` them once more and draw the products again.
        """
        self.read_looks()
        for row in self.missing():
            self._buffer[row].fill_(math.nan)
        uncentred = [not row.centre_features for row in self.rows]
        self.suspects.clear()
        numbers = _PAIRS_QUEUED if self._queued else _PAIRS_TOGETHER
        together = max(1, numbers // max(1, len(self.rows)) ** 2)
        worst: Tensor | None = None
        for s in self.segments:
            for first in range(0, s.blocks, together):
                last = min(first + together, s.blocks)
                product, rho, made = self._multiply(multiply, s, first, last)
                if self._queued:
                    worst = rho if worst is None else torch.maximum(worst, rho)
                elif self._note(rho.tolist(), uncentred):
                    product, _, made = self._multiply(multiply, s, first, last)
                yield product, made, s.size
        # Where all features are centred nothing is read, so that the host may run ahead; they may
        # grow by 1e8 then.
        if worst is not None and (self._asleep or any(uncentred)):
            self._note(worst.tolist(), uncentred)

    def _note(self, rho: list[float], uncentred: list[bool]) -> bool:
        """Remember which rows need more care; was one not centred that should have been?"""
        found = False
        for row, r in enumerate(rho):
            if r <= CENTRE_GRAM_ABOVE and not (r and row in self._asleep):
                continue
            state = self.rows[row]
            if row in self._asleep or math.isnan(r):
                if self._filled[row] and not state.broken and row not in self._looked:
                    state.look = True
                    self.suspects.add(row)
                continue
            found |= not state.centre_gram
            state.centre_gram = True
            if r > state.centre_above and uncentred[row]:
                state.centre_features = True
                if r > FORM_AGAIN * state.centre_above:
                    self.suspects.add(row)
        return found

    def neighbours(self, before: Neighbours) -> Neighbours:
        """With what the batch's Grams tell of samples that lie side by side."""
        at, known = 0, set[int]()
        for s in self.segments:
            grams, clusters = self._grams_of(s, 0, s.blocks), self.clusters[at : at + s.blocks]
            if clusters:  # the blocks of a cluster would vote alike, so that only its first does
                new = {c: i for i, c in reversed([*enumerate(clusters)]) if c not in known}
                known |= new.keys()
                grams = grams[:, sorted(new.values())]
            at += s.blocks
            if s.size >= 4:
                before = before.seen(grams)
        return before

    def units(self) -> list[int]:
        """K of every row is what stands here times 2^unit."""
        return [row.unit for row in self.rows]

    def energies(self) -> list[float]:
        """log2 of every row's mean energy of a sample in its first batch; 0 before it came."""
        return [row.energy or 0.0 for row in self.rows]

    def _multiply(
        self, multiply: Multiply, s: Segment, first: int, last: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """HSICs of some blocks of a segment, every row's rho (R,), and the Grams' shapes."""
        centred = [row for row, state in enumerate(self.rows) if state.centre_gram]
        return multiply(self._grams_of(s, first, last), centred)

    def _grams_of(self, s: Segment, first: int, last: int) -> Tensor:
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
