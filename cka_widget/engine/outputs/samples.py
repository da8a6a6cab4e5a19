"""How many samples a batch has: read where it is plain, else found by the model's output, or asked.

Every decision of a run is made on its first batch, before anything of it is summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import index
from typing import Any

from torch import Tensor, nn

from cka_widget.engine.calls.calls import Forward, as_call, takes
from cka_widget.engine.data.batches import (
    agreed,
    are_samples,
    count,
    hold_samples,
    parts,
    sizes,
    tensors,
)
from cka_widget.engine.errors import CompareError
from cka_widget.engine.outputs.output_types import main_tensor
from cka_widget.engine.restoring.hooks import Hooks

CountSamples = Callable[[Any], int]

# Layers of torch whose `batch_first=False` is known to mean (steps, samples, features).
_TIME_FIRST = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
_SAY_SO = "say so with samples=lambda batch: ..., a function that gives the number of samples"


class Samples:
    """Counts the samples of one model's batches.

    Args:
        given: `samples=`, or None.
        forward: the model's own, or None.
    """

    def __init__(self, given: CountSamples | None, forward: Forward | None) -> None:
        self._given = given
        self._forward = forward
        self._paths: set[str] = set()  # where batches tell what the first output told

    @property
    def guess(self) -> bool:
        """May the first pass show that the number was wrong?"""
        return self._given is None

    def count(self, batch: Any, model: nn.Module, run: Callable[[], Any]) -> int:
        """The number of samples of a batch.

        Args:
            batch: as the loader gave it.
            model: what it is for.
            run: gives the model's output for it, where nothing else tells.

        Raises:
            TypeError: it cannot be told; the message offers `samples=` and `forward=`.
        """
        if self._given is not None:
            return _asked(self._given, batch)
        if self._forward is None:
            return count_for(batch, model)
        if not self._paths:
            found = None if are_samples(batch) or hold_samples(batch) else count(batch)
            if found is not None:
                return found
        places = sizes(batch)
        told = {places[path] for path in self._paths if path in places}
        return told.pop() if len(told) == 1 else self._ask(places, leading(run()))

    def _ask(self, places: Mapping[str, int], n: int | None) -> int:
        if n is None:
            raise TypeError(
                "neither the batch nor what forward= returns tells the number of samples; "
                f"{_SAY_SO}"
            )
        now = {path for path, size in places.items() if size == n}
        self._paths = self._paths & now or now
        return n

    def check(self, n: int, batch: Any, output: Any) -> int:
        """The number of samples once the first output is known: n, or what `forward=` shows.

        Raises:
            CompareError: batch and output have samples and steps the other way round.
        """
        data, found = [t for t in tensors(batch) if t.dim()], leading(output)
        if len(data) != 1 or found in (n, None):
            return n
        x, out = data[0], main_tensor(output)
        assert found is not None
        turned = (x.dim() == 3 or not _is_float(x)) and x.dim() > 1 and x.shape[1] == found
        has_n = out is not None and n in out.shape
        # Without forward= samples come first, and an output may well be turned.
        if turned and (has_n != (self._forward is None) or found % n == 0):
            raise CompareError(
                f"a batch of shape {tuple(x.shape)} gave an output of {found} entries, so that its "
                f"samples may be along either axis; {_SAY_SO}"
            )
        elsewhere = found in sizes(batch).values() and found % n and not has_n
        return found if self._forward is not None and elsewhere else n

    def learn(self, batch: Any, n: int) -> None:
        """What another model's output showed of the same first batch."""
        if self._given is None and self._forward is not None:
            self._ask(sizes(batch), n)


def look_count(
    batch: Any, model: nn.Module, forward: Forward | None, given: CountSamples | None = None
) -> int | None:
    """The number of samples as far as a look at the batch tells, None where it does not."""
    try:
        if given is not None:
            return _asked(given, batch)
        if forward is None:
            return count_for(batch, model)
    except Exception:  # a run will say it in words
        return None
    return len(batch) if are_samples(batch) else count(batch)


