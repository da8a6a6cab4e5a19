"""How often do the error bars cover the value of unlimited data?

    python benchmarks/coverage.py [--runs 400] [--quick]

Every run draws fresh samples from a population with a known CKA (that of 300,000 samples) and
goes through `cka_widget.compare`. Counted are the cells whose 95% interval holds the true value:
of pairs of layers of single networks, and of the means over particle pairs of ensembles. The
figures stand in docs/uncertainty.md.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cka_widget.engine.compare import compare
from cka_widget.engine.errors import CKAWarning
from cka_widget.result.result import CKAResult

LATENT = 16
# Samples in a row that share four fifths of their variance, of the populations of clips.
FRAMES = 8


class Setting(NamedTuple):
    """One line of the table: `blocks` of `size` samples, or blocks until good enough.

    With `groups`, so many sets of `size` clips, each told to `compare`. Populations: ten clusters;
    normals; normals whose length varies a lot; clips of normals; clips of clusters.
    """

    population: str
    size: int
    blocks: int
    stop_at_stderr: float | None = None
    groups: bool = False


SETTINGS = [
    *(
        Setting("clusters", size, blocks)
        for size, blocks in itertools.product((8, 32, 128), (5, 10, 40))
    ),
    *(Setting("normal", 32, blocks) for blocks in (5, 10, 40)),
    *(Setting("heavy tails", 32, blocks) for blocks in (10, 40, 160)),
    Setting("clusters", 32, 200, 0.05),
    Setting("clusters", 128, 100, 0.05),
    Setting("clusters", 32, 200, 0.02),
    Setting("normal", 32, 200, 0.02),
    Setting("clips", 32, 40),
    *(Setting("clips", 32, blocks, groups=True) for blocks in (5, 10, 40)),
    Setting("clips", 16, 20, groups=True),
    Setting("clips of ragged lengths", 32, 10, groups=True),
]
QUICK = [
    Setting("clusters", 8, 10),
    Setting("clusters", 32, 20),
    Setting("heavy tails", 32, 40),
    Setting("clusters", 64, 100, 0.03),
    Setting("clips", 16, 10, groups=True),
]


@dataclass
class Coverage:
    """Shares of covered cells, by kind of cell, and what the runs took."""

    interval: dict[str, float]
    normal: dict[str, float]
    blocks: float
    stderr: float = field(default=0.0)


def networks(seed: int = 0) -> dict[str, nn.Module | list[nn.Module]]:
    """Two single networks and an ensemble of four with an odd one, on the same inputs."""

    def build(gain: float) -> nn.Module:
        net = nn.Sequential(
            nn.Linear(LATENT, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
        )
        with torch.no_grad():
            for layer in (net[0], net[2]):
                layer.weight.mul_(gain)
        return net

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = [build(gain) for gain in (2.0, 2.0, 2.0, 2.0, 2.0, 6.0)]
    return {"a": nets[0], "b": nets[1], "ensemble": nets[2:]}


def draw(population: str, n: int, generator: torch.Generator) -> Tensor:
    """Samples (n, 16)."""
    x = torch.randn(n, LATENT, generator=generator)
    if population == "clusters":
        centres = torch.randn(10, LATENT, generator=torch.Generator().manual_seed(3))
        return 0.6 * x + 1.2 * centres[torch.randint(10, (n,), generator=generator)]
    if population == "heavy tails":
        return x * torch.exp(0.7 * torch.randn(n, 1, generator=generator))
    if population.startswith("clips"):
        clip = clips(population, n)
        return 0.8**0.5 * torch.randn(n, LATENT, generator=generator)[clip] + 0.2**0.5 * x
    return x


def clips(population: str, n: int) -> Tensor:
    """Numbers of the clips of n samples in a row, (n,)."""
    ragged = population == "clips of ragged lengths"
    lengths = 4 + 5 * torch.arange(n) % 9 if ragged else torch.full((n,), FRAMES)  # mean 8
    return torch.arange(n).repeat_interleave(lengths)[:n]


def run(
    population: str,
    size: int,
    blocks: int,
    stop: float | None,
    groups: bool,
    generator: torch.Generator,
) -> CKAResult:
    """One comparison of the networks' ReLU and last layers."""
    known = None
    if groups:
        n = size * blocks * FRAMES
        loader: list[Tensor] | Iterator[Tensor] = [draw(population, n, generator)]
        known = clips(population, n)
    elif stop is None:
        loader = [draw(population, size * blocks, generator)]
    else:
        loader = (draw(population, size, generator) for _ in range(blocks))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CKAWarning)
        return compare(
            networks(),
            loader,
            layers=["1", "3", "4"],
            hsic_batch_size=size,
            groups=known,
            stop_at_stderr=stop,
            device="cpu",
            progress=False,
        )


def simulate(setting: Setting, runs: int, seed: int = 0) -> Coverage:
    """Cover the true values by the intervals of so many runs."""
    generator = torch.Generator().manual_seed(seed)
    # Far apart, samples of clips are normals.
    truth = _truth("normal" if setting.population.startswith("clips") else setting.population)
    hits: dict[tuple[str, str], list[float]] = {}
    blocks, errors = [], []
    for _ in range(runs):
        result = run(*setting, generator)
        blocks.append(result.blocks)
        for (a, b), true in truth.items():
            kind = "means" if "ensemble" in (a, b) else "pairs"
            low, high = (x.to_numpy() for x in result.interval(a, b))
            middle, half = (low + high) / 2, (high - low) / 2
            stderr = result.stderr(a, b).to_numpy()
            cells = np.ones_like(true, dtype=bool)
            if a == b and kind == "pairs":  # symmetric, and 1 on the diagonal
                cells = np.triu(cells, 1)
            off = np.abs(middle - true)[cells]
            errors.append(np.median(stderr[cells]))
            for rule, wide in (("interval", half), ("normal", 1.96 * stderr)):
                hits.setdefault((kind, rule), []).append(float((off < wide[cells]).mean()))
    share = {key: float(np.mean(values)) for key, values in hits.items()}
    by = {rule: {kind: share[kind, rule] for kind in ("pairs", "means")} for rule in RULES}
    return Coverage(by["interval"], by["normal"], float(np.median(blocks)), float(np.mean(errors)))


RULES = ("interval", "normal")
_TRUTHS: dict[str, dict[tuple[str, str], np.ndarray]] = {}


def _truth(population: str) -> dict[tuple[str, str], np.ndarray]:
    if population not in _TRUTHS:
        generator = torch.Generator().manual_seed(12345)
        parts = [run(population, 64, 100, None, False, generator) for _ in range(47)]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.merge(part)
        names = itertools.combinations_with_replacement(whole.models, 2)
        _TRUTHS[population] = {(a, b): whole.matrix(a, b).to_numpy() for a, b in names}
    return _TRUTHS[population]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="four settings of 200 runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings, runs = (QUICK, 200) if options.quick else (SETTINGS, options.runs)
    columns = ("population", "block size", "blocks", "stop at", "median stderr", "pairs", "means")
    print("|", " | ".join((*columns, "pairs, 1.96 stderr")), "|")
    print("|---" * (len(columns) + 1) + "|")
    for setting in settings:
        found = simulate(setting, runs)
        stop = "" if setting.stop_at_stderr is None else f"{setting.stop_at_stderr:g}"
        name = f"{setting.population}, groups=" if setting.groups else setting.population
        print(
            f"| {name} | {setting.size} | {found.blocks:.0f} | {stop} "
            f"| {found.stderr:.3f} | {found.interval['pairs']:.1%} | {found.interval['means']:.1%} "
            f"| {found.normal['pairs']:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
