"""How often is chance called above chance, and how small a true CKA is found?

    python benchmarks/above_chance.py                       # everything, half an hour
    python benchmarks/above_chance.py rates --draws 200     # one table, in a minute

Draws two models' features from a population, six layers each, and asks `above_chance` at alpha
0.01. The first table counts the draws in which any cell of independent layers is called above
chance, the second the share of the cells found where every layer of one model shares a signal with
every layer of the other. "before" is the rule that took the null for a chi-square with as many
degrees of freedom as blocks, all of the mean size. HSICs, sums and verdicts are the engine's;
only the hooks are left out, so that many draws go at a time, and `check` holds them to `compare`.
The figures stand in docs/uncertainty.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from cka_widget.engine.compare import compare
from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.summing.products import plain_products
from cka_widget.engine.summing.running_sums import Sums
from cka_widget.result.result import CKAResult
from cka_widget.result.row_index import ModelRows

ALPHA = 0.01
LAYERS = 6
# Blocks' sizes, by the name of the column.
SIZES = {
    "1x32": [32],
    "5x32": [32] * 5,
    "10x32": [32] * 10,
    "40x32": [32] * 40,
    "9x32+4": [32] * 9 + [4],
}
OTHER_SIZES = {
    "10x8": [8] * 10,
    "1x64": [64],
    "1x256": [256],
    "4x256": [256] * 4,
    "2x512+20x8": [512] * 2 + [8] * 20,
}

Draw = Callable[[torch.Generator, int, int], Tensor]


def _normal(width: int) -> Draw:
    return lambda g, rows, n: torch.randn(rows, n, width, generator=g)


def _long(g: torch.Generator, rows: int, n: int) -> Tensor:
    return _normal(16)(g, rows, n) * torch.randn(rows, n, 1, generator=g).mul(1.5).exp()


def _long_together(g: torch.Generator, rows: int, n: int) -> Tensor:
    return _normal(16)(g, rows, n) * torch.randn(n, 1, generator=g).mul(1.5).exp()


def _fires(width: int) -> Draw:
    def draw(g: torch.Generator, rows: int, n: int) -> Tensor:
        fires = torch.rand(rows, n, 1, generator=g) < 0.05
        return fires * (_normal(width)(g, rows, n) if width > 1 else torch.ones(rows, n, 1))

    return draw


def _series(g: torch.Generator, rows: int, n: int) -> Tensor:
    x = _normal(16)(g, rows, n)
    for t in range(1, n):
        x[:, t] = 0.95 * x[:, t - 1] + math.sqrt(1 - 0.95**2) * x[:, t]
    return x


POPULATIONS: dict[str, Draw] = {
    "normal, 16-D": _normal(16),
    "normal, 1-D": _normal(1),
    "log-normal length, 16-D": _long,
    "log-normal, 1-D": lambda g, rows, n: _normal(1)(g, rows, n).mul(1.5).exp(),
    "fires on 5% of samples, 16-D": _fires(16),
    "fires on 5% of samples, 1-D": _fires(1),
    "one of 100 classes": lambda g, rows, n: nn.functional.one_hot(
        torch.randint(100, (rows, n), generator=g), 100
    ).float(),
}
# Not independent: neighbours in time, and lengths that both models see.
DEPENDENT: dict[str, Draw] = {"AR(0.95), 16-D": _series, "long together, 16-D": _long_together}


def sharing(width: int, score: float) -> Draw:
    """Normals of which every pair of a row of the first half and one of the second has this CKA."""

    def draw(g: torch.Generator, rows: int, n: int) -> Tensor:
        shared = torch.randn(n, width, generator=g)
        own = _normal(width)(g, rows, n)
        return score**0.25 * shared + math.sqrt(1 - math.sqrt(score)) * own

    return draw


def batches(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Size and number of the blocks of every batch, which has 256 samples or one block."""
    for m, same in itertools.groupby(sizes):
        left, most = len(list(same)), max(1, 256 // m)
        while left > 0:
            yield m, min(left, most)
            left -= most


def results(
    draw: Draw, sizes: list[int], draws: int, particles: int = 1, seed: int = 0
) -> Iterator[CKAResult]:
    """Runs on so many draws of 2 x `LAYERS` layers of so many particles."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * LAYERS * particles
    models = tuple(ModelRows(m, tuple(map(str, range(LAYERS))), particles) for m in "ab")
    for _ in range(draws):
        x = draw(generator, rows, sum(sizes))
        sums, start = Sums(rows, torch.device("cpu")), 0
        for m, blocks in batches(sizes):
            part = x[:, start : start + blocks * m].unflatten(1, (blocks, m))
            start += blocks * m
            found, _ = plain_products(CKA(), part @ part.mT, [])
            sums.add(found.h, found.h.diagonal(dim1=-2, dim2=-1), m, found.shapes)
        yield CKAResult(models, sums.on_host(), (None,) * rows, sum(sizes), len(sizes))


def above(result: CKAResult) -> np.ndarray:
    """The verdict of every cell."""
    return result.above_chance("a", "b", ALPHA).to_numpy()


def above_before(result: CKAResult) -> np.ndarray:
    """The same by a chi-square with as many degrees of freedom as blocks, of the mean size."""
    sums, b = result.sums, result.blocks
    m = result.samples / b
    with np.errstate(invalid="ignore", divide="ignore"):
        d = np.where(sums.d > 0, sums.d, np.nan)
        deviation = np.sqrt(2 / (m * (m - 3)) * sums.dd / np.outer(d, d))
        ratio = result.matrix("a", "b").to_numpy() / result.over_pairs(deviation, "a", "b").mean(0)
        width = 2 / (9 * b)
        root = np.cbrt(np.maximum(1 + 3 * math.sqrt(width) * ratio, 0))
        z = (root - (1 - width)) / math.sqrt(width)
        return z >= -NormalDist().inv_cdf(ALPHA / max((~np.isnan(ratio)).sum(), 1))


def rates(
    draw: Draw, sizes: list[int], draws: int, particles: int = 1
) -> tuple[float, float, float, float]:
    """Share of draws with any cell above chance, before and now, and of cells, before and now."""
    found = np.array(
        [
            (old.any(), new.any(), old.mean(), new.mean())
            for old, new in (
                (above_before(r), above(r)) for r in results(draw, sizes, draws, particles)
            )
        ]
    )
    before, now, cells_before, cells_now = found.mean(0)
    return before, now, cells_before, cells_now


class Slices(nn.Module):
    """Layers that give out one row each of samples (n, rows, width)."""

    def __init__(self, rows: range) -> None:
        super().__init__()
        self.rows = rows
        self.layers = nn.ModuleList(nn.Identity() for _ in rows)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x[:, row]) for row, layer in zip(self.rows, self.layers, strict=True)]


def check(population: str, sizes: list[int]) -> float:
    """Largest relative difference between the sums of one draw here and `compare`'s."""
    draw, rows = POPULATIONS[population], 2 * LAYERS
    (here,) = results(draw, sizes, 1)
    x = draw(torch.Generator().manual_seed(0), rows, sum(sizes)).transpose(0, 1)
    models = {"a": Slices(range(LAYERS)), "b": Slices(range(LAYERS, rows))}
    given = x.split([m * blocks for m, blocks in batches(sizes)])
    whole = compare(
        models, list(given), layers="layers.*", hsic_batch_size=max(sizes), progress=False
    )
    names = ("h", "d", "dd", "chance2", "chance4")
    pairs = [(getattr(here.sums, name), getattr(whole.sums, name)) for name in names]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def line(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def head(*columns: object) -> None:
    print()
    line(*columns)
    print("|---" * len(columns) + "|")


def print_rates(draws: int) -> None:
    """Independent features, and dependent ones: draws with any cell above chance."""
    head("population", *SIZES)
    for name, draw in (POPULATIONS | DEPENDENT).items():
        found = [rates(draw, sizes, draws) for sizes in SIZES.values()]
        line(name, *(f"{100 * before:.1f}, {100 * now:.1f}" for before, now, *_ in found))


def print_sizes(draws: int) -> None:
    """The same for blocks of other sizes; fewer draws where they are large."""
    head("population", *OTHER_SIZES)
    for name, draw in POPULATIONS.items():
        found = [
            rates(draw, sizes, min(draws, max(500, 30_000_000 // sum(m * m for m in sizes))))
            for sizes in OTHER_SIZES.values()
        ]
        line(name, *(f"{100 * before:.1f}, {100 * now:.1f}" for before, now, *_ in found))


def print_particles(draws: int) -> None:
    """Means over the pairs of four independent particles a model."""
    head("population", "10x32")
    for name, draw in POPULATIONS.items():
        before, now, *_ = rates(draw, SIZES["10x32"], draws // 2, particles=4)
        line(name, f"{100 * before:.1f}, {100 * now:.1f}")


def print_power(draws: int) -> None:
    """Share of the cells found, by their true CKA."""
    scores = (0.02, 0.05, 0.1, 0.2, 0.4)
    head("population", *scores)
    for width, name in itertools.product((16, 1), SIZES):
        found = [rates(sharing(width, score), SIZES[name], draws // 10) for score in scores]
        cells = (f"{100 * before:.0f}, {100 * now:.0f}" for *_, before, now in found)
        line(f"normal, {width}-D, {name}", *cells)


TABLES = {
    "rates": print_rates,
    "sizes": print_sizes,
    "particles": print_particles,
    "power": print_power,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=[], help=", ".join(TABLES))
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    if unknown := set(options.tables) - set(TABLES):
        parser.error(f"no table {sorted(unknown)[0]}; choose from {', '.join(TABLES)}")
    torch.set_num_threads(1)
    for name in options.tables or TABLES:
        TABLES[name](options.draws)


if __name__ == "__main__":
    main()
