"""Which modules of a model run, how often, and what comes out."""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchinfo import torchinfo
from torchinfo.enums import Mode
from torchinfo.layer_info import LayerInfo

from cka_widget.engine.batches import head, to_device
from cka_widget.engine.call_words import missing_sentence
from cka_widget.engine.calls import Forward, run_model
from cka_widget.engine.capture import eager
from cka_widget.engine.features import main_tensor
from cka_widget.engine.layers import OUTPUT, named_layers, unwrap
from cka_widget.engine.modes import evaluating
from cka_widget.engine.ragged import padded
from cka_widget.engine.samples import CountSamples, look_count
from cka_widget.layer_tree import LayerNode, LayerTree

__all__ = ["LayerNode", "LayerTree", "introspect"]

# Two samples tell the batch dimension from dimensions of size one, and cost next to nothing.
_SAMPLES = 2


def introspect(
    model: nn.Module,
    batch: Any = None,
    *,
    forward: Forward | None = None,
    samples: CountSamples | None = None,
) -> LayerTree:
    """The modules of a model, and what each does with a batch.

    Runs the model once, by torchinfo, on two samples of the batch, in eval mode and without
    gradients, where the model is. The model and the random state are left as they were.

    Args:
        model: the model; compiled and data-parallel ones are looked into.
        batch: a tensor, tuple or mapping with the samples first; None runs nothing.
        forward: how a batch becomes a call, `forward(model, batch)`; by default as `compare` does.
        samples: the number of samples of a batch, `samples(batch)`; by default as `compare` does.

    Returns:
        LayerTree. Where the model cannot run, its modules with `error` saying what failed.
    """
    try:
        model = unwrap(model, _class_name(model))
    except TypeError as refused:
        if not isinstance(model, nn.Module):
            raise
        return LayerTree(_class_name(model), _registered(model), error=str(refused))
    class_name = _class_name(model)
    if batch is None:
        return LayerTree(class_name, _registered(model))

    watch = _Watch(model)
    n = look_count(batch, model, forward, samples)
    parts = (head(batch, _SAMPLES, n), batch) if (n or 0) > _SAMPLES else (batch,)
    failure: Exception | None = None
    # torchinfo refuses some outputs that models do have (a dataclass, a string): then our own
    # hooks alone must do. Some models need more samples than two.
    for part in parts:
        for record in (_torchinfo, _plainly):
            try:
                with _as_found(model), watch:
                    infos = record(model, part, forward)
            except Exception as error:  # whatever a model's code can raise
                failure = error
                continue
            nodes = _registered(model, watch.facts(infos))
            return LayerTree(class_name, nodes, ran=True, distinct=watch.distinct)
    nodes = _registered(model, watch.facts([]))
    sentence = _sentence(class_name, watch.running, failure)
    if failure is not None and forward is None:
        layer = watch.running[-1] if watch.running else None
        sentence += missing_sentence(failure, batch, model, layer)
    return LayerTree(class_name, nodes, error=sentence)


# running ------------------------------------------------------------------------------------------
class _Probe(nn.Module):
    """Gives torchinfo one module to call without arguments, whatever the batch and `forward`."""

    def __init__(self, model: nn.Module, run: Callable[[], Any]) -> None:
        super().__init__()
        self.model = model
        self.run = run
        self.training = False

    def forward(self) -> None:
        self.run()

    def train(self, mode: bool = True) -> _Probe:
        """Nothing: a model's own `train` and `eval` may do more than set flags."""
        return self


def _run(model: nn.Module, batch: Any, forward: Forward | None) -> None:
    device = next((t.device for t in (*model.parameters(), *model.buffers())), None)
    run_model(model, batch if device is None else to_device(batch, device), forward)


def _torchinfo(model: nn.Module, batch: Any, forward: Forward | None) -> list[LayerInfo]:
    """Run the model by torchinfo; one `LayerInfo` for every call of every module."""
    probe = _Probe(model, lambda: _run(model, batch, forward))
    before = _torchinfos_hooks(model)
    try:
        # Not `summary`: its totals visit a nest of depth k in 2^k steps.
        record = torchinfo.forward_pass(
            probe, [], None, cache_forward_pass=False, device=None, mode=Mode.EVAL
        )
    except Exception:
        # torchinfo leaves its hooks behind where it fails before the run.
        for key, hooks in _torchinfos_hooks(model).items():
            if key not in before:
                del hooks[key]
        raise
    infos = [info for info in record if info.executed and info.module is not probe]
    # torchinfo keeps the list in a module global; emptied, it does not keep the model alive.
    record.clear()
    return infos


def _torchinfos_hooks(model: nn.Module) -> dict[int, MutableMapping[int, Any]]:
    """Where torchinfo's hooks hang, by the numbers of their handles, which torch gives once."""
    return {
        key: hooks
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for key, hook in hooks.items()
        if getattr(hook, "__module__", None) == torchinfo.__name__
    }


