"""A fingerprint of the models' weights, to tell whether two runs saw the same models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from cka_widget.engine.particles import Pass

PIECE = 1 << 22
"""Numbers summed at once: summing may copy them to a wider type."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(passes: Iterable[Pass]) -> Any:
    """The sum of the bits of every parameter and buffer, exact whatever the order of summation.

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
    words = tensor.detach().resolve_neg().contiguous().flatten().view(_WORDS[tensor.itemsize])
    sums = [piece.sum(dtype=torch.int64) for piece in words.split(PIECE)]
    return (words.numel(), int(torch.stack(sums).sum()))
