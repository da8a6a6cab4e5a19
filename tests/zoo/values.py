"""Means far from zero, dead layers, NaN, memory layouts, failures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.outputs import Returns


class Dead(nn.Module):
    """A layer whose output does not depend on the sample, beside healthy ones."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 12)
        self.dead = nn.Linear(12, 7)
        self.relu = nn.ReLU()
        self.head = nn.Linear(12, 4)
        nn.init.zeros_(self.dead.weight)
        nn.init.constant_(self.dead.bias, -1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lin(x)
        self.relu(self.dead(x))
        return self.head(torch.tanh(x))


class Shifted(nn.Module):
    """Features with mean `mean` and standard deviation of about 0.6."""

    def __init__(self, mean: float, d: int = 8, width: int = 64) -> None:
        super().__init__()
        self.lin = nn.Linear(d, width)
        nn.init.normal_(self.lin.weight, 0.0, 0.6 / d**0.5)
        nn.init.constant_(self.lin.bias, mean)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lin(x)
        return self.head(h - h.mean(1, keepdim=True))


class MakesNaN(nn.Module):
    """One layer in the middle gives NaN (or Inf), and what follows does not use it."""

    def __init__(self, value: float = float("nan"), d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 12)
        self.bad = Affine(value)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lin(x)
        self.bad(x)
        return self.head(torch.relu(x))


class Affine(nn.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Raises(nn.Module):
    """Fails inside a named layer at the given batch of more than 3 samples (counted from 1)."""

    def __init__(self, at: int = 2, d: int = 8, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 12)
        self.fuse = Fuse(at, error)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fuse(torch.relu(self.lin(x))))


class Fuse(nn.Module):
    def __init__(self, at: int, error: type[BaseException]) -> None:
        super().__init__()
        self.at, self.error, self.count = at, error, 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x) > 3
        if self.count == self.at and len(x) > 3:
            raise self.error("the fuse blew")
        return x * 1.0


class Layouts(nn.Module):
    """Outputs that are channels-last, transposed, strided, expanded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.last = Returns(lambda x: x.contiguous(memory_format=torch.channels_last) * 1)
        self.turned = Returns(lambda x: x.permute(0, 3, 1, 2))
        self.strided = Returns(lambda x: x[:, ::2, 1::3, ::2])
        self.flipped = Returns(lambda x: x.flatten(1).t().contiguous().t())
        self.expanded = Returns(lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        parts = (self.last, self.turned, self.strided, self.flipped, self.expanded)
        return sum(part(x).flatten(1).mean(1, keepdim=True) for part in parts)