def _plainly(model: nn.Module, batch: Any, forward: Forward | None) -> list[LayerInfo]:
    with torch.no_grad():
        _run(model, batch, forward)
    return []


class _Output(NamedTuple):
    tensor: weakref.ref[Tensor]
    version: int
    name: str
    call: int


class _Watch:
    """Hooks that note calls and shapes, and which outputs a container hands on untouched."""

    def __init__(self, model: nn.Module) -> None:
        self.root = model
        self.names = {module: name for name, module in _named(model).items()}
        self.calls: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self.aliases: dict[tuple[str, int], str] = {}
        self.running: list[str] = []
        self.distinct = 0
        self._live: dict[int, list[_Output]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> _Watch:
        for store in (self.calls, self.shapes, self.aliases, self.running, self._live):
            store.clear()
        self.distinct = 0
        for module in self.names:
            # Unbound: a scripted child refuses the method, yet runs the hook.
            self._handles.append(nn.Module.register_forward_pre_hook(module, self._before))
            self._handles.append(nn.Module.register_forward_hook(module, self._after))
        self._handles.append(nn.Module.register_forward_hook(self.root, self._last))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._live.clear()

    def _before(self, module: nn.Module, _args: Any) -> None:
        self.running.append(self.names[module])

    def _after(self, module: nn.Module, _args: Any, output: Any) -> None:
        name = self.names[module]
        self.running.pop()
        call = self.calls[name] = self.calls.get(name, 0) + 1
        tensor = main_tensor(output)
        self.shapes[name] = None if tensor is None else _without_batch(module, tensor)
        if tensor is None:
            return
        same = self._same(tensor)
        self.distinct += not same
        for inner in same:
            if inner.name.startswith(f"{name}."):
                self.aliases[inner.name, inner.call] = name
        same.append(_Output(weakref.ref(tensor), tensor._version, name, call))

    def _last(self, _module: nn.Module, _args: Any, output: Any) -> None:
        tensor = main_tensor(output)
        self.distinct += tensor is not None and not self._same(tensor)

    def _same(self, tensor: Tensor) -> list[_Output]:
        """Earlier outputs that are this very tensor, unchanged since."""
        same = self._live.setdefault(id(tensor), [])
        # An id is reused once its tensor is gone, so the reference must still be alive.
        same[:] = [o for o in same if o.tensor() is tensor and o.version == tensor._version]
        return same

    def facts(self, infos: Sequence[LayerInfo]) -> dict[str, dict[str, Any]]:
        """Fields of `LayerNode` by name, as torchinfo counted them or, without it, as seen here."""
        counted: dict[str, int] = {}
        params: dict[str, int] = {}
        for info in infos:
            name = self.names.get(info.module)
            if name is not None:
                counted[name] = counted.get(name, 0) + 1
                params[name] = info.num_params
        facts: dict[str, dict[str, Any]] = {}
        for name, seen in self.calls.items():
            calls = counted.get(name, seen)
            found: dict[str, Any] = {"calls": calls, "output_shape": self.shapes.get(name)}
            if name in params:
                found["n_params"] = params[name]
            outer = {self.aliases.get((name, call)) for call in range(1, seen + 1)}
            if len(outer) == 1:
                found["alias_of"] = outer.pop()
            facts[name] = found
        return facts


@contextlib.contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and compiled code runs eagerly; flags and random state come back."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=sorted(d or 0 for d in devices)))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 (models use it)
        stack.enter_context(eager())
        stack.enter_context(evaluating([model]))
        yield


# what is known without running --------------------------------------------------------------------
def _registered(
    model: nn.Module, facts: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[LayerNode, ...]:
    nodes = []
    for name, module in _named(model).items():
        found: dict[str, Any] = {"n_params": sum(map(_size, module.parameters()))}
        found.update((facts or {}).get(name, {}))
        nodes.append(LayerNode(name, _class_name(module), depth=name.count("."), **found))
    return tuple(nodes)


def _named(model: nn.Module) -> dict[str, nn.Module]:
    """All modules below the root; the root itself where there are none."""
    layers = named_layers(model)
    return {name: m for name, m in layers.items() if name != OUTPUT} or layers


def _size(parameter: nn.Parameter) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()


def _class_name(module: nn.Module) -> str:
    return str(getattr(module, "original_name", None) or type(module).__name__)


def _without_batch(module: nn.Module, tensor: Tensor) -> tuple[int, ...]:
    tensor = padded(tensor) if tensor.is_nested else tensor
    time_first = getattr(module, "batch_first", True) is False and tensor.dim() == 3
    return tuple(s for i, s in enumerate(tensor.shape) if i != int(time_first))


def _sentence(class_name: str, running: Sequence[str], error: Exception | None) -> str:
    where = f" in {running[-1]}" if running else ""
    lines = str(error).strip().splitlines() or ["no message"]
    said = lines[0] if len(lines[0]) <= 200 else lines[0][:199] + "…"
    return f"{class_name} could not run on this batch: {type(error).__name__}{where}: {said}"
