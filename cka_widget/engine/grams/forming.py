"""How a row's Gram is formed: what is looked at, decided by it, and found wrong later.

A row is *looked at* in its first batch, and anew as long as its samples do not differ. What a look
finds (powers of two that keep numbers within float32, rho before and after centring) is read at
once on the CPU, and in one transfer at the batch's end where reading waits for queued work; it is
then *fixed* in the row's `RowCondition`. A row that turns out to need more care than was fixed is a
*suspect*: its Gram is formed once more. The one invariant: between batches all looks are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator, gram
from cka_widget.engine.grams.conditioning import (
    CENTRE_FEATURES_ABOVE,
    CENTRE_GRAM_ABOVE,
    FORM_AGAIN,
    HARDLY_VARIES,
    MARGIN,
    OUTGREW,
    VARIES_BY_BATCH,
    RowCondition,
)
from cka_widget.engine.grams.gram import Slots


@dataclass(frozen=True)
class Needs:
    """What measures ask of Grams.

    Attributes:
        min_samples: fewest samples of a block.
        max_rho: of the measure that asks for most digits, see `Measure`.
        raw: what centring takes from the features is kept beside their Grams.
    """

    min_samples: int = 4
    max_rho: float = 1000.0
    raw: bool = False


class Taken(NamedTuple):
    """Features were multiplied by 2^shift, their Gram by 2^boost; was a block's mean taken off?"""

    centred: bool
    shift: int
    boost: int


