"""What the scores between particles say: who differs, in which order, on which map. Arrays only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MIN_GAP = 0.1
"""Smallest fall of a particle's score that is worth a word."""

MIN_SPREADS = 4.0
"""How many robust standard deviations of the others' scores a particle has to lie below them."""


class OddOne(NamedTuple):
    """A particle that agrees with its partners less than the other particles do."""

    axis: str
    """"row" or "col" of the score matrix."""
    particle: int
    score: float
    """Mean score of its own pairs."""
    others: float
    """Mean score of the pairs without it."""


def pair_mask(shape: tuple[int, int], same: bool) -> np.ndarray:
    """Which entries are pairs: all, or those above the diagonal when both axes are `same`."""
    return np.triu(np.ones(shape, bool), 1) if same else np.ones(shape, bool)


def odd_ones_out(
    scores: np.ndarray, *, same: bool = False, stderr: np.ndarray | None = None
) -> list[OddOne]:
    r"""Particles whose pairs score clearly lower than all pairs without them.

    Particle i of an axis with at least three is odd when, with S its own pair scores and O the
    pair scores without it,

        median(O) - median(S) > max(0.1, 4 * 1.4826 * MAD(O), 3 * median stderr of S),

    and the upper quartile of S lies below the lower quartile of O. Medians keep one odd particle
    from hiding behind the fall that it causes in everybody else's mean; MAD(O) is large when the
    others disagree too, so two clusters or plain noise raise no alarm.

    Args:
        scores: (rows, cols) particle x particle CKA; NaN where undefined.
        same: both axes are the same particles (the diagonal is no pair).
        stderr: standard errors, same shape.

    Returns:
        The odd particles, the furthest first; empty when all agree.
    """
    scores = np.asarray(scores, float)
    found: list[tuple[float, OddOne]] = []
    for axis, length in enumerate(scores.shape[:1] if same else scores.shape):
        if length < 3:
            continue
        for index in range(length):
            own = np.delete(scores[index], index) if same else np.take(scores, index, axis)
            rest = np.delete(scores, index, axis)
            rest = (
                np.delete(rest, index, 1)[pair_mask((length - 1, length - 1), True)]
                if same
                else rest.ravel()
            )
            own, rest = own[np.isfinite(own)], rest[np.isfinite(rest)]
            if not own.size or not rest.size:
                continue
            centre = np.median(rest)
            gap = centre - np.median(own)
            if gap <= MIN_GAP:  # as nearly always: the rest need not be worked out
                continue
            spread = 1.4826 * np.median(np.abs(rest - centre))
            error = _median_error(stderr, index, axis, same)
            clear = np.quantile(own, 0.75) < np.quantile(rest, 0.25)
            if clear and gap > max(MIN_SPREADS * spread, 3 * error):
                odd = OddOne("row" if axis == 0 else "col", index, own.mean(), rest.mean())
                found.append((gap, odd))
    return [odd for _, odd in sorted(found, key=lambda item: -item[0])]


def _median_error(stderr: np.ndarray | None, index: int, axis: int, same: bool) -> float:
    if stderr is None:
        return 0.0
    own = np.take(np.asarray(stderr, float), index, axis)
    own = np.delete(own, index) if same else own
    own = own[np.isfinite(own)]
    return float(np.median(own)) if own.size else 0.0


def angular_distance(scores: np.ndarray) -> np.ndarray:
    """Arccos of the CKA matrix (radians, 0 to pi): a proper metric between Gram matrices.

    Source: Williams et al. 2021, "Generalized Shape Metrics on Neural Representations", sec. 2.
    """
    return np.arccos(np.clip(np.asarray(scores, float), -1.0, 1.0))


def classical_mds(distance: np.ndarray, dims: int = 2) -> tuple[np.ndarray, float]:
    """Points whose Euclidean distances come nearest to `distance` (Torgerson 1952).

    Double-centres -d^2/2 and scales its leading eigenvectors. The sign of each axis is fixed by
    its largest component, so that a map does not flip from one update to the next.

    Args:
        distance: (n, n) symmetric; a particle with an undefined distance is left out.
        dims: number of coordinates.

    Returns:
        (n, dims) coordinates, NaN for the particles left out, and the share (0 to 1) of the
        squared distances that these coordinates hold.
    """
    distance = np.asarray(distance, float)
    coords = np.full((len(distance), dims), np.nan)
    known = _fully_known(distance)
    d2 = distance[np.ix_(known, known)] ** 2
    if len(d2) < 2:
        coords[known] = 0.0
        return coords, 1.0
    gram = -0.5 * (d2 - d2.mean(0) - d2.mean(1)[:, None] + d2.mean())
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    top = np.clip(values[:dims], 0, None)
    points = vectors[:, :dims] * np.sqrt(top)
    flip = np.sign(points[np.abs(points).argmax(0), np.arange(points.shape[1])])
    points = points * np.where(flip == 0, 1, flip)
    coords[np.flatnonzero(known)[:, None], np.arange(points.shape[1])] = points
    coords[np.flatnonzero(known)[:, None], np.arange(points.shape[1], dims)] = 0.0
    total = np.abs(values).sum()
    return coords, float(top.sum() / total) if total > 0 else 1.0


def _fully_known(distance: np.ndarray) -> np.ndarray:
    """Largest greedy choice of particles among which every distance is finite."""
    known = np.ones(len(distance), bool)
    while True:
        missing = ~np.isfinite(distance[np.ix_(known, known)])
        if not missing.any():
            return known
        known[np.flatnonzero(known)[missing.sum(1).argmax()]] = False


def similarity_order(scores: np.ndarray, *, same: bool = False) -> tuple[list[int], list[int]]:
    """Orders of rows and columns that put particles with like scores side by side.

    Each axis is sorted along the first principal coordinate of its score profiles, the end with
    the higher scores first; undefined particles come last. With `same` both axes share one order.
    """
    scores = np.asarray(scores, float).copy()
    if same:
        np.fill_diagonal(scores, 1.0)
        order = _profile_order(scores)
        return order, order
    return _profile_order(scores), _profile_order(scores.T)


def _profile_order(profiles: np.ndarray) -> list[int]:
    finite = np.isfinite(profiles)
    known = finite.any(1)
    means = np.where(finite, profiles, 0).sum(1) / np.maximum(finite.sum(1), 1)
    filled = np.where(finite, profiles, means[:, None])
    distance = np.sqrt(((filled[:, None] - filled[None]) ** 2).sum(-1))
    position = classical_mds(distance, 1)[0][:, 0]
    if (position * (means - means.mean())).sum() > 0:
        position = -position
    return sorted(
        range(len(profiles)), key=lambda i: (not known[i], round(float(position[i]), 9), i)
    )
