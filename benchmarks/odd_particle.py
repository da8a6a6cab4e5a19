"""How often is a particle called odd where none is, and found where one is?

    python benchmarks/odd_particle.py [--draws 2000] [--write] [NAME ...]

Draws matrices of particle x particle scores and asks `particle_stats.judge`. NAME picks lines of
the table by how they begin; --write renews them in docs/particles.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cka_widget.engine.compare import compare
from cka_widget.result.particle_stats import judge

PAGE = Path(__file__).parents[1] / "docs" / "particles.md"
SHOWN = (3, 4, 5, 6, 8, 12, 16, 24, 32)
SIZES = range(3, 33)
POOL, ODD = 64, 16
LAYERS = ("1", "3", "4")
"""Both hidden layers after their ReLU, and the logits."""

Array = np.ndarray
Random = np.random.Generator


class Draw(NamedTuple):
    """One matrix, and what `judge` is told beside it."""

    scores: Array
    stderr: Array | None = None
    same: bool = True
    within: tuple[Array | None, Array | None] = (None, None)


def noise(g: Random, size: int, deviation: float | Array) -> Array:
    """Symmetric, as between the particles of one ensemble."""
    upper = np.triu(deviation * g.standard_normal((size, size)), 1)
    return upper + upper.T


def shared(g: Random, size: int) -> Draw:
    return Draw(0.8 + noise(g, size, 0.02))


def of_quality(g: Random, size: int, quality: Array, deviation: float = 0.01) -> Draw:
    return Draw(
        np.outer(quality, quality) + noise(g, size, deviation), np.full((size, size), deviation)
    )


def uniform(g: Random, size: int) -> Draw:
    return of_quality(g, size, g.uniform(0.3, 0.9, size))


def roots(g: Random, size: int) -> Draw:
    return of_quality(g, size, np.sqrt(g.uniform(0.3, 0.9, size)), 0.005)


def heavy(g: Random, size: int) -> Draw:
    return of_quality(g, size, np.exp(-0.15 * np.abs(g.standard_t(2, size))))


def unequal_noise(g: Random, size: int) -> Draw:
    """Each particle has an error of its own, and the standard errors are known."""
    own = np.exp(g.uniform(np.log(0.005), np.log(0.2), size))
    stderr = np.maximum(own[:, None], own)
    return Draw(0.8 + noise(g, size, stderr), stderr)


def in_groups(g: Random, size: int, first: int) -> Draw:
    """Two groups, the first of so many; within .5 to .95, between .05 to .4, quality .85 to 1."""
    group = (np.arange(size) < first).astype(int)
    level = np.diag(g.uniform(0.5, 0.95, 2))
    level[0, 1] = level[1, 0] = g.uniform(0.05, 0.4)
    quality = g.uniform(0.85, 1, size)
    return Draw(np.outer(quality, quality) * level[np.ix_(group, group)] + noise(g, size, 0.02))


def two_modes(g: Random, size: int) -> Draw:
    return in_groups(g, size, int(g.integers(2, size - 1)))


def mode_of_two(g: Random, size: int) -> Draw:
    return in_groups(g, size, 2)


def mode_of_one(g: Random, size: int) -> Draw:
    return in_groups(g, size, 1)


def between(whole: Draw, rows: list[int]) -> Draw:
    """The block between two ensembles of one matrix, with what is known inside each."""
    inside = np.isin(np.arange(len(whole.scores)), rows)
    pick = np.ix_(inside, ~inside)
    stderr = None if whole.stderr is None else whole.stderr[pick]
    own = tuple(whole.scores[np.ix_(side, side)] for side in (inside, ~inside))
    return Draw(whole.scores[pick], stderr, False, (own[0], own[1]))


def uniform_between(g: Random, size: int) -> Draw:
    return between(uniform(g, 2 * size), list(range(size)))


def modes_between(g: Random, size: int) -> Draw:
    """Two modes, of which the first ensemble has at least two members, the second all of one."""
    few = int(g.integers(2, size - 1))
    return between(in_groups(g, 2 * size, few), list(range(size)))


class Pool(NamedTuple):
    """Scores and standard errors between many networks, by layer; the last ones may be odd."""

    scores: dict[str, Array]
    stderr: dict[str, Array]
    usual: Array
    shuffled: Array
    untrained: Array


def networks(width: int, shuffled: bool = False, epochs: int = 30) -> tuple[list[nn.Module], Array]:
    """POOL digits networks of two hidden layers, trained side by side, and their accuracies."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.data, dtype=torch.float32)[order] / 16 - 0.3
    y = torch.tensor(data.target)[order]
    count = ODD if shuffled or not epochs else POOL
    g = torch.Generator().manual_seed(width + 100 * shuffled + 1000 * (epochs == 0))
    shapes = [(64, width), (width, width), (width, 10)]

    def start(inputs: int, *shape: int) -> Tensor:
        return ((torch.rand(count, *shape, generator=g) * 2 - 1) / inputs**0.5).requires_grad_()

    weights = [start(a, a, b) for a, b in shapes]
    biases = [start(a, 1, b) for a, b in shapes]

    def forward(h: Tensor) -> Tensor:
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = torch.baddbmm(bias, h.relu() if k else h, weight)
        return h

    targets = y[:1200].expand(count, -1)
    if shuffled:
        targets = torch.stack([t[torch.randperm(1200, generator=g)] for t in targets])
    optimizer = torch.optim.Adam([*weights, *biases], lr=5e-3)
    for _ in range(epochs):
        mixed = torch.stack([torch.randperm(1200, generator=g) for _ in range(count)])
        for rows in mixed.split(100, 1):
            optimizer.zero_grad()
            out = forward(x[rows])
            cross_entropy(
                out.flatten(0, 1), targets.gather(1, rows).flatten(), reduction="sum"
            ).div(100).backward()
            optimizer.step()
    with torch.no_grad():
        right = forward(x[1200:].expand(count, -1, -1)).argmax(-1) == y[1200:]
    nets: list[nn.Module] = []
    for m in range(count):
        lines = [nn.Linear(a, b) for a, b in shapes]
        with torch.no_grad():
            for line, weight, bias in zip(lines, weights, biases, strict=True):
                line.weight.copy_(weight[m].T)
                line.bias.copy_(bias[m, 0])
        nets.append(nn.Sequential(lines[0], nn.ReLU(), lines[1], nn.ReLU(), lines[2]))
    return nets, right.float().mean(1).numpy()


