"""Handwritten digits and networks trained on them: the material of the slow checks.

scikit-learn's 1797 images of 8 x 8 pixels, a stratified split of 1200 and 597 (random_state 0),
pixels x / 16 - 0.3. Trained on one thread a network takes 3 to 6 seconds.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

WIDTHS = (16, 32, 64, 64, 128)
CONVS = [f"conv{k}" for k in range(1, 6)]


@cache
def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (n, 1, 8, 8) and labels: the training set and the test set."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16 - 0.3
    labels = torch.tensor(data.target)
    train, test = train_test_split(
        torch.arange(len(labels)), test_size=597, stratify=labels, random_state=0
    )
    return (images[train], labels[train]), (images[test], labels[test])


class Conv(nn.Sequential):
    """Convolution, batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class Net(nn.Module):
    """Five convolutions, stride 2 at the second and fourth; global average; a linear head."""

    def __init__(self) -> None:
        super().__init__()
        for k, (before, width) in enumerate(pairwise((1, *WIDTHS)), start=1):
            self.add_module(f"conv{k}", Conv(before, width, 2 if k in (2, 4) else 1))
        self.head = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        for name in CONVS:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


def untrained(seed: int) -> nn.Module:
    """A network as its seed starts it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net().eval()


@cache
def trained(seed: int, *, permuted_labels: bool = False, epochs: int = 10) -> nn.Module:
    """Adam 2e-3, weight decay 1e-4, cosine, batches of 96; test accuracy about 0.99."""
    images, labels = digits()[0]
    net = untrained(seed).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if permuted_labels:
            labels = labels[torch.randperm(len(labels))]
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=1e-4)
        steps = epochs * -(-len(images) // 96)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for chosen in torch.randperm(len(images)).split(96):
                optimizer.zero_grad()
                cross_entropy(net(images[chosen]), labels[chosen]).backward()
                optimizer.step()
                schedule.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module) -> float:
    """Share of the test set that is classified right."""
    images, labels = digits()[1]
    return (net(images).argmax(1) == labels).float().mean().item()
