"""The comparison on a GPU over the bare forward passes: a few minutes, a line as each row ends.

    python benchmarks/on_gpu.py --seconds 270 --into gpu.jsonl     # rows in order of weight
    python benchmarks/on_gpu.py --tiny --device cpu                # does it run?
    python benchmarks/on_gpu.py --table gpu.jsonl                  # Markdown of what was written

Needs torch, numpy, pandas, tqdm and safetensors. It ends by itself: no row begins that would not
be done within `--seconds`, by the time that the last one of its workload took. Of each row:

- ratio: median over rounds of the time of a batch over that of the bare passes before it, with
  the smallest and the largest, both with torch's float32 matmul precision set to the row's; the
  first batches, on which layers are found, probed and recorded, are left out and told as `first`;
- above: what stands above the bare passes, milliseconds a batch;
- products, traffic: what the Grams' arithmetic and the reading and writing of features would take
  alone, by operations and bytes counted and the rates of a square product and of a copy;
- busy: share of a batch's time in which the GPU computed, and its kernels, by the profiler, of one
  batch that follows;
- bound: "host" where the GPU idles a tenth of the time or more, else the larger of those two;
- extra memory: of the allocator, above that of the bare passes;
- error: the largest of the matrix of one batch against float64.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import measure
import models
import pandas as pd
import reference
import torch
from contestants import bare
from torch import Tensor
from workloads import Workload, images

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gpu_costs

from cka_widget.engine.compare import iter_compare

HEAD = [
    *("workload", "blocks", "precision", "ratio", "first", "above", "products", "traffic"),
    *("busy", "kernels", "bound", "extra memory", "error"),
]
FIRST = 5  # with a graph: layers found, searched, recorded, held against a run, and one more
VMAP, GRAPH = {"vmap": True}, {"cuda_graph": True}


class Row(NamedTuple):
    """What is measured."""

    workload: str
    hsic: int | None
    precision: str
    options: dict[str, bool] = {}  # noqa: RUF012, never written

    @property
    def first(self) -> int:
        """Batches before a run is in its stride."""
        return FIRST if "cuda_graph" in self.options else 1

    def __str__(self) -> str:
        named = [name.removeprefix("cuda_") for name in self.options]
        return ", ".join([self.workload, *named])


# The heaviest questions first: what is not reached in time is the least missed.
ROWS = [
    Row("resnet", 32, "high"),
    *(Row("particles", 64, "high", found) for found in ({}, VMAP, GRAPH, {**VMAP, **GRAPH})),
    Row("resnet", 64, "high"),
    Row("resnet", 32, "highest"),
    Row("vit", 32, "high"),
    Row("resnet", 32, "medium"),
    Row("resnet", 64, "highest"),
    Row("resnet", 64, "medium"),
    Row("vit", 32, "highest"),
    Row("vit", 32, "medium"),
    *(Row("vit", 64, precision) for precision in ("high", "highest", "medium")),
    Row("resnet", None, "high"),
    Row("resnet", None, "highest"),
]


class Size(NamedTuple):
    """How large everything is."""

    device: torch.device
    batch: int = 256
    pixels: int = 224
    particles: int = 16
    depth: int = 12
    batches: int = 8  # timed ones, of the large models

    def pictures(self, number: int, pixels: int, channels: int = 3) -> list[Tensor]:
        """Two different batches in turn, for little memory."""
        made = [images(self.batch, pixels, channels=channels).to(self.device) for _ in range(2)]
        return [made[k % 2] for k in range(FIRST + number)]


def resnet(size: Size) -> Workload:
    """ResNet-50 x WideResNet-50, all modules."""
    data = size.pictures(size.batches, size.pixels)
    pair = {"ResNet-50": models.resnet50(), "WideResNet-50": models.wide_resnet50()}
    if size.depth < 12:
        pair = {"ResNet-18": models.resnet18(), "ResNet-34": models.resnet34()}
    ready = {k: models.warmed(m.to(size.device), data[0][:32]) for k, m in pair.items()}
    return Workload("resnet", "", dict(ready), data, None, (), 1)


def particles(size: Size) -> Workload:
    """An ensemble of small particles, all leaves."""
    data = size.pictures(4 * size.batches, 8, channels=1)
    made = [models.DigitsCNN().to(size.device) for _ in range(size.particles)]
    ensemble = [models.warmed(m, data[0]) for m in made]
    leaves = [name for name, m in ensemble[0].named_modules() if not list(m.children())]
    return Workload("particles", "", {"ensemble": list(ensemble)}, data, leaves, (), 1)


def vit(size: Size) -> Workload:
    """Two vision transformers of size S/16, all modules."""
    data = size.pictures(size.batches, size.pixels)
    made = {k: models.ViT(size.pixels, depth=size.depth) for k in ("A", "B")}
    ready = {k: m.to(size.device).eval() for k, m in made.items()}
    return Workload("vit", "", dict(ready), data, None, (), 1)


WORKLOADS: dict[str, Callable[[Size], Workload]] = {
    "resnet": resnet,
    "particles": particles,
    "vit": vit,
}


class Run:
    """A run over the first so many batches, some of them at a time."""

    def __init__(self, work: Workload, row: Row, batches: int) -> None:
        self.device = work.batches[0].device
        self._names = list(work.models)
        self._steps = iter_compare(
            work.models,
            work.batches[:batches],
            layers=work.layers,
            hsic_batch_size=row.hsic,
            precision=row.precision,
            device=self.device,
            **row.options,
        )

    def take(self, batches: int) -> float:
        """Seconds of so many more batches."""

        def steps() -> None:
            for _ in range(batches):
                self._last = next(self._steps)

        return gpu_costs.seconds(self.device, steps)

    def end(self) -> None:
        """Leave the models."""
        self._steps.close()

    def matrix(self) -> pd.DataFrame:
        """Of the batches that were taken."""
        return self._last.result.matrix(self._names[0], self._names[-1])

    def blocks(self) -> int:
        return self._last.result.blocks


class Look(NamedTuple):
    """What is seen of a run but its time: of its first batch, or of one that follows."""

    matrix: pd.DataFrame
    blocks: int
    bytes: int
    kernels: Mapping[str, float] | None
    extra_mb: float | None


def look(work: Workload, row: Row) -> Look:
    """One batch that follows is profiled: the first has many times as many operations, and the
    profiler needs longer for each than the device.
    """
    run = Run(work, row, row.first + 2)
    floor = gpu_costs.peak(run.device, lambda: bare(work, work.batches[:2]))
    above = gpu_costs.peak(run.device, lambda: run.take(1))
    matrix, blocks = run.matrix(), run.blocks()
    run.take(row.first - 1)
    with gpu_costs.traffic() as moved:
        run.take(1)
    kernels = gpu_costs.profiled(run.device, lambda: run.take(1))
    run.end()
    extra = (above - floor) / 2**20
    return Look(matrix, blocks, moved[0], kernels, None if math.isnan(extra) else extra)


def measured(
    work: Workload, row: Row, truth: pd.DataFrame, rounds: int, until: float
) -> dict[str, Any]:
    """A row; fewer rounds where the time is up."""
    device, data = work.batches[0].device, work.batches[FIRST:]
    torch.set_float32_matmul_precision(row.precision)
    seen = look(work, row)
    error, _ = reference.largest_error(seen.matrix, truth)
    ratios, above, firsts, spent = [], [], [], []
    for _ in range(rounds):
        floor = gpu_costs.seconds(device, lambda: bare(work, data)) / len(data)
        run = Run(work, row, row.first + len(data))
        first = run.take(row.first)
        spent.append(run.take(len(data)) / len(data))
        run.end()
        firsts.append(first - row.first * spent[-1])
        ratios.append(spent[-1] / floor)
        above.append(1e3 * (spent[-1] - floor))
        if time.perf_counter() > until:
            break
    speed, bandwidth = gpu_costs.rates(device, row.precision)
    products = 2e3 * gpu_costs.features(work) * len(data[0]) / seen.blocks / speed
    moving = 1e3 * seen.bytes / bandwidth
    busy = None
    if seen.kernels is not None:
        busy = min(1.0, seen.kernels["gpu_ms"] / 1e3 / statistics.median(spent))
    larger = "arithmetic" if products > moving else "bandwidth"
    return {
        "workload": str(row),
        "hsic": row.hsic,
        "precision": row.precision,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "rounds": len(ratios),
        "first_ms": 1e3 * statistics.median(firsts),
        "above_ms": statistics.median(above),
        "products_ms": products,
        "traffic_ms": moving,
        "busy": busy,
        "kernels": None if seen.kernels is None else seen.kernels["kernels"],
        "bound": larger if busy is None or busy >= 0.9 else "host",
        "extra_mb": seen.extra_mb,
        "error": error,
    }


def circumstances(device: torch.device) -> dict[str, str]:
    """Where it was measured."""
    found = {"torch": torch.__version__, "python": ".".join(map(str, sys.version_info[:3]))}
    if device.type != "cuda":
        return found | {"device": measure.processor()}
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        found["driver"] = done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
    return found | {"device": torch.cuda.get_device_name(device)}


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table of what was measured."""

    def cells(one: dict[str, Any]) -> list[str]:
        known = one["busy"] is not None
        return [
            *(one["workload"], str(one["hsic"] or "whole"), one["precision"]),
            f"{one['ratio']:.2f} ({one['lowest']:.2f} to {one['highest']:.2f})",
            *(f"{one[f'{what}_ms']:.1f} ms" for what in ("first", "above", "products", "traffic")),
            *((f"{one['busy']:.0%}", f"{one['kernels']:.0f}") if known else ("not measured",) * 2),
            one["bound"] if known else "not measured",
            "not measured" if one["extra_mb"] is None else f"{one['extra_mb']:.0f} MB",
            f"{one['error']:.1e}",
        ]

    where = {tuple(sorted(one["where"].items())) for one in lines}
    said = "; ".join(", ".join(f"{k} {v}" for k, v in one) for one in sorted(where))
    return f"{said}\n\n{measure.table(HEAD, [cells(one) for one in lines])}"