@cache
def pool(width: int) -> Pool:
    """All pairs of the networks of one width; those that learned less than half are left out."""
    torch.set_num_threads(1)
    nets, accuracy = networks(width)
    odd = [*networks(width, shuffled=True)[0], *networks(width, epochs=0)[0]]
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16 - 0.3
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    result = compare(
        {"nets": [*nets, *odd]},
        list(images[order][1200:].split(32)),
        layers=list(LAYERS),
        device="cpu",
        progress=False,
    )
    tables = [
        {layer: read("nets", "nets", row=layer, col=layer).to_numpy(float) for layer in LAYERS}
        for read in (result.particles, result.particles_stderr)
    ]
    usual = np.flatnonzero(accuracy >= 0.5)
    return Pool(tables[0], tables[1], usual, *np.arange(POOL, POOL + 2 * ODD).reshape(2, ODD))


def digits(width: int) -> Callable[[Random, int], Draw]:
    """Different networks of the pool, at one of its layers."""

    def draw(g: Random, size: int) -> Draw:
        nets, layer = pool(width), LAYERS[g.integers(len(LAYERS))]
        pick = g.choice(nets.usual, size, replace=False)
        block = np.ix_(pick, pick)
        return Draw(nets.scores[layer][block], nets.stderr[layer][block])

    return draw


