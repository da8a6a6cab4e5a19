"""Attention masks of a batch, and the inputs whose tokens they mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cka_widget.engine.batches import map_tensors
from cka_widget.engine.calls import Call

# Inputs of these names belong to a decoder, which has tokens of its own.
_DECODER = ("decoder_", "tgt", "target", "label")
_MASKS = ("attention_mask", "decoder_attention_mask")


def masks_of(batch: Any) -> dict[str, Tensor]:
    """The attention masks of a tokenised batch, by their keys."""
    data = _inputs(batch)
    return {key: data[key] for key in _MASKS if isinstance(data.get(key), Tensor)}


def shortened(batch: Any, mask: str) -> Any:
    """The batch without the last of the tokens that a mask (n, tokens) marks; None if it cannot.

    An encoder's mask does not mark a decoder's tokens, however many there are.
    """
    data = _inputs(batch)
    shape = data[mask].shape
    if len(shape) != 2 or shape[1] < 2:
        return None
    cut = {
        id(t)
        for key, t in data.items()
        if isinstance(t, Tensor) and t.shape[:2] == shape and _side(key) == _side(mask)
    }
    return map_tensors(batch, lambda t: t[:, :-1] if id(t) in cut else t)


def two_sided(batch: Any) -> bool:
    """Does the batch hold tokens of a decoder beside others?"""
    return len({_side(key) for key, t in _inputs(batch).items() if isinstance(t, Tensor)}) > 1


def _side(key: Any) -> bool:
    return str(key).startswith(_DECODER)


def _inputs(batch: Any) -> Mapping[Any, Any]:
    if isinstance(batch, Call):
        return batch.kwargs
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    return batch if isinstance(batch, Mapping) else {}
