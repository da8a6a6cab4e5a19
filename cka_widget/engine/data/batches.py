"""What a loader yields: nests of tensors, and the samples in them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

LABEL_KEYS = ("label", "labels", "label_ids", "target", "targets")


def each(batches: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """The function of every model's batch; models that share a batch share what is made of it."""
    made = {key: function(batch) for key, batch in {id(b): b for b in batches.values()}.items()}
    return {model: made[id(batch)] for model, batch in batches.items()}


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
    """Number of samples: what the tensors agree on, else entries of the first list, or None.

    Tensors that differ must show by a majority which of them number the samples.
    """
    lengths = [len(t) for t in tensors(batch) if t.dim()]
    if not lengths:
        return next(map(len, _columns(batch)), None)
    if hold_samples(batch):
        return len(batch[0])
    n = agreed(lengths, len(_main(batch)))
    # In a list of alike tensors each may be one sample.
    return n if any(len(t) == n for t in _outside_lists(batch)) else None


def _outside_lists(data: Any) -> Iterator[Tensor]:
    """Tensors that are in no list of alike ones."""
    if isinstance(data, Tensor):
        if data.dim():
            yield data
    elif not are_samples(data):
        for _, part in parts(data):
            yield from _outside_lists(part)


def are_samples(items: Any) -> bool:
    """A list of three or more tensors, or nests of such, alike in shape: `collate_fn=list`."""
    if not isinstance(items, (tuple, list)) or len(items) < 3 or hasattr(items, "_fields"):
        return False
    if all(isinstance(x, Tensor) for x in items):
        if len({(x.dtype, x.dim()) for x in items}) > 1:
            return False
        return len({x.shape for x in items}) == 1 or all(map(_is_image, items))
    alike = all(type(x) is type(items[0]) and len(parts(x)) == len(parts(items[0])) for x in items)
    shapes = [[t.shape for t in tensors(x)] for x in items]
    return alike and bool(shapes[0]) and all(found == shapes[0] for found in shapes)


def hold_samples(batch: Any) -> bool:
    """Is the first element a list of samples, as `([image, ...], [target, ...])` of detection?"""
    if not isinstance(batch, (tuple, list)) or not batch:
        return False
    first, *others = batch
    if not isinstance(first, (tuple, list)) or not first or hasattr(first, "_fields"):
        return False
    if not all(isinstance(x, Tensor) for x in first):
        return False
    n = len(first[0]) if first[0].dim() else None
    if any(isinstance(x, Tensor) and x.dim() and len(x) == n for x in others):
        return False  # several inputs of n samples, and their labels
    lists = (x for x in others if isinstance(x, (tuple, list)) and len(x) == len(first))
    return are_samples(first) or any(not isinstance(x[0], Tensor) for x in lists)


def _is_image(x: Tensor) -> bool:
    return x.dim() == 3 and len(x) in (1, 3, 4)


def agreed(lengths: list[int], main: int) -> int | None:
    """The main tensor's size, where all have it, or two at least and more than any other size."""
    (most, times), *others = Counter(lengths).most_common(2) or [(main, 0)]
    if most != main or (others and (times < 2 or times == others[0][1])):
        return None
    return main


def _main(batch: Any) -> Tensor:
    """The tensor that is most likely the input: of a tuple in its first part, else the largest."""
    found = [t for t in tensors(batch) if t.dim()]
    if isinstance(batch, (tuple, list)) and batch:
        first = [t for t in tensors(batch[0]) if t.dim()]
        if first:
            return _main(batch[0])
    return max(found, key=lambda t: (t.is_floating_point(), t.numel()))


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


def take(batch: Any, start: int, stop: int, n: int | None = None) -> Any:
    """Some of the n samples of a batch; what has none of them stays as it is."""
    n = count(batch) if n is None else n
    axis = int(not any(t.dim() and len(t) == n for t in tensors(batch)))
    if axis and n is not None and _has_list(batch, n):
        return _cut_lists(batch, start, stop, n)

    def cut(x: Tensor) -> Tensor:
        if x.dim() <= axis or x.shape[axis] != n:
            return x
        return x[:, start:stop] if axis else x[start:stop]

    return map_tensors(batch, cut, lambda x: x[start:stop] if len(x) == n else x)


def _is_list(data: Any, n: int | None) -> bool:
    """A list of n entries that are tensors, or hold some?"""
    plain = isinstance(data, (tuple, list)) and not hasattr(data, "_fields")
    return plain and len(data) == n and any(True for _ in tensors(data))


def _has_list(data: Any, n: int | None) -> bool:
    return _is_list(data, n) or any(_has_list(part, n) for _, part in parts(data))


def _cut_lists(data: Any, start: int, stop: int, n: int) -> Any:
    if isinstance(data, (tuple, list)) and not hasattr(data, "_fields"):
        if len(data) == n:
            return data[start:stop]
        return type(data)(_cut_lists(part, start, stop, n) for part in data)
    if isinstance(data, Mapping):
        return _like(data, {k: _cut_lists(v, start, stop, n) for k, v in data.items()})
    return data


def sizes(batch: Any, name: str = "batch") -> dict[str, int]:
    """Lengths of lists and of the first two axes of tensors, by where they are."""
    if isinstance(batch, Tensor):
        return {f"{name}.shape[{i}]": size for i, size in enumerate(batch.shape[:2])}
    plain = isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields")
    found = {name: len(batch)} if plain else {}
    for key, part in parts(batch):
        found |= sizes(part, f"{name}[{key!r}]")
    return found


def divisible(batch: Any, n: int) -> bool:
    """Can the n samples be taken a few at a time?"""
    return count(batch) == n or n in sizes(batch).values()


def head(batch: Any, k: int, n: int | None = None) -> Any:
    """The first k of the n samples of a batch."""
    return take(batch, 0, k, n)
