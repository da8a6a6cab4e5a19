"""What a module's output becomes: features, one row a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cka_widget.engine.devices import ran_out
from cka_widget.engine.errors import NoFeaturesError, summary
from cka_widget.engine.outputs.output_types import tensor_of
from cka_widget.engine.outputs.ragged import kept_steps, padded
from cka_widget.engine.outputs.reductions import joined, mean, token
from cka_widget.engine.outputs.sample_axis import SampleFinder


class ReduceError(RuntimeError):
    """A callable `reduce=` failed, not the model."""


Reduce = str | Callable[[Tensor], Tensor]

REDUCTIONS = ("flatten", "mean", "cls", "last")


class Samples(NamedTuple):
    """An output by its samples.

    Attributes:
        values: (n, ...); with "mean", "cls" or "last" to come, all tokens of a sample on one axis.
        kept: (n, steps), which steps are no padding, where the output itself knows.
        module: who returned it, if its kind tells channels from tokens in `values`.
    """

    values: Tensor
    kept: Tensor | None
    module: nn.Module | None


def values_of(output: Any) -> tuple[Tensor, Tensor | None]:
    """The numbers of an output, padded and dense, and which steps are no padding if it knows.

    Raises:
        NoFeaturesError: it holds no real numbers.
    """
    x = tensor_of(output)
    if x is None:
        raise NoFeaturesError(f"its output holds no tensor ({type(output).__name__})")
    if not x.is_floating_point():
        raise NoFeaturesError(
            f"its output is {str(x.dtype).removeprefix('torch.')}, not real numbers"
        )
    if x.is_nested:
        x = padded(x)
    elif x.layout is not torch.strided:
        x = x.to_dense()
    return x, kept_steps(output, x)


def by_sample(
    output: Any, n: int, rows: SampleFinder, reduce: Reduce, module: nn.Module | None
) -> Samples:
    """The output of a batch of n samples, the samples first.

    Args:
        output: what the module returned.
        n: number of samples in the batch.
        rows: where this output has its samples; learns by the call.
        reduce: what is to come, see `features`.
        module: who returned it.

    Raises:
        NoFeaturesError: the output has no features for each sample; the message completes
            "this layer is undefined: ...".
    """
    x, kept = values_of(output)
    if kept is None:
        x = rows.of(x, n, module)
        # Of folded windows, patches or heads the entries count as tokens, with those inside.
        if reduce in ("mean", "cls", "last") and rows.axis is not None and rows.axis.folded:
            x, module = joined(x, module), None if x.dim() == 3 else module
    elif x.shape[0] != n:
        raise NoFeaturesError(f"its output has {x.shape[0]} entries for a batch of {n} samples")
    else:
        rows.refuse(x)
    if x.numel() == 0:
        raise NoFeaturesError("its output is empty")
    return Samples(x, kept, module)


def features(found: Samples, reduce: Reduce, mask: Tensor | None) -> Tensor:
    """Features of one module's output.

    Args:
        found: the output by its samples.
        reduce: "flatten" keeps every number; "mean" averages over space, or over the tokens that
            `mask` keeps; "cls" takes the first token, "last" the last one that `mask` keeps; a
            callable maps the tensor (n, ...) to (n, d).
        mask: (n, tokens), which tokens count; an output that is packed or nested knows better.

    Returns:
        Tensor (n, d), floating point, of the output's own precision, means in float32 at least; a
        view where possible.

    Raises:
        NoFeaturesError: a callable `reduce` made no features for each sample.
        ReduceError: a callable `reduce` failed.
    """
    x, kept, module = found
    if callable(reduce):
        x = _reduced(reduce, x, len(x))
    elif reduce == "mean":
        x = mean(x, mask if kept is None else kept, module)
    elif reduce in ("cls", "last") and x.dim() == 3:
        x = token(x, reduce, mask if kept is None else kept, module)
    return flatten(x)


def _reduced(reduce: Callable[[Tensor], Tensor], x: Tensor, n: int) -> Tensor:
    try:
        x = reduce(x)
    except NoFeaturesError:  # a reason is meant
        raise
    except Exception as error:
        if ran_out(error):  # smaller batches may help
            raise
        name = getattr(reduce, "__name__", type(reduce).__name__)
        raise ReduceError(
            f"reduce={name} failed on an output {tuple(x.shape)}: {summary(error)}"
        ) from error
    if not isinstance(x, Tensor):
        raise NoFeaturesError(f"reduce= made a {type(x).__name__} of it, not a tensor")
    if x.is_complex():
        raise NoFeaturesError("reduce= made complex numbers of it; make real ones, as x.abs() does")
    if x.dim() == 0 or x.shape[0] != n:
        raise NoFeaturesError(f"reduce= made {tuple(x.shape)} of a batch of {n} samples")
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