def odd_digits(width: int, kind: str, layer: str) -> Callable[[Random, int], Draw]:
    """Networks of the pool, of which number 1 is of another kind."""

    def draw(g: Random, size: int) -> Draw:
        nets = pool(width)
        pick = g.choice(nets.usual, size, replace=False)
        pick[1] = g.choice(getattr(nets, kind))
        block = np.ix_(pick, pick)
        return Draw(nets.scores[layer][block], nets.stderr[layer][block])

    return draw


def one_low(g: Random, size: int) -> Draw:
    scores = np.full((size, size), 0.8)
    scores[1] = scores[:, 1] = 0.3
    return Draw(scores + noise(g, size, 0.02), np.full(scores.shape, 0.02))


def one_low_between(g: Random, size: int) -> Draw:
    return between(one_low(g, 2 * size), list(range(size)))


class Line(NamedTuple):
    """A line of the table: a population, from how many particles on, and whether #1 is odd."""

    name: str
    draw: Callable[[Random, int], Draw]
    least: int = 3
    odd: bool = False


LINES = [
    Line("shared signal .8, noise .02", shared),
    Line("quality uniform .3 to .9", uniform),
    Line("its root uniform, pairs .3 to .9", roots),
    Line("errors .005 to .2, known", unequal_noise),
    Line("two modes of two or more", two_modes, 4),
    Line("a mode of two", mode_of_two, 4),
    Line("digits networks 6 wide", digits(6)),
    Line("digits networks 16 wide", digits(16)),
    Line("digits networks 32 wide", digits(32)),
    Line("two ensembles, quality uniform", uniform_between),
    Line("two ensembles, two modes in one", modes_between, 4),
    Line("heavy-tailed quality", heavy),
    Line("a mode of one", mode_of_one),
    Line("**found:** .3 among .8, noise .02", one_low, odd=True),
    Line("**found:** the same, two ensembles", one_low_between, odd=True),
    Line("**found:** shuffled labels, 32 wide", odd_digits(32, "shuffled", "3"), odd=True),
    Line("**found:** untrained, 32 wide", odd_digits(32, "untrained", "3"), odd=True),
]
"""Particles of one kind; then two where an alarm is partly or wholly true; then an odd one."""


def rate(line: Line, size: int, draws: int, seed: int = 0) -> float:
    """Share of draws in which somebody is called odd or, where #1 is odd, #1 and nobody else."""
    g, hits = np.random.default_rng([seed, size]), 0
    for _ in range(draws):
        scores, stderr, same, within = line.draw(g, size)
        found = judge(scores, same=same, stderr=stderr, within=within).odd
        named = [(one.axis, one.particle) for one in found]
        hits += named == [("row", 1)] if line.odd else bool(named)
    return hits / draws


def row(line: Line, draws: int) -> str:
    """A row of the Markdown table; the last column is the worst of all sizes."""
    rates = {size: rate(line, size, draws) for size in SIZES if size >= line.least}
    judged = {size: share for size, share in rates.items() if size > 3} if line.odd else rates
    worst = (min if line.odd else max)(judged, key=lambda size: judged[size])
    cells = [f"{rates[size]:.1%}" if size in rates else "" for size in SHOWN]
    return f"| {line.name} | {' | '.join(cells)} | {rates[worst]:.1%} ({worst}) |"


def write(new: str) -> None:
    """Put a row in place of the one with the same name."""
    name = new.split(" | ")[0]
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    PAGE.write_text(
        "".join(f"{new if old.startswith(name + ' |') else old}\n" for old in rows), "utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="renew the rows in docs/particles.md")
    options = parser.parse_args()
    print("| particles |", " | ".join(map(str, SHOWN)), "| worst |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for line in LINES:
        if not options.names or any(line.name.startswith(name) for name in options.names):
            new = row(line, options.draws)
            print(new, flush=True)
            if options.write:
                write(new)


if __name__ == "__main__":
    main()
