"""Are samples that depend on each other told, and independent ones not?

    python benchmarks/dependence.py [--draws 2000]

Draws samples from a population, puts them through random layers that are wide or a single feature,
or a deep stack of layers, and asks the engine's `Neighbours` of the Grams whether neighbours are
more alike than chance explains. The figures, percent of draws, stand in docs/uncertainty.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from cka_widget.engine.summing.neighbours import Neighbours, votes

WIDTH = 16
_GRAMS = 1 << 21  # numbers of Grams that stand at a time
SIZES = {
    "1x64": [64],
    "2x32": [32] * 2,
    "10x32": [32] * 10,
    "20x32": [32] * 20,
    "9x33+4": [33] * 9 + [4],
    "40x8": [8] * 40,
    "1x256": [256],
}
# Layers whose votes are joined, and their width.
LAYERS = {"1 layer, 1-D": (1, 1), "12 layers, 16-D": (12, 16)}

# Samples (draws, n, 16).
Draw = Callable[[torch.Generator, int, int], Tensor]


def _normal(g: torch.Generator, draws: int, n: int) -> Tensor:
    return torch.randn(draws, n, WIDTH, generator=g)


def _long(g: torch.Generator, draws: int, n: int) -> Tensor:
    return _normal(g, draws, n) * torch.randn(draws, n, 1, generator=g).mul(1.5).exp()


def _fires(g: torch.Generator, draws: int, n: int) -> Tensor:
    return _normal(g, draws, n) * (torch.rand(draws, n, 1, generator=g) < 0.05)


def _classes(g: torch.Generator, draws: int, n: int) -> Tensor:
    centres = torch.randn(10, WIDTH, generator=g)
    return centres[torch.randint(10, (draws, n), generator=g)] + 0.5 * _normal(g, draws, n)


def series(memory: float) -> Draw:
    """Every sample is `memory` times the one before it, and new."""

    def draw(g: torch.Generator, draws: int, n: int) -> Tensor:
        x = _normal(g, draws, n)
        for t in range(1, n):
            x[:, t] = memory * x[:, t - 1] + math.sqrt(1 - memory**2) * x[:, t]
        return x

    return draw


def clips(frames: int, shuffled: bool = False) -> Draw:
    """So many samples in a row share four fifths of their variance."""

    def draw(g: torch.Generator, draws: int, n: int) -> Tensor:
        shared = _normal(g, draws, -(-n // frames)).repeat_interleave(frames, 1)[:, :n]
        x = math.sqrt(0.8) * shared + math.sqrt(0.2) * _normal(g, draws, n)
        return x[:, torch.randperm(n, generator=g)] if shuffled else x

    return draw


INDEPENDENT: dict[str, Draw] = {
    "normal": _normal,
    "log-normal length": _long,
    "fires on 5% of samples": _fires,
    "ten classes": _classes,
}
DEPENDENT: dict[str, Draw] = {
    "AR(0.95)": series(0.95),
    "AR(0.7)": series(0.7),
    "clips of 8": clips(8),
    "runs of 16": clips(16),
    "clips of 8, shuffled": clips(8, shuffled=True),
}


def told(draw: Draw, sizes: list[int], layers: tuple[int, int], draws: int, seed: int = 0) -> float:
    """Share of draws in which neighbours are called more alike than chance."""
    g = torch.Generator().manual_seed(seed)
    count, width = layers
    at_once = max(1, _GRAMS // (count * sum(m * m for m in sizes)))
    found = 0
    for first in range(0, draws, at_once):
        x = draw(g, min(at_once, draws - first), sum(sizes))
        weights = torch.randn(count, len(x), WIDTH, width, generator=g)
        rows = torch.relu(x @ weights) if width > 1 else x[None, ..., :1]
        counts, start = torch.zeros(2, len(x), dtype=torch.long), 0
        for m, same in itertools.groupby(sizes):
            blocks = len(list(same))
            part = rows[:, :, start : start + blocks * m].reshape(len(rows), -1, m, width)
            start += blocks * m
            seen = votes(part @ part.mT).view(len(x), -1)
            counts += torch.stack([(seen > 0).sum(1), (seen != 0).sum(1)])
        found += sum(Neighbours(one).alike() for one in counts.T)
    return found / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| population | layers |", " | ".join(SIZES), "|")
    print("|---" * (len(SIZES) + 2) + "|")
    for (name, draw), (kind, layers) in itertools.product(
        (INDEPENDENT | DEPENDENT).items(), LAYERS.items()
    ):
        rates = [told(draw, sizes, layers, options.draws) for sizes in SIZES.values()]
        print(f"| {name} | {kind} |", " | ".join(f"{100 * r:.1f}" for r in rates), "|", flush=True)


if __name__ == "__main__":
    main()
