"""What a module's output becomes: features, one row a sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from cka_widget.engine.errors import NoRowsError
from cka_widget.engine.ragged import kept_steps, padded
from cka_widget.engine.reductions import mean, token
from cka_widget.engine.time_first import SampleAxis


class ReduceError(RuntimeError):
    """A callable `reduce=` failed, not the model."""


Reduce = str | Callable[[Tensor], Tensor]

REDUCTIONS = ("flatten", "mean", "cls", "last")

# In a mapping these hold the features; otherwise its first tensor does.
_PREFERRED_KEYS = ("last_hidden_state", "logits", "out", "output")


@singledispatch
def main_tensor(output: Any) -> Tensor | None:
    """The tensor of a module's output that stands for its features, or None.

    A tensor is itself, nested or not; a tuple or list gives its first tensor (the output
    sequence of an LSTM, the attention output of `MultiheadAttention`); a mapping, a dataclass and
    Hugging Face's `ModelOutput` give `last_hidden_state`, `logits`, or their first tensor. Other
    types: `main_tensor.register(MyOutput)`.
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


def as_rows(
    output: Any,
    n: int,
    *,
    reduce: Reduce = "flatten",
    mask: Tensor | None = None,
    module: nn.Module | None = None,
    axis: SampleAxis | None = None,
) -> Tensor:
    """Features of one module's output.

    Args:
        output: what the module returned.
        n: number of samples in the batch.
        mask: (n, tokens), which tokens count; an output that is packed or nested knows better.
        reduce: "flatten" keeps every number; "mean" averages over space, or over the tokens that
            `mask` (n, tokens) keeps; "cls" takes the first token, "last" the last one that
            `mask` keeps; a callable maps the tensor (n, ...) to (n, d).
        module: who returned it: tells channels from tokens, and `batch_first=False`.
        axis: what the output's earlier batches showed of its sample axis.

    Returns:
        Tensor (n, d), floating point, of the output's own precision, means in float32 at least; a
        view where possible.

    Raises:
        NoRowsError: the output has no row for each sample; the message completes
            "this layer is undefined: ...".
        ReduceError: a callable `reduce` failed.
    """
    x = main_tensor(output)
    if x is None:
        raise NoRowsError(f"its output holds no tensor ({type(output).__name__})")
    if not x.is_floating_point():
        raise NoRowsError(f"its output is {str(x.dtype).removeprefix('torch.')}, not real numbers")
    if x.is_nested:
        x = padded(x)
    elif x.layout is not torch.strided:
        x = x.to_dense()
    kept = kept_steps(output, x)
    if kept is None and x.dim() == 3 and axis is not None and axis.is_time_first(x, n, module):
        x = x.transpose(0, 1)
    if x.dim() == 0 or x.shape[0] != n:
        rows = "no rows" if x.dim() == 0 else f"{x.shape[0]} rows"
        raise NoRowsError(f"its output has {rows} for a batch of {n} samples")
    if x.numel() == 0:
        raise NoRowsError("its output is empty")
    if callable(reduce):
        x = _reduced(reduce, x, n)
    elif reduce == "mean":
        x = mean(x, mask if kept is None else kept, module)
    elif reduce in ("cls", "last") and x.dim() == 3:
        x = token(x, reduce, mask if kept is None else kept, module)
    return flatten(x)


def _reduced(reduce: Callable[[Tensor], Tensor], x: Tensor, n: int) -> Tensor:
    try:
        x = reduce(x)
    # Smaller batches may help; a reason is meant. Torch 2.2 has this one name alone.
    except (torch.cuda.OutOfMemoryError, NoRowsError):
        raise
    except Exception as error:
        name = getattr(reduce, "__name__", type(reduce).__name__)
        raise ReduceError(
            f"reduce={name} failed on an output {tuple(x.shape)}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(x, Tensor):
        raise NoRowsError(f"reduce= made a {type(x).__name__} of it, not a tensor")
    if x.is_complex():
        raise NoRowsError("reduce= made complex numbers of it; make real ones, as x.abs() does")
    if x.dim() == 0 or x.shape[0] != n:
        raise NoRowsError(f"reduce= made {tuple(x.shape)} of a batch of {n} samples")
    return x


def flatten(x: Tensor) -> Tensor:
    """(n, ...) to (n, d) without a copy for any dense layout, channels-last included.

    The order of the features changes with the layout; no Gram matrix depends on it.
    """
    if x.dim() == 1:
        return x[:, None]
    if not x.is_contiguous():
        order = sorted(range(1, x.dim()), key=lambda i: x.stride(i), reverse=True)
        x = x.permute(0, *order)
    return x.reshape(x.shape[0], -1)
