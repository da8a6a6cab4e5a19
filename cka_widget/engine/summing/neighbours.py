"""Are samples that lie side by side in a block more alike than samples further apart?

Take four samples of a block: i, its neighbour i + 1, and j, j + 1 half a block away. Where the
order means nothing, i + 1 and j may change places, which turns the sign of

    D = K_i,i+1 + K_j,j+1 - K_i,j - K_i+1,j+1

of every layer at once. So D is above and below 0 equally often, whatever the features, and however
much the layers depend on each other; sets of four without a common sample toss coins of their own.
Centring cancels in D. Each set has one vote: the sign that most of the rows have, or of some of
them where there are many.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from cka_widget.engine.grams.stack import GramStack

# Probability that samples in random order are said to depend on each other: a bound, by
# Hoeffding (1963); some 0.1% of runs are.
_FALSE_ALARMS = 0.01
# Smallest share of the votes that is told: below it dependence biases no score by much.
_LEAST_SHARE = 0.55
# Rows that are looked at, if that many: their numbers lie far apart in memory.
_ROWS = 16


class Neighbours:
    """Counts of votes, on the device where the Grams are; immutable.

    Attributes:
        counts: votes for neighbours being more alike, and all votes, (2,); None before any.
    """

    def __init__(self, counts: Tensor | None = None, latest: Tensor | None = None) -> None:
        self.counts = counts
        self._latest = latest

    def seen(self, grams: Tensor) -> Neighbours:
        """These counts and the votes of some blocks.

        Args:
            grams: K (R, blocks, m, m), m >= 4, centred or not; rows that are NaN have no vote.
        """
        apart = _differences(grams)
        found, numbers = apart.sign().sum(0), apart.sum(0)
        new = torch.stack([(found > 0).sum(), (found != 0).sum()])
        if self._latest is not None and self._latest.shape == numbers.shape:
            new *= (numbers != self._latest).any()  # the same batch again says nothing new
        return Neighbours(new if self.counts is None else self.counts + new, numbers)

    def alike(self) -> bool:
        """Are neighbours more alike than chance explains? Waits for the device."""
        if self.counts is None:
            return False
        alike, total = (int(count) for count in self.counts.tolist())
        above = alike - total / 2
        chance = math.exp(-2 * above**2 / max(total, 1))
        return alike > _LEAST_SHARE * total and chance <= _FALSE_ALARMS


def after_batch(before: Neighbours, stack: GramStack) -> Neighbours:
    """The votes so far, and those of a batch's Grams."""
    at, known = 0, set[int]()
    for s in stack.segments:
        grams, clusters = stack.grams_of(s, 0, s.blocks), stack.clusters[at : at + s.blocks]
        if clusters:  # the blocks of a cluster would vote alike, so that only its first does
            new = {c: i for i, c in reversed([*enumerate(clusters)]) if c not in known}
            known |= new.keys()
            grams = grams[:, sorted(new.values())]
        at += s.blocks
        if s.size >= 4:
            before = before.seen(grams)
    return before


def votes(grams: Tensor) -> Tensor:
    """Rows with D above 0 less rows with D below, of every set of four, (blocks, sets).

    Of more than 16 rows every second, third, ... counts.
    """
    return _differences(grams).sign().sum(0)


def _differences(grams: Tensor) -> Tensor:
    """D of the rows that count, (rows, blocks, sets); 0 where it is NaN."""
    m = grams.shape[-1]
    grams = grams[:: max(1, -(-len(grams) // _ROWS))]
    near, far = grams.flatten(-2)[..., _places(m, grams.device)].chunk(2, -2)
    # In this order the same numbers change sides, so that rounding has no favourite.
    return (near.sum(-2) - far.sum(-2)).nan_to_num(0.0)


@functools.lru_cache(64)  # making a tensor of numbers waits for all that a device has queued
def _places(m: int, device: torch.device) -> Tensor:
    """Of the four numbers of every D, those that count and those that are taken off, (4, sets)."""
    half = m // 2
    pairs = [
        ((i, i + 1), (j, j + 1), (i, j), (i + 1, j + 1))
        for i, j in ((i, i + half) for i in range(0, half - 1, 2))
    ]
    places = [[row * m + column for row, column in four] for four in pairs]
    return torch.tensor(places, device=device).mT
