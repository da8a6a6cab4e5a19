"""Where particles lie by their scores: on a plane, and in order. Arrays only."""

from __future__ import annotations

import numpy as np


def angular_distance(scores: np.ndarray) -> np.ndarray:
    """Arccos of the CKA matrix (radians, 0 to pi): a proper metric between Gram matrices.

    Source: Williams et al. 2021, "Generalized Shape Metrics on Neural Representations", sec. 2.
    """
    angles: np.ndarray = np.arccos(np.clip(np.asarray(scores, float), -1.0, 1.0))
    return angles


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
