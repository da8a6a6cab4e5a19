"""Which particles stand out by their scores. Arrays only; docs/particles.md has the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ALPHA = 0.05
"""Greatest share of matrices of particles of one kind in which one is named all the same."""

MIN_GAP = 0.1
"""Smallest fall of a particle's score that is worth a word."""

FLOOR = 0.02
"""Scores below are as good as none: their logarithms say nothing."""


class OddOne(NamedTuple):
    """A particle that agrees with its partners less than the other particles do."""

    axis: str
    """"row" or "col" of the score matrix."""
    particle: int
    score: float
    """Mean score of its own pairs."""
    others: float
    """Mean score of the pairs without it."""


class Verdict(NamedTuple):
    """What a particle x particle matrix says of single particles, the furthest first."""

    odd: list[OddOne]
    unsure: list[OddOne]
    """The last of a side, where it is clearly lower, but chance may have made it so."""


def pair_mask(shape: tuple[int, int], same: bool) -> np.ndarray:
    """Which entries are pairs: all, or those above the diagonal when both axes are `same`."""
    return np.triu(np.ones(shape, bool), 1) if same else np.ones(shape, bool)


def odd_ones_out(
    scores: np.ndarray, *, same: bool = False, stderr: np.ndarray | None = None
) -> list[OddOne]:
    """Particles that agree with all others clearly less than these do: the `odd` of `judge`.

    Args:
        scores: (rows, cols) particle x particle CKA; NaN where undefined.
        same: both axes are the same particles (the diagonal is no pair).
        stderr: standard errors, same shape.
    """
    return judge(scores, same=same, stderr=stderr).odd


def judge(
    scores: np.ndarray,
    *,
    same: bool = False,
    stderr: np.ndarray | None = None,
    within: Sequence[np.ndarray | None] = (None, None),
) -> Verdict:
    r"""Tell particles that stand out from those that merely come last; docs/particles.md.

    Qualities multiply (Spearman's attenuation), so the effects a_(1) <= ... <= a_(n) of a side's
    particles are the least squares of log score_ij = a_i + c_j. The k lowest stand apart when the
    gap between their scores and the others' is above 0.1 and above 3 standard errors e, and

        K * prod_(j=k+1)^(n-1) 1 / (1 + k q / j) < alpha,
        q = (a_(k+1) - a_(k)) sqrt(1 - (3 e / gap)^2) / (a_(n) - a_(k+1)).

    The product is the chance of so large a q where effects have an exponential tail. All
    K = max(1, n // 4) values of k are tried, and the sides share alpha = 0.05. A particle that
    stands apart is odd when no partner comes near: none of its scores lies a third of the way
    from its median to the level of the others. Two that agree with each other are a group.

    Args:
        scores: (rows, cols) particle x particle CKA; NaN where undefined.
        same: both axes are the same particles (the diagonal is no pair).
        stderr: standard errors, same shape.
        within: the scores inside the rows' and inside the columns' ensemble. Without them several
            particles that stand apart on one side may be a group, and none is named.
    """
    scores = np.array(scores, float)
    errors = np.full(scores.shape, np.nan) if stderr is None else np.array(stderr, float)
    if same:
        np.fill_diagonal(scores, np.nan)
        np.fill_diagonal(errors, np.nan)
    sides = [("row", scores, errors, within[0]), ("col", scores.T, errors.T, within[1])]
    sides = [side for side in sides[: 1 if same else 2] if len(side[1]) >= 3]
    odd, unsure = [], []
    for axis, table, doubts, inner in sides:
        low, sure = _lowest(table, same, _typical(doubts), ALPHA / len(sides))
        for i in sorted(low):
            one = OddOne(axis, int(i), *_means(table, i, same))
            if not sure:
                unsure.append(one)
            elif not _has_partner(table, i, low, square=same) and (
                same
                or len(low) == 1
                or (inner is not None and not _has_partner(_off_diagonal(inner), i, low))
            ):
                odd.append(one)
    return Verdict(*(sorted(ones, key=_fall) for ones in (odd, unsure)))


def _fall(one: OddOne) -> float:
    return round(one.score - one.others, 9)  # ties keep their order


