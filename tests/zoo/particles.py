"""Members of ensembles: with settings, notes and buffers of their own, and shared weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.calls import mlp
from zoo.data import seeded


class Chosen(nn.Module):
    """What a forward pass computes hangs on an attribute."""

    def __init__(self, activation: Any = torch.relu, pools: Any = 2) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.activation, self.pools = activation, pools

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.lin(x))


class Counted(nn.Module):
    """Notes in one list for all particles how many samples it ran on, if more than 3."""

    def __init__(self, seen: list[int], seed: int) -> None:
        super().__init__()
        self.inner = mlp(seed)
        self.note = seen.append

    def __deepcopy__(self, memo: Any) -> Counted:
        made = Counted.__new__(Counted)
        nn.Module.__init__(made)
        made.inner, made.note = copy.deepcopy(self.inner, memo), self.note
        return made

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 3:
            self.note(len(x))
        return self.inner(x)


class Keeps(nn.Module):
    """Builds a mask on its first batch, counts its calls, and keeps what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.head = nn.Linear(8, 6), nn.Linear(6, 4)
        self.mask: Tensor | None = None
        self.last: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.last = torch.relu(self.lin(x))
        if self.mask is None:
            self.mask = self.last.new_ones(6).cumsum(0)
        self.calls += 1
        return self.head(self.last * self.mask)


class Steps(nn.Module):
    """Gives its buffer a new value in every pass."""

    k: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.register_buffer("k", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sin(self.lin(x) * (1 + 3 * self.k))
        self.k = self.k + 1
        return y


class Tied(nn.Module):
    def __init__(self, tie: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        if tie:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def weight_normed() -> nn.Module:
    norm = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(8, 6)), nn.ReLU(), norm(nn.Linear(6, 4)))


class BeforeAnyParameter(nn.Module):
    """Its first output is the same in all particles."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Tanh()
        self.lin = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(self.scale(x))


def ensemble(build: Any, *args: Any, count: int = 3) -> list[nn.Module]:
    """Particles that differ in their seed."""
    return [seeded(build, *args, seed=seed) for seed in range(count)]