class Bench:
    """Builds a workload once for rows that follow each other, and its reference once a block."""

    def __init__(self, size: Size, rounds: int) -> None:
        self._size, self._rounds = size, rounds
        self._built: tuple[str, Workload] | None = None
        self._truths: dict[int | None, pd.DataFrame] = {}

    def row(self, row: Row, until: float) -> dict[str, Any]:
        """What was measured, and how long what took."""
        times = [time.perf_counter()]
        work = self._workload(row.workload)
        times.append(time.perf_counter())
        if row.hsic not in self._truths:
            self._truths[row.hsic] = reference.matrix(work, work.batches[:1], row.hsic)
        times.append(time.perf_counter())
        found = measured(work, row, self._truths[row.hsic], self._rounds, until)
        times.append(time.perf_counter())
        parts = [round(b - a, 2) for a, b in pairwise(times)]
        return found | dict(zip(("built_s", "reference_s", "measured_s"), parts, strict=True))

    def _workload(self, name: str) -> Workload:
        if self._built is None or self._built[0] != name:
            self._built = None  # one workload at a time fills the device
            self._truths.clear()
            torch.manual_seed(0)
            self._built = name, WORKLOADS[name](self._size)
        return self._built[1]


def measure_all(size: Size, rows: list[Row], rounds: int, limit: float, into: Path | None) -> None:
    start, where = time.perf_counter(), circumstances(size.device)
    bench = Bench(size, rounds)
    took: dict[str, float] = {}
    for row in rows:
        left = limit - (time.perf_counter() - start)
        if left < took.get(row.workload, 0.0):
            print(f"no time left for {row} at {row.hsic}, {row.precision}", flush=True)
            continue
        began = time.perf_counter()
        try:
            found = bench.row(row, start + limit)
        except Exception as error:  # the other rows are worth having all the same
            found = {"workload": str(row), "failed": f"{type(error).__name__}: {error}"}
        took[row.workload] = time.perf_counter() - began
        line = json.dumps({**found, "seconds": took[row.workload], "where": where})
        print(line, flush=True)
        if into is not None:
            with into.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=270.0)
    parser.add_argument("--rounds", type=int, help="of each row; 3, and 1 with --tiny")
    parser.add_argument("--into", type=Path, help="file to which a line of JSON is added a row")
    parser.add_argument("--tiny", action="store_true", help="a row of each kind, small")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and end")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.table is not None:
        lines = map(json.loads, options.table.read_text(encoding="utf-8").splitlines())
        print(markdown([one for one in lines if "failed" not in one]))
        return
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: not measured (--device cpu --tiny shows that it runs)")
        return
    if options.into is not None:
        options.into.parent.mkdir(parents=True, exist_ok=True)
    size, rows = Size(device), ROWS
    if options.tiny:
        size = Size(device, 32, 32, particles=3, depth=2, batches=2)
        seen: set[str] = set()
        rows = [r for r in ROWS if not (str(r) in seen or seen.add(str(r)))]
        if device.type != "cuda":
            rows = [row for row in rows if "cuda_graph" not in row.options]
    rounds = options.rounds or (1 if options.tiny else 3)
    measure_all(size, rows, rounds, options.seconds, options.into)


if __name__ == "__main__":
    main()
