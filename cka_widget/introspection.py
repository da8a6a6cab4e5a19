"""Which modules of a model run, how often, and what comes out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torchinfo.layer_info import LayerInfo

from cka_widget.counting import counted
from cka_widget.engine.calls.call_words import missing_sentence
from cka_widget.engine.calls.calls import Forward, run_model
from cka_widget.engine.data.batches import to_device
from cka_widget.engine.errors import first_line
from cka_widget.engine.interrupts import Shield
from cka_widget.engine.models.layers import OUTPUT, named_layers, unwrap
from cka_widget.engine.outputs.glimpse import MORE
from cka_widget.engine.outputs.probe import probe
from cka_widget.engine.outputs.samples import CountSamples, look_count
from cka_widget.engine.restoring.evaluating import as_found, eager, evaluate
from cka_widget.engine.restoring.random_state import RandomState
from cka_widget.engine.restoring.rewind import Before
from cka_widget.layer_tree import LayerNode, LayerTree
from cka_widget.watch import Watch

__all__ = ["LayerNode", "LayerTree", "introspect"]


def introspect(
    model: nn.Module,
    batch: Any = None,
    *,
    forward: Forward | None = None,
    samples: CountSamples | None = None,
) -> LayerTree:
    """The modules of a model, and what each does with a batch.

    Runs the model where it is, in eval mode and without gradients, on the first 2 samples by
    torchinfo and on the first 3, which shows along which axis an output has the samples; once on
    the whole batch where it cannot run on so few. The model and the random state are left as they
    were, but for what the model itself registers in its first pass.

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

    n, found = look_count(batch, model, forward, samples), None
    look = _Look(model, forward)
    try:
        with look.shield, _as_found(model):
            if (n or 0) >= MORE:
                found = probe(model, look, batch, n=n)
            if not look.ran:  # some models need more samples
                look(batch)
    except Exception as error:  # whatever a model's code can raise
        nodes, running = _registered(model, look.watch.facts([], None)), look.watch.running
        sentence = _sentence(class_name, running, error)
        if forward is None:
            sentence += missing_sentence(error, batch, model, running[-1] if running else None)
        return LayerTree(class_name, nodes, error=sentence)
    return LayerTree(
        class_name,
        _registered(model, look.watch.facts(look.infos, found)),
        ran=True,
        distinct=look.watch.distinct(found),
        seconds=look.seconds,
    )


def timed(model: nn.Module, batch: Any, n: int, forward: Forward | None = None) -> float:
    """Seconds that a forward pass takes for each of the n samples; all is left as it was."""
    look = _Look(model, forward)
    with look.shield, _as_found(model):
        return look.time(batch, n)


# running ------------------------------------------------------------------------------------------
class _Look:
    """Runs the model: once by torchinfo, if it can, with a watch; by the clock after that."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        self.watch = Watch(model, {module: name for name, module in _named(model).items()})
        self.shield = Shield()  # Ctrl-C comes through while the model runs
        self.infos: list[LayerInfo] = []
        self.ran = False
        self.seconds: float | None = None
        self._model, self._forward = model, forward
        tensors = (*model.parameters(), *model.buffers())
        self._device = next((t.device for t in tensors), None)
        self._refused = False

    def __call__(self, batch: Any) -> None:
        if self.ran:
            seconds = self.time(batch, MORE)
            self.seconds = self.seconds or seconds  # passes after that may be on fewer
            return
        if not self._refused:
            try:
                with self.watch:
                    self.infos = counted(self._model, lambda: self._run(batch))
                self.ran = True
                return
            except Exception:  # torchinfo's or the model's, as the next pass shows
                self._refused = True
        with self.watch:
            self._run(batch)
        self.ran = True

    def _run(self, batch: Any) -> None:
        placed = batch if self._device is None else to_device(batch, self._device)
        with self.shield.opened():
            run_model(self._model, placed, self._forward)

    def time(self, batch: Any, n: int) -> float:
        """Seconds of a pass for each of its n samples."""
        start = time.perf_counter()
        self._run(batch)
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # kernels run on after the call
        return (time.perf_counter() - start) / n


@contextlib.contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and compiled code runs eagerly; flags and random state come back."""
    with contextlib.ExitStack() as stack:
        stack.callback(RandomState().restore)
        stack.enter_context(eager())
        stack.callback(as_found, stack)
        evaluate([model], stack)
        stack.callback(Before(model).restore)
        stack.enter_context(torch.no_grad())
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


def _sentence(class_name: str, running: Sequence[str], error: Exception | None) -> str:
    where = f" in {running[-1]}" if running else ""
    said = first_line(error) if error else ""
    said = (said if len(said) <= 200 else said[:199] + "…") or "no message"
    return f"{class_name} could not run on this batch: {type(error).__name__}{where}: {said}"
