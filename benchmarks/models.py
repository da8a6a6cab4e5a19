"""The models of the benchmarks, with random weights: what is timed does not depend on training.

The residual networks have torchvision's module names, counts and in-place ReLUs, because a module
whose output the next one overwrites is what a comparison of all layers has to cope with.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, factor: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        x += shortcut
        return self.relu(x)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = width * factor
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        x += shortcut
        return self.relu(x)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module | None:
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    """He et al. 2015; `factor` 2 gives the wide one of Zagoruyko and Komodakis 2016."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], factor: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for i, depth in enumerate(depths):
            width, blocks = 64 << i, []
            for j in range(depth):
                blocks.append(block(channels, width, 2 if i and not j else 1, factor))
                channels = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18() -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2))


def resnet34() -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3))


def resnet50() -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3))


def wide_resnet50() -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), factor=2)


class DigitsCNN(nn.Module):
    """24 thousand parameters for 1x8x8 images; ten leaf modules, each called once."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 16, 32, 64)
        self.features = nn.Sequential(
            *(
                module
                for i, o in itertools.pairwise(channels)
                for module in (
                    nn.Conv2d(i, o, 3, padding=1, bias=False),
                    nn.BatchNorm2d(o),
                    nn.ReLU(),
                )
            )
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def digits_mlp(width: int = 256) -> nn.Sequential:
    """217 thousand parameters for 1x8x8 images; ten leaf modules."""
    hidden = [m for _ in range(3) for m in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), *hidden, nn.Linear(width, 10)
    )


class Block(nn.Module):
    """Pre-norm transformer block (`nn.TransformerEncoderLayer` runs other code when hooked)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Transformer encoder on (n, tokens, width), blocks `blocks.0` to `blocks.11`."""

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6, classes: int = 100):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021), the mean of its tokens for its class token."""

    def __init__(self, pixels: int, width: int = 384, depth: int = 12, patch: int = 16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn((pixels // patch) ** 2, width))
        self.encoder = Encoder(width, depth, heads=width // 64, classes=1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.patches(x).flatten(2).mT + self.position)


def chain(depth: int, width: int) -> nn.Sequential:
    """Linear layers of equal width that keep the scale of their inputs."""
    layers = [nn.Linear(width, width) for _ in range(depth)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=width**-0.5)
    return nn.Sequential(*layers)


def warmed(module: nn.Module, batch: Tensor) -> nn.Module:
    """Batch statistics set from one batch, so that activations keep a usual scale; then eval."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()
    with torch.no_grad():
        module(batch)
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()
