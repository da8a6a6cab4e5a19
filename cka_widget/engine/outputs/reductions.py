"""Fewer features a sample: the mean over space or tokens, or one token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Their 3-D outputs are (n, channels, length); other modules' are (n, tokens, features).
_CHANNELS_FIRST_1D = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.GroupNorm,
)


def mean(x: Tensor, mask: Tensor | None, module: nn.Module | None) -> Tensor:
    """Mean over space, or over the tokens that `mask` (n, tokens) keeps.

    Half precision is averaged in float32: its own rounding would be most of the mean's variance.
    """
    if x.dim() <= 2:
        return x
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.dim() > 3:
        return x.mean(dim=tuple(range(2, x.dim())), dtype=dtype)
    x = tokens(x, module)
    if mask is None or mask.shape != x.shape[:2]:
        return x.mean(dim=1, dtype=dtype)
    kept = mask.bool()[..., None]
    # Not a product: what padding holds, NaN included, must not count.
    total = torch.where(kept, x, 0.0).sum(1, dtype=dtype)
    return total / kept.sum(1).clamp(min=1)


def token(x: Tensor, which: str, mask: Tensor | None, module: nn.Module | None) -> Tensor:
    """The first token ("cls"), or the last one that `mask` (n, tokens) keeps ("last")."""
    x = tokens(x, module)
    if which == "cls":
        return x[:, 0]
    if mask is None or mask.shape != x.shape[:2]:
        return x[:, -1]
    # The last kept token, wherever the padding is.
    position = torch.arange(x.shape[1], device=x.device) * mask.bool()
    return x[torch.arange(x.shape[0], device=x.device), position.argmax(dim=1)]


def needs_mask(reduce: object, x: Tensor) -> bool:
    """Whether padding among the tokens of x would change the reduction."""
    return x.dim() == 3 and reduce in ("mean", "last")


def joined(x: Tensor, module: nn.Module | None) -> Tensor:
    """(n, k, ...) with k entries of each sample beside one another: as tokens, or in space."""
    if x.dim() <= 3:
        return x
    if x.dim() == 4 and not isinstance(module, _CHANNELS_FIRST_1D):
        return x.flatten(1, 2)
    return x.movedim(1, 2).flatten(2, 3)


def tokens(x: Tensor, module: nn.Module | None) -> Tensor:
    """(n, tokens, features), whichever way the module has it."""
    return x.mT if isinstance(module, _CHANNELS_FIRST_1D) else x
