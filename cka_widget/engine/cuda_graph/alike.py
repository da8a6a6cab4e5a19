"""Whether two batches go through the same operations."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cka_widget.engine.data.batches import parts


def layout(batches: Mapping[str, Any]) -> Any:
    """Types, names in their order, shapes, and what is no tensor, of every model's batch."""
    order = list({id(batch): None for batch in batches.values()})
    return [(model, order.index(id(batch)), _of(batch)) for model, batch in batches.items()]


def alike(a: Any, b: Any) -> bool:
    """Equal; what cannot be compared differs."""
    try:
        return bool(a == b)
    except Exception:  # arrays have no single answer
        return False


def _of(data: Any) -> Any:
    if isinstance(data, Tensor):
        plain = data.layout is torch.strided and not data.is_nested
        return data.dtype, data.device, (data.shape, data.stride()) if plain else None
    named = parts(data)
    if named:
        return type(data), [(name, _of(part)) for name, part in named]
    try:
        return copy.deepcopy(data)  # whoever gave it may fill it anew
    except Exception:  # an open file, for example: like nothing else
        return object()