def _lowest(
    table: np.ndarray, same: bool, errors: np.ndarray, alpha: float
) -> tuple[np.ndarray, bool]:
    """The rows that stand apart, and whether they surely do; else the last one, if clearly last."""
    plain = _effects(table, same)
    n, apart, clear = int(np.isfinite(plain).sum()), 0, 0
    most = max(1, n // 4)
    if n < 3 or np.diff(np.sort(plain))[:most].max() <= MIN_GAP:
        return np.arange(0), True  # nearly every cell ends here, at little cost
    logs = np.log(np.maximum(table, FLOOR))
    effects = _effects(logs, same)
    order = np.argsort(effects, kind="stable")[:n]
    for k in range(1, most + 1):
        low, rest = order[:k], order[k:]
        gap = plain[rest].min() - plain[low].max()
        error = 3 * errors[low].max()
        if gap > max(MIN_GAP, error):
            clear = clear or k
            # One pair has no two effects of its own.
            logged = _effects(logs, same, low) if not same or len(rest) > 2 else effects
            fall = (logged[rest].min() - logged[low].max()) * np.sqrt(1 - (error / gap) ** 2)
            if most * _chance(fall, np.ptp(logged[rest]), k, n) < alpha:
                apart = k
    return order[: apart or int(clear == 1)], apart > 0


def _chance(gap: float, spread: float, k: int, n: int) -> float:
    """Of so large a gap above the k lowest of n effects, given the spread of the rest.

    From the low end of an exponential tail the j-th gap is an exponential over j (Renyi 1953).
    """
    if gap <= 0 or spread <= 0:
        return float(gap <= 0)
    return float(np.prod([1 / (1 + k * gap / spread / j) for j in range(k + 1, n)]))


def _effects(table: np.ndarray, same: bool, low: Sequence[int] | np.ndarray = ()) -> np.ndarray:
    """Least squares a of table_ij = a_i + c_j over the known entries, the shortest solution.

    `low` rows have no part in it: their effect is what they have beyond c. NaN for a row that
    lacks more than half of what the fullest row has.
    """
    known = np.isfinite(table)
    rows, cols = (2 * count >= max(1, count.max()) for count in (known.sum(1), known.sum(0)))
    known &= rows[:, None] & cols
    fitted = known.copy()
    fitted[list(low)] = False
    if same:
        fitted[:, list(low)] = False
    scores, ones = np.where(fitted, table, 0.0), fitted.astype(float)
    normal = np.block([[np.diag(ones.sum(1)), ones], [ones.T, np.diag(ones.sum(0))]])
    normal += 1e-9 * np.eye(len(normal))  # of all solutions, the shortest
    both = np.linalg.solve(normal, np.concatenate([scores.sum(1), scores.sum(0)]))
    effects, partners = both[: len(table)], both[len(table) :]
    for i in low:
        others = known[i] & fitted.any(0)
        effects[i] = (table[i] - partners)[others].mean() if others.any() else np.nan
    return np.where(rows, effects, np.nan)


def _has_partner(table: np.ndarray, i: int, low: np.ndarray, *, square: bool = True) -> bool:
    """Whether some score of row i comes near to what the rows that are not `low` have."""
    others = np.delete(table, low, 0)
    level = _finite(np.delete(others, low, 1) if square else others)
    own = _finite(table[i])
    if not len(own) or not len(level):
        return True
    middle = np.median(own)
    return bool(own.max() >= middle + (level.mean() - middle) / 3)


def _means(table: np.ndarray, i: int, same: bool) -> tuple[float, float]:
    """Mean score of row i, and of all without it."""
    rest = np.delete(table, i, 0)
    others = _finite(np.delete(rest, i, 1) if same else rest)
    return float(_finite(table[i]).mean()), float(others.mean())


def _typical(errors: np.ndarray) -> np.ndarray:
    """Median of each row; 0 where nothing is known."""
    return np.array([np.median(known) if len(known := _finite(row)) else 0.0 for row in errors])


def _off_diagonal(table: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(table), dtype=bool), np.nan, table)


def _finite(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = values[np.isfinite(values)]
    return known
