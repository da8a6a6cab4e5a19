"""Seeds and batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def seeded(build: Any, *args: Any, seed: int = 0, **kwargs: Any) -> Any:
    """Build a model from a seed, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*args, **kwargs)


def images(n: int = 48, size: int = 16, batch: int = 16, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(n, 3, size, size, generator=generator).split(batch))


def vectors(n: int = 48, d: int = 8, batch: int = 16, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(n, d, generator=generator).split(batch))


def tokens(
    n: int = 24, length: int = 7, d: int = 8, batch: int = 12, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(n, length, d, generator=generator).split(batch))
