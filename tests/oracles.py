"""Float64 reference for the engine: slow, literal, and sharing no line with it.

Every activation is cloned inside a forward hook before the next module can touch it, every number
is computed in float64 by the textbook definition, and nothing is centred, batched or reused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

OUTPUT = "(output)"


# kernels ------------------------------------------------------------------------------------------
def linear_gram(x: np.ndarray, centre: bool = True) -> np.ndarray:
    """K = X X^T of features (n, d), in float64.

    The mean is taken off first: no HSIC depends on it (a test holds that), and sums of squares of
    uncentred Grams lose three digits even in float64 where the mean is 1000 times the spread.
    """
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    x = x - x.mean(axis=0) if centre else x
    return x @ x.T


def distances(x: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, n) by explicit differences."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x])


def median_distance(x: np.ndarray) -> float:
    """Median of the distances between different rows; of two middle ones the lower."""
    d = distances(x)
    d = np.sort(d[np.triu_indices(len(d), 1)])
    return float(d[(len(d) - 1) // 2])


def rbf_gram(x: np.ndarray, sigma: float) -> np.ndarray:
    """K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2))."""
    return np.exp(-(distances(x) ** 2) / (2.0 * sigma**2))


# HSIC ---------------------------------------------------------------------------------------------
def hsic_u_statistic(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased HSIC as a U-statistic: the mean over all ordered 4-tuples of different samples.

    h(t, u, v, w) = K_tu (L_tu + L_vw - 2 L_tv)   (Gretton et al. 2005; Song et al. 2012, eq. 4)
    """
    total, count = 0.0, 0
    for t, u, v, w in itertools.permutations(range(len(k)), 4):
        total += k[t, u] * (m[t, u] + m[v, w] - 2.0 * m[t, v])
        count += 1
    return total / count


