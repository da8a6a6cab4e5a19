"""What is measured: models, batches and layers, the same for every contestant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import models
import torch
from torch import Tensor, nn


@dataclass
class Workload:
    """Two models, or one ensemble, or one model; batches in memory; which layers."""

    name: str
    title: str
    models: dict[str, nn.Module | list[nn.Module]]
    batches: list[Tensor]
    layers: list[str] | None  # None: all named modules
    hsic: tuple[int | None, ...]  # HSIC batch sizes of this project
    threads: int

    @property
    def roots(self) -> list[nn.Module]:
        """Every module that runs once a batch."""
        return [
            root
            for model in self.models.values()
            for root in (model if isinstance(model, list) else [model])
        ]

    @property
    def ensemble(self) -> bool:
        return any(isinstance(model, list) for model in self.models.values())

    def names(self, root: nn.Module) -> list[str]:
        """The modules compared."""
        return self.layers or [name for name, _ in root.named_modules() if name]


def images(n: int, size: int, channels: int = 3, classes: int = 10) -> Tensor:
    """Noisy copies of smooth patterns: activations differ by class, as those of pictures do."""
    coarse = torch.randn(classes, channels, 4, 4)
    patterns = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return patterns[torch.arange(n) % classes] + 0.5 * torch.randn(n, channels, size, size)


def _batches(n: int, make: Callable[[], Tensor]) -> list[Tensor]:
    return [make() for _ in range(n)]


def w1(batches: int, size: float) -> Workload:
    n = max(8, int(64 * size))
    data = _batches(batches, lambda: images(n, 64))
    a, b = models.warmed(models.resnet18(), data[0]), models.warmed(models.resnet34(), data[0])
    title = f"ResNet-18 x ResNet-34, all 67 x 115 modules, 3x64x64, batch {n}"
    return Workload("W1", title, {"ResNet-18": a, "ResNet-34": b}, data, None, (None, 16), 2)


def w2(batches: int, size: float, kind: str = "cnn", particles: int = 8) -> Workload:
    n = max(64, int(256 * size))
    data = _batches(4 * batches, lambda: images(n, 8, channels=1))  # they are quick
    make: Callable[[], nn.Module] = models.DigitsCNN if kind == "cnn" else models.digits_mlp
    ensemble = [models.warmed(make(), data[0]) for _ in range(particles)]
    leaves = [name for name, module in ensemble[0].named_modules() if not list(module.children())]
    title = f"{particles} digits {kind.upper()} particles, all {len(leaves)} leaves, batch {n}"
    name = "W2" if kind == "cnn" else "W2-mlp"
    return Workload(name, title, {"ensemble": list(ensemble)}, data, leaves, (None, 32), 1)


def w3(batches: int, size: float) -> Workload:
    n = max(8, int(32 * size))
    data = _batches(batches, lambda: torch.randn(n, 64, 384) + torch.randn(n, 1, 384))
    pair = {name: models.Encoder().eval() for name in ("encoder A", "encoder B")}
    layers = [f"blocks.{i}" for i in range(12)]
    title = f"two 12-block transformer encoders, 12 x 12 block outputs, {n} x 64 tokens x 384"
    return Workload("W3", title, dict(pair), data, layers, (None,), 2)


def w4(batches: int, size: float) -> Workload:
    n = max(8, int(32 * size))
    data = _batches(batches, lambda: images(n, 64))
    a = models.warmed(models.resnet50(), data[0])
    b = models.warmed(models.wide_resnet50(), data[0])
    title = f"ResNet-50 x WideResNet-50, all 150 x 150 modules, 3x64x64, batch {n}"
    return Workload("W4", title, {"ResNet-50": a, "WideResNet-50": b}, data, None, (None,), 2)


WORKLOADS: dict[str, Callable[[int, float], Workload]] = {
    "W1": w1,
    "W2": w2,
    "W2-mlp": lambda batches, size: w2(batches, size, "mlp"),
    "W3": w3,
    "W4": w4,
}


def build(name: str, batches: int, size: float = 1.0) -> Workload:
    """A workload with fixed seed, so that every process sees the same numbers."""
    torch.manual_seed(0)
    return WORKLOADS[name](batches, size)
