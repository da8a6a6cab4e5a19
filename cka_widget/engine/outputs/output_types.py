"""Which tensor of what a module returns stands for its features, type by type."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, get_origin

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

# In a mapping these hold the features; otherwise its first tensor does.
_PREFERRED_KEYS = ("last_hidden_state", "logits", "out", "output")


@singledispatch
def main_tensor(output: Any) -> Tensor | None:
    """The tensor of a module's output that stands for its features, or None.

    A tensor is itself, nested or not; a tuple or list gives its first tensor (the output
    sequence of an LSTM, the attention output of `MultiheadAttention`); a mapping, a dataclass and
    Hugging Face's `ModelOutput` give `last_hidden_state`, `logits`, or their first tensor. Other
    types: `register_output`.
    """
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return main_tensor({f.name: getattr(output, f.name) for f in dataclasses.fields(output)})
    return None


@main_tensor.register
def _(output: Tensor) -> Tensor | None:
    return output


@main_tensor.register
def _(output: PackedSequence) -> Tensor | None:
    return pad_packed_sequence(output, batch_first=True)[0]


@main_tensor.register(tuple)
@main_tensor.register(list)
def _(output: Sequence[Any]) -> Tensor | None:
    return next((t for t in map(main_tensor, output) if t is not None), None)


@main_tensor.register
def _(output: Mapping) -> Tensor | None:  # type: ignore[type-arg]
    keys = [k for k in _PREFERRED_KEYS if k in output] + list(output)
    return next((t for t in (main_tensor(output[k]) for k in keys) if t is not None), None)


def tensor_of(output: Any) -> Tensor | None:
    """`main_tensor` of an output, at once where it is a tensor, as most are."""
    return output if type(output) is Tensor else main_tensor(output)


def register_output(kind: type, function: Callable[[Any], Tensor | None]) -> None:
    """Say which tensor of a type of output stands for its features, in all runs of this process.

    >>> class Beams:
    ...     def __init__(self, hidden):
    ...         self.hidden = hidden
    >>> register_output(Beams, lambda beams: beams.hidden)

    Tensors, tuples, lists, mappings and dataclasses are known without; a type that is one of these
    and is registered goes by its function. Counts for subclasses too; the last one given holds.

    Args:
        kind: a class of which some module returns instances.
        function: from the output to its tensor with the samples along its first axis, as from a
            module that returns a tensor; None where this output has none.

    Raises:
        TypeError: `kind` is no class, or `torch.Tensor`, which stands for itself; `function` is
            not callable. In a run: it gave something else than a tensor.
    """
    if not isinstance(kind, type) or get_origin(kind):  # list[int] is both in Python 3.10
        raise TypeError(f"register_output needs a class of outputs, not {kind!r}")
    if issubclass(kind, Tensor):
        raise TypeError(f"register_output: {kind.__name__} is a tensor, which stands for itself")
    if not callable(function):
        raise TypeError(
            f"register_output({kind.__name__}, ...) needs a function from the output to its "
            f"tensor, not {function!r}"
        )

    def of(output: Any) -> Tensor | None:
        x = function(output)
        if x is None or isinstance(x, Tensor):
            return x
        raise TypeError(
            f"the function that is registered for {kind.__name__} gave a {type(x).__name__}, "
            "not a tensor"
        )

    main_tensor.register(kind, of)
