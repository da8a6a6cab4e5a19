"""How `torch_cka` runs the engine: every module a row, in running order, batches counting alike."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from cka_widget.engine.calls.calls import AsUsual
from cka_widget.engine.compare import iter_compare
from cka_widget.engine.errors import CKAWarning
from cka_widget.engine.interrupts import Shield
from cka_widget.engine.models.layers import OUTPUT, named_layers, unwrap
from cka_widget.engine.restoring.hooks import Hooks
from cka_widget.result.result import CKAResult
from cka_widget.result.row_index import ModelRows
from cka_widget.result.sums import HsicSums

Names = Sequence[str] | None

# Of the number of samples by which a block is weighted in each sum.
_POWERS = {"h": 1, "d": 1, "hh": 2, "hd": 2, "dd": 2, "chance2": 2, "chance4": 4, "moments": 0}


class _Order(AsUsual):
    """A `forward` that notes, on each model's first batch, the order in which modules return."""

    def __init__(self) -> None:
        self._returned: dict[nn.Module, list[str]] = {}

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        if model in self._returned:
            return super().__call__(model, batch)
        returned = self._returned[model] = []
        hooks = Hooks()
        try:
            for name, module in named_layers(model).items():
                hooks.after(module, lambda *_, name=name: returned.append(name))
            return super().__call__(model, batch)
        finally:
            hooks.remove()

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
        if now is None or not n:
            return
        before = before and before.in_unit(now.unit)
        fields = {
            name: (getattr(now, name) - (getattr(before, name) if before else 0.0)) / n**power
            for name, power in _POWERS.items()
        }
        block = HsicSums(1.0, 1, **fields, unit=now.unit)
        self.sums = block if self.sums is None else self.sums.merge(block)


class Run:
    """One comparison, which `drain` works off.

    Attributes:
        result: every batch counting alike; of a run that failed or was interrupted, what its
            finished batches gave; None while there is none.
        labels: for every model the labels of its rows in the order they ran.
    """

    def __init__(
        self, models: Mapping[str, Any], layers: Sequence[Names], loader: Any, **options: Any
    ) -> None:
        """Arguments as of `iter_compare`, but one list of names or None a model for `layers`."""
        self.result: CKAResult | None = None
        self.labels: dict[str, list[str]] = {}
        self._models, self._loader = models, loader
        self._chosen = {
            key: None if names is None else [name or OUTPUT for name in names]
            for key, names in zip(models, layers, strict=True)
        }
        self._options = {"layers": self._chosen, **options}
        self._equal, self._pooled = _EqualBatches(), _EqualBatches()
        self._running: CKAResult | None = None  # the engine's, batches weighted by samples
        self._order = _Order()

    def drain(self) -> None:
        """Run to the end, and warn of what would mislead where the script calls `compare`.

        Raises:
            CompareError, KeyboardInterrupt: with `result`, the partial result.
        """
        run = iter_compare(self._models, self._loader, forward=self._order, **self._options)
        try:
            bar = tqdm(desc="Comparing features", unit=" batches")
            with Shield() as shield, closing(run), bar:
                while True:
                    with shield.opened():
                        snapshot = next(run, None)
                    if snapshot is None:
                        break
                    self._take(snapshot.result)
                    bar.total = snapshot.total_batches
                    bar.update(snapshot.batches - bar.n)
        except BaseException as error:
            self._take(getattr(error, "result", None))
            self._finish()
            if self.result is not None:
                error.result = self.result  # type: ignore[attr-defined]
            raise
        finally:
            run.close()
        self._finish()
        if self.result is not None:
            _warn(self.result)

    def _take(self, running: CKAResult | None) -> None:
        """The engine's result after one more batch, or the same once more."""
        if running is None:
            return
        self._equal.add(running.sums)
        self._pooled.add(running.pooled)
        self._running = running

    def _finish(self) -> None:
        running = self._running
        if running is None:
            return
        self.result = replace(
            running,
            sums=self._equal.sums or running.sums,
            pooled=self._pooled.sums or running.pooled,
            provenance={
                **running.provenance,
                "batch_weights": "equal",
                "datasets": {key: _dataset(one) for key, one in self._loaders().items()},
            },
        )
        self.labels = {rows.name: self._ran(rows) for rows in running.rows}

    def _loaders(self) -> dict[str, Any]:
        one_each = isinstance(self._loader, Mapping)
        return {key: self._loader[key] if one_each else self._loader for key in self._models}

    def _ran(self, rows: ModelRows) -> list[str]:
        model = self._models[rows.name]
        first = model[0] if isinstance(model, list) else model
        every = rows.layers if self._chosen[rows.name] else (*rows.layers, *rows.aliases)
        return self._order.sort(first, every)


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
