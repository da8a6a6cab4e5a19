"""What happens in one forward pass: which modules run, in which order, and what comes out."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchinfo.layer_info import LayerInfo

from cka_widget.engine.errors import NoFeaturesError
from cka_widget.engine.models.layers import OUTPUT
from cka_widget.engine.outputs.features import values_of
from cka_widget.engine.outputs.output_types import main_tensor
from cka_widget.engine.outputs.probed import Call, Probe
from cka_widget.engine.outputs.ragged import padded
from cka_widget.engine.outputs.sample_axis import SampleAxis
from cka_widget.engine.restoring.hooks import Hooks


class _Output(NamedTuple):
    tensor: weakref.ref[Tensor]
    version: int
    name: str
    call: int


class Watch:
    """Hooks that note calls and shapes, and which outputs a container hands on untouched."""

    def __init__(self, root: nn.Module, names: Mapping[nn.Module, str]) -> None:
        self.root, self.names = root, names
        self.calls: dict[str, int] = {}
        self.shapes: dict[Call, tuple[int, ...]] = {}  # on this pass
        self.axes: dict[Call, int] = {}  # that has the samples, as far as the module tells
        self.reasons: dict[Call, str] = {}  # why there are no numbers
        self.firsts: list[Call] = []  # whose output no module had returned before
        self.aliases: dict[Call, str] = {}
        self.running: list[str] = []
        self._live: dict[int, list[_Output]] = {}
        self._hooks = Hooks()

    def __enter__(self) -> Watch:
        stores = (self.calls, self.shapes, self.axes, self.reasons, self.aliases, self._live)
        for store in (*stores, self.firsts, self.running):
            store.clear()
        for module in self.names:
            self._hooks.before(module, self._before)
            self._hooks.after(module, self._after)
        self._hooks.after(self.root, self._last)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.remove()
        self._live.clear()

    def _before(self, module: nn.Module, _args: Any) -> None:
        self.running.append(self.names[module])

    def _after(self, module: nn.Module, _args: Any, output: Any) -> None:
        name = self.names[module]
        self.running.pop()
        self.calls[name] = self.calls.get(name, 0) + 1
        call = name, self.calls[name]
        tensor = main_tensor(output)
        if tensor is not None:
            self.shapes[call] = tuple((padded(tensor) if tensor.is_nested else tensor).shape)
            time_first = getattr(module, "batch_first", True) is False and tensor.dim() == 3
            self.axes[call] = int(time_first)
        try:
            values_of(output)
        except NoFeaturesError as error:
            self.reasons[call] = str(error)
        if tensor is None:
            return
        same = self._same(tensor)
        if not same:
            self.firsts.append(call)
        for inner in same:
            if inner.name.startswith(f"{name}."):
                self.aliases[inner.name, inner.call] = name
        same.append(_Output(weakref.ref(tensor), tensor._version, *call))

    def _last(self, _module: nn.Module, _args: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor is not None and not self._same(tensor):
            self.firsts.append((OUTPUT, 1))

    def _same(self, tensor: Tensor) -> list[_Output]:
        """Earlier outputs that are this very tensor, unchanged since."""
        same = self._live.setdefault(id(tensor), [])
        # An id is reused once its tensor is gone, so the reference must still be alive.
        same[:] = [o for o in same if o.tensor() is tensor and o.version == tensor._version]
        return same

    # what it saw ----------------------------------------------------------------------------
    def facts(self, infos: Sequence[LayerInfo], found: Probe | None) -> dict[str, dict[str, Any]]:
        """Fields of `LayerNode` by name, as torchinfo counted them or, without it, as seen here."""
        counted: Counter[str] = Counter()
        params: dict[str, int] = {}
        for info in infos:
            name = self.names.get(info.module)
            if name is not None:
                counted[name] += 1
                params[name] = info.num_params
        facts: dict[str, dict[str, Any]] = {}
        for name, seen in self.calls.items():
            calls = [(name, call) for call in range(1, seen + 1)]
            facts[name] = {
                "calls": counted.get(name, seen),
                "output_shape": self._of_a_sample(calls[-1], found),
            }
            if name in params:
                facts[name]["n_params"] = params[name]
            outer = {self.aliases.get(call) for call in calls}
            if len(outer) == 1:
                facts[name]["alias_of"] = outer.pop()
            reasons = [self._reason(call, found) for call in calls]
            if all(reasons):
                facts[name]["why_not"] = reasons[0]
        return facts

    def distinct(self, found: Probe | None) -> int:
        """Number of outputs with rows that none before them was."""
        return sum(self._reason(call, found) is None for call in self.firsts)

    def _reason(self, call: Call, found: Probe | None) -> str | None:
        shown = found.shown.get(call) if found else None
        if shown is not None and shown.why_not is not None:
            return str(shown.why_not)
        return self.reasons.get(call)

    def _of_a_sample(self, call: Call, found: Probe | None) -> tuple[int, ...] | None:
        shape = self.shapes.get(call)
        if shape is None:
            return None
        shown = found.shown.get(call) if found else None
        if shown is not None and not shown.axes:
            return shape
        rows = shown.axes[0] if shown is not None else SampleAxis(self.axes[call])
        rest = shape[: rows.axis] + shape[rows.axis + 1 :]
        return (rows.outer * rows.inner, *rest) if rows.folded else rest
