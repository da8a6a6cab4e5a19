"""How `torch_cka` runs the engine: every module a row, in running order, batches counting alike."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from cka_widget.engine.batches import run_model
from cka_widget.engine.compare import iter_compare
from cka_widget.engine.errors import CKAWarning
from cka_widget.engine.layers import OUTPUT, named_layers, unwrap
from cka_widget.engine.result import CKAResult
from cka_widget.engine.sums import HsicSums

Names = Sequence[str] | None

# Of the number of samples by which a block is weighted in each sum.
_POWERS = {"h": 1, "d": 1, "hh": 2, "hd": 2, "dd": 2, "moments": 0}


class _Order:
    """A `forward` that notes, on each model's first batch, the order in which modules return."""

    def __init__(self) -> None:
        self._returned: dict[nn.Module, list[str]] = {}

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        if model in self._returned:
            return run_model(model, batch, None)
        returned = self._returned[model] = []
        handles = [
            module.register_forward_hook(lambda *_, name=name: returned.append(name))
            for name, module in named_layers(model).items()
        ]
        try:
            return run_model(model, batch, None)
        finally:
            for handle in handles:
                handle.remove()

    def sort(self, model: nn.Module, labels: Iterable[str]) -> list[str]:
        """The labels in that order, those that never ran last."""
        returned = self._returned.get(unwrap(model), [])
        often, calls, ran = Counter(returned), Counter[str](), []
        for name in returned:
            calls[name] += 1
            ran.append(name if often[name] == 1 else f"{name}#{calls[name]}")
        known = dict.fromkeys(labels)
        return [s for s in ran if s in known] + [s for s in known if s not in set(ran)]


class _EqualBatches:
    """HSIC sums in which every batch counts alike whatever its size, as in torch_cka."""

    def __init__(self) -> None:
        self.sums: HsicSums | None = None
        self._before: HsicSums | None = None

    def add(self, now: HsicSums | None) -> None:
        """Take the running sums after each batch, which is one block of n samples."""
        before, self._before = self._before, now
        n = now.weight - (before.weight if before else 0.0) if now else 0.0
        if not n:
            return
        fields = {
            name: (getattr(now, name) - (getattr(before, name) if before else 0.0)) / n**power
            for name, power in _POWERS.items()
        }
        block = HsicSums(1.0, 1, **fields)
        self.sums = block if self.sums is None else self.sums.merge(block)


def run_all(
    models: Mapping[str, Any], layers: Sequence[Names], loader: Any, **options: Any
) -> tuple[CKAResult, dict[str, list[str]]]:
    """The result, and for every model the labels of its rows in the order they ran."""
    chosen = {
        key: None if names is None else [name or OUTPUT for name in names]
        for key, names in zip(models, layers, strict=True)
    }
    order, equal, pooled = _Order(), _EqualBatches(), _EqualBatches()
    with tqdm(desc="Comparing features", unit=" batches") as bar:
        for snapshot in iter_compare(models, loader, layers=chosen, forward=order, **options):
            bar.total = snapshot.total_batches
            bar.update(snapshot.batches - bar.n)
            result = snapshot.result
            equal.add(result.sums)
            pooled.add(result.pooled)
    loaders = loader if isinstance(loader, Mapping) else dict.fromkeys(models, loader)
    provenance = {
        **result.provenance,
        "batch_weights": "equal",
        "datasets": {key: _dataset(loaders[key]) for key in models},
    }
    result = replace(
        result,
        sums=equal.sums or result.sums,
        pooled=pooled.sums or result.pooled,
        provenance=provenance,
    )
    labels = {}
    for rows in result.rows:
        model = models[rows.name]
        first = model[0] if isinstance(model, list) else model
        every = rows.layers if chosen[rows.name] else (*rows.layers, *rows.aliases)
        labels[rows.name] = order.sort(first, every)
    _warn(result)
    return result, labels


def _warn(result: CKAResult) -> None:
    undefined = [
        f'Model "{model}": layer "{layer}" is undefined (NaN): {reason}.'
        for model in result.models
        for layer, reason in zip(result.layers(model), result.reasons(model), strict=True)
        if reason
    ]
    for sentence in (*result.warnings, *undefined):
        warnings.warn(sentence, CKAWarning, stacklevel=4)  # where the script calls compare()


def _dataset(loader: Any) -> str:
    data = getattr(loader, "dataset", None)
    return type(loader).__name__ if data is None else repr(data).split("\n")[0]
