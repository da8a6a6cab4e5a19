"""The matrix in float64, from clones taken in the hook: slow, literal, nothing shared with us."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from workloads import Workload


def grams(
    root: nn.Module, names: list[str], batch: Tensor, size: int | None
) -> dict[str, list[np.ndarray]]:
    """Float64 Grams, a block each, of every module's output, of those that run just once."""
    found: dict[str, list[list[np.ndarray]]] = {}
    handles = []
    wanted = set(names)
    for name, module in root.named_modules():
        if name in wanted:

            def hook(_m: nn.Module, _a: object, out: Tensor, name: str = name) -> None:
                clone = out.detach().clone().flatten(1).double()
                # HSIC does not depend on the mean, and float64 sums keep their digits without.
                clone -= clone.mean(0)
                parts = (clone[block] for block in _cut(len(batch), size))
                found.setdefault(name, []).append([(x @ x.T).cpu().numpy() for x in parts])

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            root(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: calls[0] for name, calls in found.items() if len(calls) == 1}


def u_centred(gram: np.ndarray) -> np.ndarray:
    """U(K): K without its diagonal, less row and column means, so that HSIC = <U(K), U(L)>."""
    n = len(gram)
    k = gram - np.diag(np.diag(gram))
    rows = k.sum(1) / (n - 2)
    k = k - rows[:, None] - rows[None] + k.sum() / ((n - 1) * (n - 2))
    return k - np.diag(np.diag(k))


def _cut(n: int, size: int | None) -> list[np.ndarray]:
    return np.array_split(np.arange(n), 1 if size is None else max(1, -(-n // size)))


def _rows(
    root: nn.Module, names: list[str], batch: Tensor, size: int | None
) -> tuple[list[str], list[np.ndarray]]:
    """Names, and per block U-centred Grams side by side (rows, m * m)."""
    found = grams(root, names, batch, size)
    blocks = zip(*found.values(), strict=True)
    return list(found), [np.stack([u_centred(k).ravel() for k in block]) for block in blocks]


def matrix(workload: Workload, batches: list[Tensor], size: int | None = None) -> pd.DataFrame:
    """CKA of the first model's layers with the last one's (of different particles: the mean).

    CKA = sum HSIC(K, L) / sqrt(sum HSIC(K, K) sum HSIC(L, L)) over blocks of `size` samples.
    """
    roots = workload.roots
    cross: dict[tuple[int, int], np.ndarray] = {}
    labels: list[list[str]] = [[] for _ in roots]
    for batch in batches:
        stacks = []
        for i, root in enumerate(roots):
            labels[i], stack = _rows(root, workload.names(root), batch, size)
            stacks.append(stack)
        for i, a in enumerate(stacks):
            for j, b in enumerate(stacks):
                for x, y in zip(a, b, strict=True):
                    m = np.sqrt(x.shape[1])
                    cross[i, j] = cross.get((i, j), 0.0) + m * (x @ y.T) / (m * (m - 3))

    def cka(i: int, j: int) -> np.ndarray:
        own = np.outer(np.diag(cross[i, i]), np.diag(cross[j, j]))
        return cross[i, j] / np.sqrt(own)

    if workload.ensemble:
        pairs = [(i, j) for i in range(len(roots)) for j in range(len(roots)) if i != j]
        return pd.DataFrame(np.mean([cka(i, j) for i, j in pairs], axis=0), labels[0], labels[0])
    last = len(roots) - 1
    return pd.DataFrame(cka(0, last), labels[0], labels[last])


def largest_error(found: pd.DataFrame, truth: pd.DataFrame) -> tuple[float, float]:
    """Largest error over the cells that both have, and the share of them off by over 0.01."""
    rows = [name for name in found.index if name in truth.index]
    cols = [name for name in found.columns if name in truth.columns]
    gap = np.abs(found.loc[rows, cols].to_numpy() - truth.loc[rows, cols].to_numpy())
    return float(np.max(gap)), float(np.mean(~(gap <= 0.01)))
