"""Which outputs of a network are rows of samples, and their CKA, sharing no code with the engine.

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


class Unfolding(NamedTuple):
    """Samples are axis `axis` after each of its n k steps is told apart as `sizes`, -1 being n."""

    split: int
    sizes: tuple[int, int]
    axis: int

    def features(self, x: Tensor, n: int) -> np.ndarray:
        sizes = [n if size == -1 else size for size in self.sizes]
        x = x.double().unflatten(self.split, sizes).movedim(self.axis, 0)
        return x.reshape(n, -1).numpy()


class Outputs(NamedTuple):
    """What the calls of a model are: rows of samples; outputs that mix all samples of a batch, as
    similarities (n, n) do; no rows."""

    rows: dict[Call, Row]
    mixed: set[Call]
    others: set[Call]


def outputs(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Outputs:
    """Proved on the smallest batch, and read from all."""
    runs = [(_size(batch), _run(model, batch)) for batch in batches]
    n, whole = min(runs, key=lambda run: run[0])
    batch = next(batch for batch in batches if _size(batch) == n)
    alone = [_run(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(n)]
    found = Outputs({}, set(), set())
    for call, x in whole.items():
        singles = [run[call] for run in alone if call in run]
        unfolding = _unfolding(x, singles) if len(singles) == n else None
        if unfolding is not None:
            found.rows[call] = [unfolding.features(run[call], n) for n, run in runs]
        elif singles and x.shape == (n, n) and singles[0].shape == (1, 1):
            found.mixed.add(call)
        else:
            found.others.add(call)
    return found


def _size(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


def _unfolding(whole: Tensor, alone: list[Tensor]) -> Unfolding | None:
    """How the output of a batch is unfolded to what its samples give alone, or None."""
    if not whole.is_floating_point() or len({x.shape for x in alone}) != 1:
        return None
    n, shape = len(alone), alone[0].shape
    expected = torch.stack(alone).double().reshape(n, -1).numpy()
    for axis, (length, k) in enumerate(zip(whole.shape, shape, strict=False)):
        others = (*whole.shape[:axis], *whole.shape[axis + 1 :])
        if length != n * k or others != (*shape[:axis], *shape[axis + 1 :]) or not whole.numel():
            continue
        for unfolding in (Unfolding(axis, (-1, k), axis), Unfolding(axis, (k, -1), axis + 1)):
            difference = np.abs(np.nan_to_num(unfolding.features(whole, n) - expected))
            if difference.max() <= _CLOSE * np.abs(np.nan_to_num(expected)).max() + _SMALLEST:
                return unfolding
    return None


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
