"""What the ratio to the bare forward passes can be: the arithmetic, and the profile beside it.

    .bench/bin/python benchmarks/arithmetic.py [W1 ...] [--threads 1]

A layer of d features costs 2 d m operations a sample for its Gram over blocks of m samples, half
of that if the symmetric half alone is formed, whatever the network did to compute it. Columns:

- forward, Grams: billions of operations a batch, and how many a second: the forward passes in
  their own run, the Grams of the same shapes one after the other with nothing in between, by the
  way that `cka_widget.engine.grams.self_product` takes.
- Grams alone: 1 + (time of those Grams) / (time of the forward passes).
- half: the same if BLAS formed just the symmetric half, as fast as the convolutions run.
- in the run: the whole ratio, and what of it the Grams and all else stand for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import contestants
import measure
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from workloads import WORKLOADS, Workload, build

from cka_widget.engine.grams import gram
from cka_widget.engine.grams.blocks import split
from cka_widget.engine.grams.self_product import way

HEAD = ["", "forward", "Grams", "Grams alone", "half", "in the run", "its Grams", "all else"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[])
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.workloads or WORKLOADS:
        workload = build(name, options.batches)
        rows += [line(workload, size) for size in workload.hsic]
    print(measure.table(HEAD, rows))
    print(f"\n{measure.circumstances(options.threads)}")


def line(workload: Workload, size: int | None) -> list[str]:
    """One row of the table."""
    batch = workload.batches[:1]
    with contestants.quiet(workload):
        with FlopCounterMode(display=False) as counter:
            contestants.bare(workload, batch)
        forward = counter.get_total_flops()
        floor = _median(lambda: contestants.bare(workload, batch))
        found = row_sizes(workload, batch[0])
        segments = split(len(batch[0]), size, 4)
        operations, spent = 0, 0.0
        for d in found:
            for s in segments:
                operations += 2 * s.blocks * s.size**2 * d
                spent += _gram_seconds(s.blocks, s.size, d)
        run = contestants.this_project(size)
        run(workload, batch)
        rounds = [_round(workload, run) for _ in range(5)]
    ratio, grams = (statistics.median(values) for values in zip(*rounds, strict=True))
    return [
        f"{workload.name}, {size or 'whole'}",
        f"{forward / 1e9:.1f} at {forward / floor / 1e9:.0f}/s",
        f"{operations / 1e9:.1f} at {operations / spent / 1e9:.0f}/s",
        f"{1 + spent / floor:.2f}",
        f"{1 + 0.5 * operations / forward:.2f}",
        f"{ratio:.2f}",
        f"{grams:.2f}",
        f"{ratio - 1 - grams:.2f}",
    ]


def _round(workload: Workload, run: contestants.Run) -> tuple[float, float]:
    """Ratio of a run to the floor right before it, and the part of it that forms Grams."""
    spent = 0.0

    def timed(form: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            found = form(*args)
            spent += time.perf_counter() - start
            return found

        return call

    floor = measure.clocked(lambda: contestants.bare(workload, workload.batches))[0]
    with ExitStack() as stack:
        for name in ("linear_gram_", "centred_gram_"):
            stack.enter_context(mock.patch.object(gram, name, timed(getattr(gram, name))))
        whole = measure.clocked(lambda: run(workload, workload.batches))[0]
    return whole / floor, spent / floor


def row_sizes(workload: Workload, batch: Tensor) -> list[int]:
    """Features of every row: of all outputs, those that are another's very tensor left out."""
    sizes: list[int] = []
    seen: dict[tuple[int, int], Tensor] = {}

    def hook(_module: nn.Module, _args: object, out: Tensor) -> None:
        if seen.setdefault((id(out), out._version), out) is out and len(seen) > len(sizes):
            sizes.append(out[0].numel())

    for root in workload.roots:
        wanted = set(workload.names(root))
        chosen = [module for name, module in root.named_modules() if name in wanted]
        handles = [module.register_forward_hook(hook) for module in chosen]
        with torch.no_grad():
            root(batch)
        for handle in handles:
            handle.remove()
    return sizes


def _gram_seconds(blocks: int, m: int, d: int) -> float:
    x, out = torch.randn(blocks, m, d), torch.empty(blocks, m, m)

    def once() -> float:
        x.add_(0.0)  # as fresh in the caches as after the layer that wrote it
        start = time.perf_counter()
        way(out, x)(out, x)
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(5))


def _median(act: Callable[[], object], times: int = 5) -> float:
    act()
    return statistics.median(measure.clocked(act)[0] for _ in range(times))


if __name__ == "__main__":
    main()