class Forming:
    """Forms the Grams of all rows, and keeps how.

    Attributes:
        rows: how every row's Gram is formed.
        suspects: rows whose Grams lack digits, to be formed once more.
        steady: is how Grams are formed to stay as the first batch has it, as far as can be? A
            recording serves that alone.
    """

    steady = False

    def __init__(
        self, needs: Needs, device: torch.device, dtype: torch.dtype, precision: str
    ) -> None:
        self.rows: list[RowCondition] = []
        self.suspects: set[int] = set()
        self._device = device
        self._dtype = dtype
        self._precision = precision
        self._raw = needs.raw
        part = min(1.0, needs.max_rho / CENTRE_FEATURES_ABOVE["highest"])
        self._above = {name: part * rho for name, rho in CENTRE_FEATURES_ABOVE.items()}
        # Where reading a number waits for all queued work, decisions wait for the batch's end.
        self._queued = accelerator.accelerated(device)
        self._sums_device = accelerator.sums_device(device)
        self._looks: dict[int, Tensor] = {}  # what a row's look showed, not read yet
        self._looked: set[int] = set()  # rows that were looked at in this batch
        self._asleep: set[int] = set()  # rows that nobody looks at and that were zero so far

    def begin(self) -> None:
        """A new batch comes."""
        self._looked.clear()
        self._looks.clear()
        # The models keep the user's setting of torch's; it may have changed since the last batch.
        self._chosen = accelerator.matmul(self._device, self._precision)

    def begin_again(self) -> None:
        """Nothing of the batch that was begun counts."""
        self._looks.clear()

    def add_row(self) -> None:
        """One more row, of which nothing is known."""
        self.rows.append(RowCondition(centre_gram=self._queued))

    def form(self, row: int, x: Tensor, slots: Slots) -> None:
        """Write the Grams of a row's features x (n, d)."""
        # A hook runs under the autocast of the model's forward pass.
        with accelerator.uncast(self._device), self._chosen:
            if self.rows[row].look:
                self._look(row, x, slots)
            else:
                self._form(self.rows[row], x, slots)

    def together(self, rows: list[int]) -> bool:
        """May rows be formed as one product? After their first batch, and all in one way; if one
        of them is centred, all are from now on.
        """
        states = [self.rows[row] for row in rows]
        if {(s.look, s.shift, s.boost) for s in states} != {
            (False, states[0].shift, states[0].boost)
        }:
            return False
        centre = any(s.centre_features for s in states)
        for state in states:
            state.centre_features = centre
        return True

    def form_together(self, rows: list[int], x: Tensor, out: Tensor) -> None:
        """Write the Grams of rows that are formed `together`: x (blocks, m, d) of all rows."""
        with accelerator.uncast(self._device), self._chosen:
            self._form(self.rows[rows[0]], x, [(slice(None), out)], len(rows))

    def share(self, row: int, source: int) -> None:
        """The row is formed as the source row."""
        self.rows[row] = self.rows[source]

    def taken(self, row: int, x: Tensor) -> Taken:
        """What was done to features x before they were multiplied."""
        state = self.rows[row]
        return Taken(not self._plain(state, x), state.shift, state.boost)

    def settled(self) -> bool:
        """Will the next batch be formed without a look at its numbers?"""
        return bool(self.rows) and not any(state.look for state in self.rows)

    def _form(self, state: RowCondition, x: Tensor, slots: Slots, rows: int = 1) -> None:
        """Write the Grams of rows that are known."""
        if self._plain(state, x):
            self._plain_gram(x, slots, state.shift, state.alpha)
        else:
            self._centred_gram(x, slots, state.shift, state.alpha, rows)

    def _plain(self, state: RowCondition, x: Tensor) -> bool:
        """Are features multiplied without centring them?"""
        return not (state.centre_features or x.dtype is torch.float64)

    def _plain_gram(self, x: Tensor, slots: Slots, shift: int = 0, alpha: float = 1.0) -> None:
        x = gram.scaled(x, shift)
        if x.dtype is not self._dtype and not self._exact(x):
            x = x.to(self._dtype)
        gram.linear_gram_(slots, x, alpha)

    def _exact(self, x: Tensor) -> bool:
        """Are features multiplied in the half precision that they have?"""
        return self._dtype is torch.float32 and accelerator.exact(x)

    def _centred_gram(
        self, x: Tensor, slots: Slots, shift: int = 0, alpha: float = 1.0, rows: int = 1
    ) -> None:
        rounded = self._precision == "medium"
        gram.centred_gram_(slots, x, alpha, shift=shift, rounded=rounded, rows=rows)

    def _look(self, row: int, x: Tensor, slots: Slots) -> None:
        """Form the Gram of a row of which nothing is known, and find out how it is to be formed.

        Where reading a number waits for all queued work, nothing is read before `read_looks`.
        """
        state = self.rows[row]
        self._looked.add(row)
        # Nothing rounds what is exact; but tensor cores cut off digits where they sum.
        precision = "high" if self._exact(x) else self._precision
        state.centre_above = self._above[precision]
        state.centre_features |= state.centre_above == 0
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
        size = gram.magnitude(slots)
        boost = gram.boost_of(size)
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
        elif self._raw:  # what centring takes is kept in the units that are found here
            self.read_looks()

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

    def _centre_above(self, state: RowCondition) -> float:
        """The rho above which a look decides to centre features."""
        return state.centre_above / (MARGIN if self.steady else 1.0)

    def _centre_where(self, needed: Tensor, x: Tensor, slots: Slots) -> None:
        plain = [out.clone() for _, out in slots]
        self._centred_gram(x, slots)
        for (_, out), kept in zip(slots, plain, strict=True):
            out.copy_(torch.where(needed.to(out.device), out, kept))

    def _look_at_zeros(self, state: RowCondition, x: Tensor, slots: Slots) -> None:
        """Find out what a Gram of zeros comes from."""
        first = float(x[0].sum())
        if not (x == x[:1]).all():
            state.why = VARIES_BY_BATCH if gram.all_equal(slots, x) else HARDLY_VARIES
        elif state.constant not in (None, first):
            state.why = VARIES_BY_BATCH
        state.constant = first

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
        state = self.rows[row]
        state.centre_features |= rho > self._centre_above(state)
        state.centre_gram |= formed > CENTRE_GRAM_ABOVE
        state.broken = not math.isfinite(size)
        state.look = size == 0 and not self._queued
        if size == 0 and not state.look:
            self._asleep.add(row)
        if state.broken or not size:
            return
        self._asleep.discard(row)
        state.shift, state.boost = int(shift), int(boost)
        if state.energy is None:
            state.energy = math.log2(size) - 2 * state.shift

    def begin_check(self) -> None:
        """The Grams of a batch are about to be measured."""
        self.suspects.clear()
        self._uncentred = [not row.centre_features for row in self.rows]
        self._worst: Tensor | None = None

    def check(self, rho: Tensor, filled: list[bool]) -> bool:
        """Note which rows need more care than was fixed, see `suspects`.

        Args:
            rho: of every row's Grams in some of the batch's blocks, (R,), see `conditioning`.
            filled: which rows were.

        Returns:
            Whether a Gram is to be U-centred before products that was not; never where reading
            rho would wait for queued work, which is done in `end_check`.
        """
        if self._queued:
            self._worst = rho if self._worst is None else torch.maximum(self._worst, rho)
            return False
        return self._note(rho.tolist(), filled)

    def end_check(self, filled: list[bool]) -> None:
        """All of the batch's Grams were measured.

        Where all features are centred nothing is read, so that the host may run ahead; they may
        grow by 1e8 then.
        """
        if self._worst is not None and (self._asleep or any(self._uncentred)):
            self._note(self._worst.tolist(), filled)

    def _note(self, rho: list[float], filled: list[bool]) -> bool:
        found = False
        for row, r in enumerate(rho):
            if r <= CENTRE_GRAM_ABOVE and not (r and row in self._asleep):
                continue
            state = self.rows[row]
            if row in self._asleep or math.isnan(r):
                if filled[row] and not state.broken and row not in self._looked:
                    state.look = True
                    self.suspects.add(row)
                continue
            found |= not state.centre_gram
            state.centre_gram = True
            if r > state.centre_above and self._uncentred[row]:
                state.centre_features = True
                if r > FORM_AGAIN * state.centre_above:
                    self.suspects.add(row)
        return found

    def why(self, row: int, own: float) -> str | None:
        """Why a row has no score, where its self-HSIC, summed over all batches, does not say it."""
        state = self.rows[row]
        if math.isnan(own) and self._queued and not state.broken:
            return OUTGREW if all(r.centre_features for r in self.rows) else None
        return state.why if own == 0 else None
