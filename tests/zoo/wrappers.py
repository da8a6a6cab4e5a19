"""Counters, frozen children, very many modules, a particle axis; and state before and after."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ParticleAxis(nn.Module):
    """Layers whose outputs carry a leading particle axis (P, n, d)."""

    def __init__(self, particles: int = 3, d: int = 8, width: int = 10) -> None:
        super().__init__()
        self.lin = ParticleLinear(particles, d, width)
        self.act = nn.ReLU()
        self.head = ParticleLinear(particles, width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.lin(x)))


class ParticleLinear(nn.Module):
    def __init__(self, particles: int, d: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(particles, d, width) / d**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Counting(nn.Module):
    """Counts how often it runs, and on which number of samples: of 2 or 3 in `probed`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.sizes: list[int] = []
        self.probed: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.sizes if len(x) > 3 else self.probed).append(len(x))
        return self.inner(x)


class CountingLoader:
    """An iterable that counts how often it is drawn, shuffled differently each time."""

    def __init__(self, data: Tensor, batch: int, shuffle: bool = True) -> None:
        self.data, self.batch, self.shuffle, self.drawn = data, batch, shuffle, 0

    def __iter__(self) -> Any:
        self.drawn += 1
        generator = torch.Generator().manual_seed(self.drawn)
        order = torch.arange(len(self.data))
        if self.shuffle:
            order = torch.randperm(len(self.data), generator=generator)
        return iter(self.data[order].split(self.batch))

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch)


class FrozenChild(nn.Module):
    """In training mode, with a frozen batch norm that must stay in eval mode."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 12)
        self.norm = nn.BatchNorm1d(12)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(12, 4)
        self.train()
        self.norm.eval()
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(F.relu(self.norm(self.lin(x)))))


class WideFlat(nn.Module):
    """Many modules, little work: for the time that a watch costs."""

    def __init__(self, modules: int = 2000, d: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Identity()) for _ in range(modules // 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a measurement must leave as it found it."""
    hooks = {
        name: [len(v) for k, v in sorted(vars(m).items()) if "hooks" in k and isinstance(v, dict)]
        for name, m in model.named_modules()
    }
    return {
        "hooks": hooks,
        "training": {name: m.training for name, m in model.named_modules()},
        "grad": {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "device": {name: (p.device, p.dtype) for name, p in model.named_parameters()},
        "pointers": {name: p.data_ptr() for name, p in model.named_parameters()},
        "buffers": {name: b.clone() for name, b in model.named_buffers()},
        "grad_enabled": torch.is_grad_enabled(),
        "random": torch.random.get_rng_state(),
    }


def assert_same_state(before: dict[str, Any], model: nn.Module) -> None:
    after = state_of(model)
    for key in ("hooks", "training", "device", "pointers", "grad_enabled"):
        assert after[key] == before[key], key
    for name, (requires, grad) in before["grad"].items():
        assert after["grad"][name][0] is requires, name
        assert after["grad"][name][1] is grad, name
    for name, buffer in before["buffers"].items():
        assert torch.equal(after["buffers"][name], buffer), name
    assert torch.equal(after["random"], before["random"]), "global random state"
