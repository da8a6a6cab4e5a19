"""What a loader yields, and how it becomes a call of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]
Forwards = Forward | Mapping[str, Forward | None] | None

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
    being honoured by `reduce="mean"` and `"last"`; a dataclass goes in as it is.

    Raises:
        TypeError: the batch holds no tensor; the message offers `forward=`.
    """
    data = batch
    if isinstance(data, (tuple, list)) and data:
        data = data[0]
    n, mask = _tensor_rows(data), mask_of(data)
    if n is None:
        raise TypeError(
            f"cannot tell the samples in a batch of type {type(batch).__name__}; "
            "give batches of tensors, or forward=lambda model, batch: model(...)"
        )
    if isinstance(data, Mapping):
        kwargs = {str(k): v for k, v in data.items() if k not in LABEL_KEYS}
        return Call((), kwargs, mask, n)
    return Call((data,), {}, mask, n)


def without_labels(batch: Any) -> Any:
    """What `as_call` passes on of a batch, as a batch."""
    data = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if isinstance(data, Mapping):
        data = {key: value for key, value in data.items() if key not in LABEL_KEYS}
    return (data,)


def each(batches: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """The function of every model's batch; models that share a batch share what is made of it."""
    made = {key: function(batch) for key, batch in {id(b): b for b in batches.values()}.items()}
    return {model: made[id(batch)] for model, batch in batches.items()}


def forward_of(forward: Forwards, model: str) -> Forward | None:
    """The function for one model out of a function for all or a mapping by model name."""
    return forward.get(model) if isinstance(forward, Mapping) else forward


def run_model(model: nn.Module, batch: Any, forward: Forward | None) -> Any:
    """Call the model on a batch, by `forward` when given."""
    if forward is not None:
        return forward(model, batch)
    call = as_call(batch, model)
    return model(*call.args, **call.kwargs)


def tensors(data: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(data, Tensor):
        yield data
    for _, part in parts(data):
        yield from tensors(part)


def parts(data: Any) -> list[tuple[Any, Any]]:
    """Names and values in a mapping, tuple, list or dataclass, in their order; none in others."""
    if isinstance(data, Mapping):
        return list(data.items())
    if isinstance(data, (tuple, list)):
        return list(enumerate(data))
    return list(_fields(data).items())


def _fields(data: Any) -> dict[str, Any]:
    if not is_dataclass(data) or isinstance(data, type):
        return {}
    return {f.name: getattr(data, f.name) for f in fields(data) if hasattr(data, f.name)}


def count(batch: Any) -> int | None:
    """Number of samples: rows of the first tensor, else entries of the first list, or None."""
    n = _tensor_rows(batch)
    return next(map(len, _columns(batch)), None) if n is None else n


def _tensor_rows(data: Any) -> int | None:
    return next((len(t) for t in tensors(data) if t.dim()), None)


def _columns(data: Any) -> Iterator[Any]:
    if _is_column(data):
        yield data
    else:
        for _, part in parts(data):
            yield from _columns(part)


def _is_column(data: Any) -> bool:
    """One entry a sample, as in a list of texts? Loaders collate texts to a list of columns."""
    if not isinstance(data, (tuple, list)) or not data or hasattr(data, "_fields"):
        return False
    if any(True for _ in tensors(data)) or (isinstance(data, tuple) and _has(data, Mapping)):
        return False
    same_length = len({len(x) if isinstance(x, (tuple, list)) else -1 for x in data}) == 1
    texts = any(isinstance(x, (tuple, list)) and x and _has(x, str) for x in data)
    return not (texts and (same_length or isinstance(data, tuple)))


def _has(data: Any, kind: type) -> bool:
    return isinstance(data[0], kind)


def mask_of(batch: Any) -> Tensor | None:
    """The attention mask of a tokenised batch."""
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask if isinstance(mask, Tensor) else None


def map_tensors(
    data: Any,
    function: Callable[[Tensor], Any],
    column: Callable[[Any], Any] | None = None,
) -> Any:
    """The same nest, its types kept, with every tensor replaced, and lists by `column`."""
    if isinstance(data, Tensor):
        return function(data)
    if column is not None and _is_column(data):
        return column(data)
    if isinstance(data, Mapping):
        return _like(data, {k: map_tensors(v, function, column) for k, v in data.items()})
    if isinstance(data, (tuple, list)):
        mapped = [map_tensors(v, function, column) for v in data]
        return type(data)(*mapped) if hasattr(data, "_fields") else type(data)(mapped)
    return _with(data, {k: map_tensors(v, function, column) for k, v in _fields(data).items()})


def _like(data: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """A mapping of the same type and attributes, where it can be filled."""
    if type(data) is dict or not isinstance(data, MutableMapping):
        return values
    if getattr(data, "__dict__", None) is data:  # a copy's attributes would stay the old ones
        return type(data)(values)
    held = dict(data.items())
    try:
        made = copy.copy(data)
        for key, value in values.items():
            made[key] = value
    except Exception:  # its type has rules of its own: the model gets the bare values
        return values
    if any(data[key] is not value for key, value in held.items()):  # the copy is no copy
        data.update(held)
        return values
    return made


def _with(data: Any, values: dict[str, Any]) -> Any:
    if not values:
        return data
    made = copy.copy(data)
    for name, value in values.items():
        object.__setattr__(made, name, value)  # frozen ones too
    return made


def to_device(batch: Any, device: torch.device, *, behind: bool = False) -> Any:
    """The batch on a device.

    Args:
        batch: as the loader gave it.
        device: where to.
        behind: do not wait for copies of pinned memory; whoever may write there must.
    """
    return map_tensors(batch, lambda t: t.to(device, non_blocking=behind and t.is_pinned()))


def rows(batch: Any, start: int, stop: int) -> Any:
    """Some samples of a batch; what has no row for each sample stays as it is."""
    n = count(batch)

    def cut(x: Any) -> Any:
        return x[start:stop] if len(x) == n else x

    return map_tensors(batch, lambda t: cut(t) if t.dim() else t, cut)


def head(batch: Any, k: int) -> Any:
    """The first k samples of a batch."""
    return rows(batch, 0, k)
