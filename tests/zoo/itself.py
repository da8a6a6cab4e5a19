"""Models that change themselves as they run: hooks, buffers, weights, parts made in a pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def hooks_of(model: nn.Module) -> dict[tuple[str, str], list[Any]]:
    """All hooks of a model, in their order, by module and kind."""
    return {
        (name, kind): list(getattr(module, kind).values())
        for name, module in model.named_modules()
        for kind in HOOKS
    }


class HooksItself(nn.Module):
    """Collects its hidden states by hooks that its first pass registers, as transformers 5 does."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(d, 6), nn.Linear(6, 4))
        self.head = nn.Linear(4, 2)
        self.hooked = False
        self.states: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        if not self.hooked:
            for layer in self.body:
                layer.register_forward_hook(self._keep)
            self.body[1].register_forward_pre_hook(lambda module, args: None)
            self.hooked = True
        self.states.clear()
        out = self.head(self.body(x))
        return SimpleNamespace(logits=out, hidden_states=tuple(self.states))

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.states.append(output)


class Steers(nn.Module):
    """Its first pass registers a hook that changes a layer's output."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin, self.head = nn.Linear(d, 6), nn.Linear(6, 3)
        self.hooked = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.hooked:
            self.lin.register_forward_hook(lambda module, args, output: torch.relu(output))
            self.hooked = True
        return self.head(self.lin(x))


class BuildsItself(nn.Module):
    """Its first pass makes a layer, a buffer, a parametrization and a lazy layer's weights."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lazy, self.lin = nn.LazyLinear(6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lazy(x)
        if not hasattr(self, "scale"):
            self.register_buffer("scale", torch.arange(1.0, 7.0))
            self.late = nn.Linear(6, 3)
            parametrize.register_parametrization(self.lin, "weight", Doubled())
        return self.late(self.lin(x) * self.scale)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Counts(nn.Module):
    """Moves a buffer and a weight at each pass, also in evaluation mode."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin = nn.Linear(d, 6)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.passes += 1
            self.lin.bias += 1
        return self.lin(x)


class MergesInEval(nn.Module):
    """An adapter that `eval()` adds to the weights and `train()` takes away again."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.lin, self.adapter = nn.Linear(d, d), nn.Linear(d, d, bias=False)
        self.merged = False

    def train(self, mode: bool = True) -> MergesInEval:
        if self.merged is mode:
            with torch.no_grad():
                self.lin.weight += self.adapter.weight * (-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) if self.merged else self.lin(x) + self.adapter(x)
