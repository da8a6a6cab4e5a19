"""What a loader yields, and how it becomes a call of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]

LABEL_KEYS = ("label", "labels", "label_ids", "target", "targets")


class Call(NamedTuple):
    """One call of a model: `model(*args, **kwargs)` on n samples."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mask: Tensor | None
    n: int


def as_call(batch: Any, model: nn.Module | None = None) -> Call:
    """How a batch becomes a call.

    A tensor goes in as it is; a tuple or list gives its first element (the rest are labels);
    a mapping goes in as keyword arguments less its labels, its `attention_mask` (n, tokens)
    being honoured by `reduce="mean"` and `"last"`.

    Raises:
        TypeError: the batch holds no tensor; the message offers `forward=`.
    """
    data = batch
    if isinstance(data, (tuple, list)) and data:
        data = data[0]
    n, mask = count(data), mask_of(data)
    if n is None:
        raise TypeError(
            f"cannot tell the samples in a batch of type {type(batch).__name__}; "
            "give batches of tensors, or forward=lambda model, batch: model(...)"
        )
    if isinstance(data, Mapping):
        kwargs = {str(k): v for k, v in data.items() if k not in LABEL_KEYS}
        return Call((), kwargs, mask, n)
    return Call((data,), {}, mask, n)


def run_model(model: nn.Module, batch: Any, forward: Forward | None) -> Any:
    """Call the model on a batch, by `forward` when given."""
    if forward is not None:
        return forward(model, batch)
    call = as_call(batch, model)
    return model(*call.args, **call.kwargs)


def tensors(data: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from tensors(value)
    elif isinstance(data, (tuple, list)):
        for value in data:
            yield from tensors(value)


def count(batch: Any) -> int | None:
    """Number of samples: rows of the first tensor, or None."""
    return next((len(t) for t in tensors(batch) if t.dim()), None)


def mask_of(batch: Any) -> Tensor | None:
    """The attention mask of a tokenised batch."""
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask if isinstance(mask, Tensor) else None


def labels_of(batch: Any) -> Tensor | None:
    """Class labels (n,), where the batch seems to carry them."""
    if isinstance(batch, Mapping):
        found = next((batch[k] for k in LABEL_KEYS if k in batch), None)
    else:
        found = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
    if isinstance(found, Tensor) and found.dim() == 1 and not found.is_floating_point():
        return found
    return None


def map_tensors(data: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with every tensor replaced."""
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, Mapping):
        return {k: map_tensors(v, function) for k, v in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_tensors(v, function) for v in data))
    if isinstance(data, (tuple, list)):
        return type(data)(map_tensors(v, function) for v in data)
    return data


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch on a device; pinned memory is copied beside the computation."""
    return map_tensors(batch, lambda t: t.to(device, non_blocking=t.is_pinned()))


def rows(batch: Any, start: int, stop: int) -> Any:
    """Some samples of a batch; tensors without a row for each sample stay as they are."""
    n = count(batch)
    return map_tensors(batch, lambda t: t[start:stop] if t.dim() and len(t) == n else t)


def head(batch: Any, k: int) -> Any:
    """The first k samples of a batch."""
    return rows(batch, 0, k)