def count_for(batch: Any, model: nn.Module) -> int:
    """The number of samples of a batch that goes into a model as `as_call` says.

    Raises:
        TypeError: the batch makes no call, or its tensors differ in their first axes and neither
            their majority nor the model's main input tells.
    """
    call = as_call(batch, model)
    named = {**{f"batch[{i}]": x for i, x in enumerate(call.args)}, **call.kwargs}
    inputs = {name: x for name, x in named.items() if isinstance(x, Tensor) and x.dim()}
    lengths = [len(t) for t in tensors(batch) if t.dim()]
    if len(set(lengths)) == 1:
        return lengths[0]
    known = takes(model)
    declared = getattr(model, "main_input_name", None)
    if isinstance(declared, str) and declared in inputs:
        return len(inputs[declared])
    places = call.args or [call.kwargs[name] for name in known.positional if name in call.kwargs]
    first = next((t for t in tensors(places) if t.dim()), None)
    n = count(batch) if first is None else agreed(lengths, len(first))
    if n is None and first is not None and 1 in (len(inputs), len(known.required)):
        n = None if _may_be_turned(first, lengths) else len(first)
    if n is None:
        found = ", ".join(f"{name} {tuple(x.shape)}" for name, x in _named_tensors(batch))
        raise TypeError(
            f"cannot tell which tensor of the batch numbers the samples: {found}; {_SAY_SO}, or "
            "with forward=lambda model, batch: model(...)"
        )
    return n


def _may_be_turned(x: Tensor, lengths: list[int]) -> bool:
    """Steps first, and the labels as many as the second axis has?"""
    sequences = x.dim() == 3 or (x.dim() == 2 and not _is_float(x))
    return sequences and x.shape[1] in lengths


def _is_float(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _asked(given: CountSamples, batch: Any) -> int:
    found = given(batch)
    try:
        n = index(found)
    except TypeError:
        raise TypeError(f"samples= gave {found!r}, which is no whole number") from None
    if n < 1:
        raise ValueError(f"samples= gave {n}; a batch has at least 1")
    return n


def leading(output: Any) -> int | None:
    """Samples of a model's output: entries of a list, one a sample, or its first axis."""
    if isinstance(output, list) and output and not isinstance(output[0], Tensor):
        return len(output)
    tensor = main_tensor(output)
    return tensor.size(0) if tensor is not None and tensor.dim() else None  # nested ones too


def _named_tensors(data: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield name, data
    for key, part in parts(data):
        yield from _named_tensors(part, f"{name}[{key!r}]")


class StepsFirst:
    """Entered around the first pass: did a layer of torch take the batch's first axis for steps?

    Attributes:
        found: the layer, "" for the model itself, and the shape that it got; None where none did.
    """

    def __init__(self, model: nn.Module, n: int, batch: Any) -> None:
        self.found: tuple[str, tuple[int, ...]] | None = None
        self._model, self._n = model, n
        self._given = [t for t in tensors(batch) if t.dim() > 1]
        self._hooks = Hooks()

    def __enter__(self) -> StepsFirst:
        for name, module in self._model.named_modules():
            if isinstance(module, _TIME_FIRST) and getattr(module, "batch_first", True) is False:
                self._hooks.before(module, partial(self._look, name))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.remove()

    def _look(self, name: str, _module: nn.Module, args: Any) -> None:
        x = args[0] if args else None
        if not isinstance(x, Tensor) or x.dim() != 3 or len(x) != self._n or x.shape[1] == 1:
            return
        same = any(x is t for t in self._given)
        turned = x.shape[1] != self._n and any(x.shape[:2] == t.shape[:2] for t in self._given)
        if self.found is None and (same or turned or x.shape[1] % self._n):
            self.found = name, tuple(x.shape)

    def refuse(self, name: str, output: Any) -> None:
        """Raises CompareError where the model's output does not show that samples came first."""
        out = main_tensor(output)
        if self.found is None or out is None or out.dim() < 2:
            return
        layer, shape = self.found
        if len(out) == self._n and out.shape[1] != shape[1]:
            return
        where = f', layer "{layer}",' if layer else ""
        raise CompareError(
            f'model "{name}"{where} has batch_first=False and got {shape}: these are {shape[0]} '
            f"steps of {shape[1]} samples to it, yet the batch was taken for {self._n} samples; "
            "set batch_first=True, transpose with forward=lambda model, batch: "
            "model(batch.transpose(0, 1)), or say samples=lambda batch: batch.shape[1]",
            model=name,
            layer=layer or None,
        )
