"""Are particles of one architecture, so that one of them may compute with another's parameters?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

# What modules keep that is looked at elsewhere, or decides nothing in evaluation mode.
_ASIDE = {"training", "_parameters", "_modules", "_buffers", "_is_full_backward_hook"}


def stacked(models: Sequence[nn.Module], name: str) -> dict[str, Tensor]:
    """Parameters and buffers of all particles, copied side by side along a new first axis.

    Raises:
        ValueError: the particles are not of one architecture, or have no parameters.
    """
    first = dict(_described(models[0], name))
    for number, model in enumerate(models[1:], start=1):
        other = dict(_described(model, name))
        for key in {**first, **other}:
            if key not in first or key not in other or not _same(first[key], other[key]):
                raise ValueError(
                    f'model "{name}": particle {number} differs from particle 0 in "{key}", and '
                    "vmap=True needs particles of one architecture; leave it out to run them one "
                    "by one"
                )
    states = [_state(model) for model in models]
    if not states[0]:
        raise ValueError(f'model "{name}" has no parameters that vmap=True could map; leave it out')
    return {key: torch.stack([s[key].detach() for s in states]) for key in states[0]}


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _described(model: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    """All that must be the same in particles: kinds, settings, hooks and shapes, by dotted name."""
    for path, module in model.named_modules():
        yield path or "(output)", type_before_parametrizations(module)
        for key, value in vars(module).items():
            if key not in _ASIDE:
                # Hooks are numbered in the order of all of the process.
                value = list(value.values()) if key.endswith("_hooks") and value else value
                yield f"{path}.{key}".lstrip("."), value
    for key, tensor in _state(model).items():
        if is_lazy(tensor):
            raise ValueError(f'model "{name}": "{key}" has no shape yet; run the models once')
        yield key, (tensor.shape, tensor.dtype, tensor.device)


def _same(a: Any, b: Any, depth: int = 8) -> bool:
    """Whether two values decide alike; what cannot be told is not."""
    if a is b:
        return True
    if type(a) is not type(b) or not depth:
        return False
    if isinstance(a, nn.Module):
        return True  # its own attributes are looked at where it is registered
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype is b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(_same(a[key], b[key], depth - 1) for key in a)
    if isinstance(a, (tuple, list)):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(_same(x, y, depth - 1) for x, y in pairs)
    if isinstance(a, FunctionType):
        one, other = ((f.__code__, f.__defaults__, _held(f)) for f in (a, b))
        return _same(one, other, depth - 1)
    if isinstance(a, (MethodType, partial)):
        names = (
            ("__func__", "__self__") if isinstance(a, MethodType) else ("func", "args", "keywords")
        )
        return all(_same(getattr(a, name), getattr(b, name), depth - 1) for name in names)
    kind: Any = type(a)
    by_identity = kind.__eq__ is object.__eq__
    try:
        if not by_identity:
            return bool(a == b)
    except Exception:  # of tensors within, say, this is no single truth
        by_identity = True
    return by_identity and bool(getattr(a, "__dict__", None)) and _same(vars(a), vars(b), depth - 1)


def _held(function: FunctionType) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or ()]
