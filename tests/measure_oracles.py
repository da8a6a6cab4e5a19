"""Every measure of one block by its definition, in float64, and of blocks as a ratio of sums.

Written with scipy and loops over samples; shares no code, no centring trick and no Gram with the
package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from oracles import distances, hsic_song, linear_gram, rbf_gram
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

# What two layers' features of one block, and the classes of its samples, add to h_ij.
Inner = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def by_ratio(
    inner: Inner, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray], classes: Sequence[np.ndarray]
) -> float:
    """sum h(x, y) / sqrt(sum h(x, x) sum h(y, y)), blocks weighted by their samples."""

    def total(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
        return sum(len(p) * inner(p, q, c) for p, q, c in zip(a, b, classes, strict=True))

    return total(xs, ys) / np.sqrt(total(xs, xs) * total(ys, ys))


def cka(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    return hsic_song(linear_gram(x), linear_gram(y))


def biased_cka(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    k, m = (linear_gram(z) for z in (x, y))
    h = np.eye(len(x)) - 1 / len(x)
    return float(np.trace(k @ h @ m @ h)) / (len(x) - 1) ** 2


def rbf(sigma: float) -> Inner:
    """Of features that are scaled to one median distance."""

    def inner(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
        return hsic_song(rbf_gram(x, sigma), rbf_gram(y, sigma))

    return inner


def distance_correlation(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    """The unbiased HSIC of the kernel -|x_i - x_j|, as Sejdinovic et al. (2013) show."""
    return hsic_song(-distances(x), -distances(y))


def rsa(distance: str, compare: str) -> Inner:
    def inner(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
        p, q = pdist(x, distance), pdist(y, distance)
        if compare == "spearman":
            p, q = rankdata(p) / len(p), rankdata(q) / len(q)
        return float(np.cov(p, q, bias=True)[0, 1])

    return inner


def mutual_knn(k: int, distance: str) -> Inner:
    def neighbours(x: np.ndarray) -> list[set[int]]:
        far = squareform(pdist(x, distance))
        np.fill_diagonal(far, np.inf)
        return [set(np.argsort(row)[:k].tolist()) for row in far]

    def inner(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
        pairs = zip(neighbours(x), neighbours(y), strict=True)
        return float(np.mean([len(a & b) / k for a, b in pairs]))

    return inner


def corrected_knn(k: int, distance: str) -> Inner:
    share = mutual_knn(k, distance)

    def inner(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
        chance = k / (len(x) - 1)
        return (share(x, y, classes) - chance) / (1 - chance)

    return inner


def within_class(x: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    """The mean over samples of the unbiased HSIC of each one's class; 0 of classes below 4."""
    found = 0.0
    for one in set(classes.tolist()):
        at = classes == one
        if at.sum() >= 4:
            found += at.sum() * hsic_song(linear_gram(x[at]), linear_gram(y[at]))
    return found / len(x)


def scaled(parts: list[np.ndarray], first: int, bandwidth: float) -> list[np.ndarray]:
    """Blocks over `bandwidth` times the median distance within the first of them."""
    apart = np.sort(np.concatenate([pdist(part) for part in parts[:first]]))
    median = apart[(len(apart) - 1) // 2]  # of an even number the lower one
    return [part / (bandwidth * median) for part in parts]
