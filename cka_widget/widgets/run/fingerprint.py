"""A fingerprint of the models' weights, to tell whether two runs saw the same models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from cka_widget.engine.models.particles import Pass

PIECE = 1 << 20
"""Numbers weighed at once: their products take eight bytes each."""
_WORDS = {1: torch.uint8, 2: torch.int16}  # of all others 32 bits at a time
# 2^64 over the golden ratio: its multiples have upper bits without a pattern.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)


def fingerprint(passes: Iterable[Pass]) -> Any:
    """A checksum of every parameter and buffer, in integers: exact in any order of summation.

    Every number counts with a weight of its place, so that no two can change places unseen.
    Equal to another one where the weights are the same; weights that cannot be read are never
    the same as any others.
    """
    try:
        with torch.no_grad():
            return tuple(map(_bits, _tensors(passes)))
    except Exception:  # a type of tensor without a view of its bits
        return object()


def _tensors(passes: Iterable[Pass]) -> Iterator[Tensor]:
    runs = list(passes)
    for root in {id(run.root): run.root for run in runs}.values():  # stacked particles share one
        own = (*root.parameters(), *root.buffers())
        yield from (tensor for tensor in own if not is_lazy(tensor) and not tensor.is_meta)
    for run in runs:
        yield from (run.state or {}).values()


def _bits(tensor: Tensor) -> tuple[int, ...]:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    numbers = tensor.detach().resolve_neg().contiguous().flatten()
    words = numbers.view(_WORDS.get(tensor.itemsize, torch.int32))
    places = torch.arange(1, min(len(words), PIECE) + 1, device=words.device).mul_(_GOLDEN) >> 33
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for piece in words.split(PIECE):
        total = total * _GOLDEN + (places[: len(piece)] * piece).sum()
    return (len(words), int(total))
