"""Call order, repeated calls, shared modules, containers, layers that never run."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from zoo.data import seeded


def mlp(seed: int = 0, d: int = 8, width: int = 16, depth: int = 2, classes: int = 5) -> nn.Module:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        size = d
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        return nn.Sequential(*layers, nn.Linear(size, classes))

    return seeded(build, seed=seed)


class Backwards(nn.Module):
    """Registered last to first, called first to last."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.head = nn.Linear(12, 5)
        self.second = nn.Linear(16, 12)
        self.first = nn.Linear(d, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.relu(self.first(x)))))


class InPlaceChain(nn.Module):
    """Every layer's output is overwritten by what follows it."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 16)
        self.bn = nn.BatchNorm1d(16)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.lin(x)))
        x = x.mul_(2.0).add_(torch.arange(16.0))
        x = self.out(x)
        return x.clamp_(min=0.0)


class CalledTwice(nn.Module):
    """One activation and one linear layer, each called several times."""

    def __init__(self, d: int = 8, times: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(d, 12)
        self.step = nn.Linear(12, 12)
        self.act = nn.Tanh()
        self.head = nn.Linear(12, 4)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        for _ in range(self.times):
            x = self.act(self.step(x))
        return self.head(x)


class DataDependent(nn.Module):
    """Runs its step as often as the batch's first number says."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(d, 12)
        self.step = nn.Linear(12, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        times = 1 + int(x[0, 0] > 0)
        x = self.stem(x)
        for _ in range(times):
            x = torch.tanh(self.step(x))
        return self.head(x)


class Branches(nn.Module):
    """Batches whose first number is positive take `late`, and pass `gate` unchanged no more."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(d, 12)
        self.gate = Gate()
        self.late = nn.Linear(12, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        on = bool(x[0, 0] > 0)
        x = self.gate(self.stem(x), on)
        return self.head(torch.tanh(self.late(x) if on else x))


class Gate(nn.Module):
    def forward(self, x: Tensor, on: bool) -> Tensor:
        return torch.relu(x) if on else x


class SharedModule(nn.Module):
    """The same module object under two names."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.encode = nn.Linear(d, d)
        self.again = self.encode
        self.head = nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.again(torch.relu(self.encode(x)))))


class Nested(nn.Module):
    """Containers whose output is their last child's, three deep, and an eval-time identity."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                inner=nn.Sequential(nn.Linear(d, 12), nn.Sequential(nn.ReLU())),
                drop=nn.Dropout(0.5),
            )
        )
        self.tail = nn.Sequential(nn.Linear(12, 6), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x)) + 1.0


class NeverCalled(nn.Module):
    """An auxiliary head that does not run, a ModuleList that is only a list."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(d, d) for _ in range(3))
        self.aux = nn.Sequential(nn.Linear(d, 4), nn.ReLU())
        self.head = nn.Linear(d, 4)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = torch.relu(step(x))
        return self.head(x)


class Deep(nn.Module):
    """Sequentials in Sequentials."""

    def __init__(self, depth: int = 40, d: int = 8) -> None:
        super().__init__()
        inner: nn.Module = nn.Linear(d, d)
        for _ in range(depth):
            inner = nn.Sequential(inner)
        self.nest = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.nest(x)
