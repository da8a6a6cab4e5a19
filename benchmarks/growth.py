"""How cost and memory grow with layers, batch size, feature size and particles.

    python benchmarks/growth.py [layers batch features particles scale] [--rounds 5] [--quick]

One quantity varies, the others stay. "ratio" is the median over rounds of the whole comparison's
time over that of the bare forward passes before it; "above" is the difference in ms per batch;
"extra memory" is the peak of the resident set less that of the bare passes, each in a process of
its own; "stack" is what the Grams of a whole batch would take, rows x blocks x m^2 float32 numbers
(beyond 256 MB they never stand at once), and "told" what a run counts with before it starts.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import contestants
import measure
import models
import torch
from torch import nn
from workloads import Workload, images

from cka_widget.engine.grams.memory import bytes_needed

CURVES: dict[str, tuple[int, ...]] = {
    "layers": (16, 32, 64, 128, 256, 512),
    "batch": (32, 64, 128, 256, 512, 1024),
    "features": (64, 256, 1024, 4096),
    "particles": (2, 4, 8, 16, 32, 100),
    "scale": (250, 500, 1000),
}
QUICK = 3  # points of each curve
HSIC = 64  # samples a block


def build(curve: str, value: int) -> Workload:
    """One point: a chain of linear layers, or an ensemble of digits CNNs."""
    torch.manual_seed(0)
    if curve == "particles":
        batches = [images(256, 8, channels=1) for _ in range(3)]
        ensemble: list[nn.Module] = [
            models.warmed(models.DigitsCNN(), batches[0]) for _ in range(value)
        ]
        leaves = [n for n, m in ensemble[0].named_modules() if not list(m.children())]
        return Workload(curve, "", {"ensemble": ensemble}, batches, leaves, (HSIC,), 1)
    depth, batch, width = 32, 256, 256
    if curve == "scale":  # so many layers at once, and a batch whose Grams do not stand at once
        depth, batch, width = value, 4096, 64
    elif curve == "layers":
        depth = value
    elif curve == "batch":
        batch = value
    else:
        width = value
    chain = models.chain(depth, width).eval()
    batches = [torch.randn(batch, width) for _ in range(1 if curve == "scale" else 3)]
    return Workload(curve, "", {"chain": chain}, batches, None, (HSIC,), 1)


def rows_of(workload: Workload) -> int:
    return sum(len(workload.names(root)) for root in workload.roots)


def stack_bytes(workload: Workload, hsic: int | None) -> int:
    """Memory of the Grams of one batch."""
    n = len(workload.batches[0])
    m = min(n, hsic or n)
    return 4 * rows_of(workload) * -(-n // m) * m * m


def point(curve: str, value: int, rounds: int, memory: bool) -> list[str]:
    workload = build(curve, value)
    run = contestants.this_project(HSIC)
    contestants.bare(workload, workload.batches)
    ratios = measure.Ratios()
    for _ in range(rounds):
        floor = measure.clocked(lambda: contestants.bare(workload, workload.batches))
        spent = measure.clocked(lambda: run(workload, workload.batches))
        ratios.add(spent, floor)
    above = statistics.median(1e3 * (r - b) / len(workload.batches) for r, b in ratios.seconds)
    extra = "not measured"
    if memory:
        tops = [_spawn(curve, value, what) for what in ("bare", "own")]
        if None not in tops:
            extra = f"{(tops[1] - tops[0]) / 1024:.0f} MB"
    stack = f"{stack_bytes(workload, HSIC) / 2**20:.1f} MB"
    median, quickest, cpu = ratios.cells()
    rows = str(rows_of(workload))
    told = bytes_needed(rows_of(workload), len(workload.batches[0]), HSIC) / 2**20
    memory_cells = [extra, stack, f"{told:.1f} MB"]
    return [str(value), rows, median, quickest, cpu, f"{above:.1f} ms", *memory_cells]


def _spawn(curve: str, value: int, what: str) -> int:
    line = measure.in_subprocess([__file__, curve, "--peak-of", f"{what}:{value}"], 900)
    return 0 if line is None else int(line)


def peak(curve: str, value: int, what: str) -> int:
    workload = build(curve, value)
    run: Callable[[], object] = lambda: contestants.bare(workload, workload.batches)  # noqa: E731
    run()
    if what == "own":
        own = contestants.this_project(HSIC)
        small = Workload("", "", workload.models, [workload.batches[0][:8]], workload.layers, (), 1)
        own(small, small.batches)  # imports
        return measure.resident_peak_kib(lambda: own(workload, workload.batches))
    return measure.resident_peak_kib(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="*", default=[], help=", ".join(CURVES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        what, value = options.peak_of.split(":")
        print(peak(options.curves[0], int(value), what))
        return
    for curve in options.curves or CURVES:
        values = CURVES[curve][: QUICK if options.quick else None]
        head = [curve, "rows", "median of ratios", "quickest", "CPU", "above", "extra memory"]
        rounds = 2 if options.quick else options.rounds
        rows = [point(curve, value, rounds, not options.quick) for value in values]
        print(f"\n### Growth with {curve} (HSIC batch {HSIC})\n")
        print(measure.table([*head, "stack", "told"], rows), flush=True)
    print("\n" + measure.circumstances(options.threads))


if __name__ == "__main__":
    main()