def hsic_song(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased HSIC in closed form (Song et al. 2012, eq. 5), with zeroed diagonals."""
    n = len(k)
    k, m = k.copy(), m.copy()
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(m, 0.0)
    one = np.ones(n)
    trace = np.einsum("ij,ji->", k, m)
    outer = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    cross = 2.0 * (one @ k @ m @ one) / (n - 2)
    return float((trace + outer - cross) / (n * (n - 3)))


def hsic_biased(k: np.ndarray, m: np.ndarray) -> float:
    """tr(K H L H) / (n - 1)^2 (Gretton et al. 2005)."""
    n = len(k)
    h = np.eye(n) - 1.0 / n
    return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)


# CKA ----------------------------------------------------------------------------------------------
def cka_of_sums(xy: float, xx: float, yy: float) -> float:
    """HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)); NaN where a self-HSIC is not positive."""
    return xy / float(np.sqrt(xx) * np.sqrt(yy)) if xx > 0 and yy > 0 else float("nan")


def weighted_sum(
    grams_x: Sequence[np.ndarray], grams_y: Sequence[np.ndarray], unbiased: bool = True
) -> float:
    """Sum over blocks of HSIC times the block's number of samples.

    Blocks of fewer than 4 samples (2 if biased) have no HSIC and are left out.
    """
    hsic, least = (hsic_song, 4) if unbiased else (hsic_biased, 2)
    pairs = zip(grams_x, grams_y, strict=True)
    return sum(len(k) * hsic(k, m) for k, m in pairs if len(k) >= least)


def minibatch_cka(
    grams_x: Sequence[np.ndarray], grams_y: Sequence[np.ndarray], unbiased: bool = True
) -> float:
    """Ratio of sums over blocks, each block's HSIC weighted by its number of samples.

    With blocks of equal size this is the minibatch CKA of Nguyen et al. 2021, eq. 2.
    """
    pairs = ((grams_x, grams_y), (grams_x, grams_x), (grams_y, grams_y))
    return cka_of_sums(*(weighted_sum(*pair, unbiased) for pair in pairs))


def delta_stderr(series: Sequence[np.ndarray], sizes: Sequence[int]) -> float:
    """Standard error of a mean of CKAs, from the per-block HSICs kept in full.

    The influence of block b on HSIC_xy / sqrt(HSIC_xx HSIC_yy) is its first-order Taylor term at
    the weighted means; `series` has one array (blocks, 3) of xy, xx, yy a pair.
    """
    n = np.asarray(sizes, dtype=np.float64)
    influence = np.zeros(len(n))
    for values in series:
        xy, xx, yy = values.T
        mean_xy, mean_xx, mean_yy = (n @ v / n.sum() for v in (xy, xx, yy))
        root = np.sqrt(mean_xx * mean_yy)
        slope = mean_xy / root / 2
        influence += (xy - mean_xy) / root
        influence -= slope * ((xx - mean_xx) / mean_xx + (yy - mean_yy) / mean_yy)
    influence /= len(series)
    b = len(n)
    return float(np.sqrt(b / (b - 1) * ((n * influence) ** 2).sum()) / n.sum())


def cka(x: np.ndarray, y: np.ndarray, unbiased: bool = True) -> float:
    """Linear CKA of two feature matrices, all samples in one block."""
    return minibatch_cka([linear_gram(x)], [linear_gram(y)], unbiased)


# models -------------------------------------------------------------------------------------------
def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of a nested output, in its own order."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        output = [getattr(output, f) for f in output.__dataclass_fields__]
    if isinstance(output, (list, tuple)):
        for part in output:
            if (tensor := first_tensor(part)) is not None:
                return tensor
    return None


def rows_flattened(tensor: torch.Tensor) -> np.ndarray:
    """A clone of the tensor as (n, d), upcast to float64 without rounding."""
    clone = tensor.detach().clone().to("cpu", torch.float64)
    return clone.reshape(clone.shape[0], -1).numpy()


class Reference:
    """Features of every call of every module of every particle, and the CKA of any two of them."""

    def __init__(self) -> None:
        self.features: dict[tuple[str, int, str], list[np.ndarray]] = {}
        self.particles: dict[str, int] = {}
        self._grams: dict[Any, list[np.ndarray]] = {}
        self._sums: dict[Any, float] = {}
        self._constant: dict[Any, bool] = {}

    def labels(self, model: str, particle: int = 0) -> list[str]:
        return [label for m, p, label in self.features if (m, p) == (model, particle)]

    def grams(
        self, key: tuple[str, int, str], block: int | None, gram: Any = linear_gram
    ) -> list[np.ndarray]:
        cached = (*key, block, gram)
        if cached not in self._grams:
            parts = [p for x in self.features[key] for p in (blocks(x, block) if block else [x])]
            self._grams[cached] = [gram(part) for part in parts]
        return self._grams[cached]

    def pair(
        self,
        a: tuple[str, int, str],
        b: tuple[str, int, str],
        block: int | None = None,
        unbiased: bool = True,
        gram: Any = linear_gram,
    ) -> float:
        """CKA of two rows, of one particle each."""
        if self.constant(a) or self.constant(b):
            return float("nan")
        options = (block, unbiased, gram)
        return cka_of_sums(*(self._sum(*p, *options) for p in ((a, b), (a, a), (b, b))))

    def blocks_of(self, a: Any, b: Any, block: int | None = None) -> np.ndarray:
        """Unbiased HSICs xy, xx, yy of every block (blocks, 3)."""
        pairs = [
            [
                hsic_song(p, q)
                for p, q in zip(self.grams(i, block), self.grams(j, block), strict=True)
            ]
            for i, j in ((a, b), (a, a), (b, b))
        ]
        return np.array(pairs).T

    def _sum(self, a: Any, b: Any, block: Any, unbiased: bool, gram: Any) -> float:
        key = (*sorted((a, b)), block, unbiased, gram)
        if key not in self._sums:
            x, y = self.grams(a, block, gram), self.grams(b, block, gram)
            self._sums[key] = weighted_sum(x, y, unbiased)
        return self._sums[key]

    def cell(self, row: tuple[str, str], col: tuple[str, str], **options: Any) -> float:
        """Mean over particle pairs; over different particles within one ensemble."""
        (a, i), (b, j) = row, col
        pairs = itertools.product(range(self.particles[a]), range(self.particles[b]))
        if a == b and self.particles[a] > 1:
            pairs = itertools.permutations(range(self.particles[a]), 2)
        values = [self.pair((a, p, i), (b, q, j), **options) for p, q in pairs]
        return float(np.mean(values))

    def matrix(
        self, a: str, b: str, rows: Sequence[str], cols: Sequence[str], **options: Any
    ) -> np.ndarray:
        return np.array([[self.cell((a, i), (b, j), **options) for j in cols] for i in rows])

    def constant(self, key: tuple[str, int, str]) -> bool:
        if key not in self._constant:
            self._constant[key] = all(bool((x == x[:1]).all()) for x in self.features[key])
        return self._constant[key]

    def same_output(self, model: str, i: str, j: str) -> bool:
        x, y = self.features[(model, 0, i)], self.features[(model, 0, j)]
        return len(x) == len(y) and all(map(np.array_equal, x, y))


def blocks(x: np.ndarray, size: int) -> list[np.ndarray]:
    """Near-equal blocks of at most `size` rows, in order, none left out, the larger first."""
    return np.array_split(x, max(1, min(-(-len(x) // size), len(x) // 4)))


def reference_compare(
    models: Mapping[str, Any],
    batches: Iterable[Any],
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    call: Callable[[nn.Module, Any], Any] = lambda model, batch: model(batch),
    rows: Callable[[torch.Tensor], np.ndarray] = rows_flattened,
    pick: Callable[[Any], torch.Tensor | None] = first_tensor,
) -> Reference:
    """Run every particle over the batches with cloning hooks on every (or every chosen) module.

    A module called once is labelled by its name, one called k times by `name#1` .. `name#k`, the
    root by `(output)`. Models run as they stand, but in eval mode and without gradients.
    """
    reference = Reference()
    batches = list(batches)
    for model_name, ensemble in models.items():
        chosen = None if names is None else set(names[model_name])
        particles = list(ensemble) if isinstance(ensemble, (list, tuple)) else [ensemble]
        reference.particles[model_name] = len(particles)
        for index, particle in enumerate(particles):
            found = _record(particle, batches, call, rows, pick)
            for label, parts in found.items():
                if chosen is None or label in chosen:
                    reference.features[(model_name, index, label)] = parts
    return reference


def _record(
    model: nn.Module, batches: Sequence[Any], call: Any, rows: Any, pick: Any
) -> dict[str, list[np.ndarray]]:
    calls: dict[str, list[list[np.ndarray]]] = {}
    order: list[tuple[str, int]] = []
    flags = [(module, module.training) for module in model.modules()]
    handles = []
    count: dict[str, int] = {}
    for name, module in model.named_modules():

        def hook(_m: nn.Module, _a: Any, output: Any, name: str = name or OUTPUT) -> None:
            tensor = pick(output)
            if tensor is None:
                return
            nth = count[name] = count.get(name, 0) + 1
            series = calls.setdefault(name, [])
            if len(series) < nth:
                series.append([])
                order.append((name, nth))
            series[nth - 1].append(rows(tensor))

        handles.append(module.register_forward_hook(hook))
    try:
        model.eval()
        for batch in batches:
            count.clear()
            with torch.no_grad():
                call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in flags:
            module.training = training
    return {
        name if len(calls[name]) == 1 else f"{name}#{nth}": calls[name][nth - 1]
        for name, nth in order
    }
