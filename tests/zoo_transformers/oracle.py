"""Which outputs of a network hold samples, and their CKA, sharing no code with the engine.

The samples of a batch are also run one by one. An output is a row of samples where what the samples
give alone, put together, is what the batch gives: no axis is guessed from its length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Call = tuple[nn.Module, int]  # a module, and which of its calls in a pass, from 1
Row = list[np.ndarray]  # features (n, d) of every batch

# A sample alone and in its batch may differ by this fraction of the output's largest number: sums
# of other lengths round otherwise. Denormal numbers have few digits.
_CLOSE, _SMALLEST = 1e-4, 1e-36


class Fold(NamedTuple):
    """Where the samples are: along `axis`, whose entries count as (outer, n, inner)."""

    axis: int
    outer: int = 1
    inner: int = 1

    def features(self, x: Tensor, n: int) -> np.ndarray:
        x = x.double().unflatten(self.axis, (self.outer, n, self.inner))
        return x.movedim(self.axis + 1, 0).reshape(n, -1).numpy()


def outputs(
    model: nn.Module, batches: Sequence[Mapping[str, Tensor]]
) -> tuple[dict[Call, Row], set[Call]]:
    """The calls whose outputs hold something for each sample, and the others.

    Proved on the smallest batch, read from all.
    """
    runs = [(_size(batch), _run(model, batch)) for batch in batches]
    n, whole = min(runs, key=lambda run: run[0])
    batch = next(batch for batch in batches if _size(batch) == n)
    alone = [_run(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(n)]
    rows: dict[Call, Row] = {}
    for call, x in whole.items():
        singles = [run[call] for run in alone if call in run]
        fold = _fold(x, singles) if len(singles) == n and x.is_floating_point() else None
        if fold is not None:
            rows[call] = [fold.features(run[call], n) for n, run in runs]
    return rows, whole.keys() - rows.keys()


def _size(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


def _fold(whole: Tensor, alone: list[Tensor]) -> Fold | None:
    """How the output of a batch is what its samples give alone, or None."""
    n, shape = len(alone), alone[0].shape
    if not whole.numel() or any(x.shape != shape for x in alone):
        return None
    expected = torch.stack(alone).double().reshape(n, -1).numpy()
    if whole.shape == (n, n) and shape == (1, 1):  # similarities of the samples
        return Fold(0) if _close(whole.double().diagonal()[:, None].numpy(), expected) else None
    for axis, (length, k) in enumerate(zip(whole.shape, shape, strict=False)):
        if length != n * k or whole.shape != (*shape[:axis], length, *shape[axis + 1 :]):
            continue
        for outer in (i for i in range(1, k + 1) if k % i == 0):
            fold = Fold(axis, outer, k // outer)
            if _close(fold.features(whole, n), expected):
                return fold
    return None


def _close(x: np.ndarray, expected: np.ndarray) -> bool:
    x, expected = np.nan_to_num(x), np.nan_to_num(expected)
    return bool(np.abs(x - expected).max() <= _CLOSE * np.abs(expected).max() + _SMALLEST)


def _run(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[Call, Tensor]:
    """A clone of the main tensor of every call, taken before the next module runs."""
    found: dict[Call, Tensor] = {}
    calls: Counter[nn.Module] = Counter()

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        calls[module] += 1
        if (tensor := main_tensor(output)) is not None:
            found[module, calls[module]] = tensor.detach().clone()

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return found


def main_tensor(output: Any) -> Tensor | None:
    """The last hidden state, the logits, or else the first tensor."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = [output.get("last_hidden_state"), output.get("logits"), *output.values()]
    if isinstance(output, (list, tuple)):
        return next((t for t in map(main_tensor, output) if t is not None), None)
    return None


def spread(row: Row) -> float:
    """Largest difference of two samples of a batch, as a fraction of the largest number."""
    largest = max(np.abs(x).max() for x in row)
    return float(max(np.abs(x - x[0]).max() for x in row) / max(largest, _SMALLEST))


def cka(rows: Sequence[Row]) -> np.ndarray:
    """Unbiased CKA of every two rows: each batch a block, weighted by its number of samples."""
    total = np.zeros((len(rows), len(rows)))
    # A row's scale is no part of its CKA, and fourth powers of small numbers underflow.
    scales = [max(np.abs(x - x.mean(axis=0)).max() for x in row) or 1.0 for row in rows]
    for block in zip(*rows, strict=True):
        n = len(block[0])
        grams = [_u_centred((x - x.mean(axis=0)) / s) for x, s in zip(block, scales, strict=True)]
        vectors = np.stack(grams).reshape(len(rows), n * n)
        total += vectors @ vectors.T / (n - 3)  # n times HSIC is the product / (n - 3)
    norms = np.sqrt(np.diag(total))
    with np.errstate(invalid="ignore"):  # constant rows
        return total / np.outer(norms, norms)


def _u_centred(x: np.ndarray) -> np.ndarray:
    """Gram matrix of features (n, d), U-centred (Szekely and Rizzo 2014)."""
    gram = x @ x.T
    np.fill_diagonal(gram, 0.0)
    n, sums = len(gram), gram.sum(axis=0)
    gram += sums.sum() / ((n - 1) * (n - 2)) - (sums + sums[:, None]) / (n - 2)
    np.fill_diagonal(gram, 0.0)
    return gram
