"""Attention masks of a batch, and the inputs whose tokens they mark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cka_widget.engine.calls.calls import Call, takes
from cka_widget.engine.data.batches import map_tensors

# Inputs of these names belong to a decoder, which has tokens of its own.
_DECODER = ("decoder_", "tgt", "target", "label")
_MASKS = ("attention_mask", "decoder_attention_mask")
# torch's, which mark the padding.
_PADDING = ("src_key_padding_mask", "tgt_key_padding_mask", "key_padding_mask")
# Which tokens these mark is a matter of the model, or they give lengths.
_UNREAD = re.compile(
    r"(^|_)(pad|padding|input|src|token)_mask$|^mask$|(^|_)(lengths?|seqlens|lens)$"
)


def masks_of(batch: Any) -> dict[str, Tensor]:
    """The masks of a batch that say which tokens count, by their keys; true where one does."""
    data = _inputs(batch)
    found = {key: data[key] for key in (*_MASKS, *_PADDING) if isinstance(data.get(key), Tensor)}
    return {key: _kept(mask, key in _PADDING) for key, mask in found.items()}


def _kept(mask: Tensor, padding: bool) -> Tensor:
    if mask.dim() > 2 and mask.numel() == len(mask) * mask.shape[-1]:  # (n, 1, 1, tokens)
        mask = mask.flatten(1)
    if not mask.is_floating_point():
        return ~mask.bool() if padding else mask.bool()
    added = mask >= 0  # to the scores of attention: 0 where a token counts, far below elsewhere
    return added if padding else torch.where((mask > 0).any(), mask.bool(), added)


def unread_sentence(name: str, call: Call, model: nn.Module, reduce: object) -> str | None:
    """What the result is to say of inputs that mark padding in a way that is not known."""
    places = dict(zip(takes(model).positional, call.args, strict=False))
    known = places.keys() & {*_MASKS, *_PADDING}  # read by their keys only
    found = [key for key in (places | call.kwargs) if _UNREAD.search(key) or key in known]
    if not found or masks_of(call):
        return None
    return (
        f'Model "{name}": reduce="{reduce}" does not read "{found[0]}" of the batch, so that '
        'padding counts as data; give a mapping with the key "attention_mask", (n, tokens), true '
        "where a token counts, and say with forward= how it goes into the model."
    )


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
