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
- busy: share of a batch's time in which the GPU computed, and kernels a batch, by the profiler;
- bound: "host" where the GPU idles a tenth of the time or more, else the larger of those two;
- extra memory: of the allocator, above that of the bare passes;
- error: the largest of the matrix of one batch against float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
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
FIRST = 5  # batches before a run is in its stride: found, searched, recorded, held against a run
VMAP, GRAPH = {"vmap": True}, {"cuda_graph": True}


class Row(NamedTuple):
    """What is measured."""

    workload: str
    hsic: int | None
    precision: str
    options: dict[str, bool] = {}  # noqa: RUF012, never written

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


class Timed(NamedTuple):
    """Seconds of the first batches together, and of one of those that follow."""

    first: float
    steady: float


def own(work: Workload, row: Row, batches: int) -> tuple[pd.DataFrame, int, Timed]:
    """The matrix of a run, its number of blocks, and its time."""
    device, data = work.batches[0].device, work.batches[:batches]
    times = [time.perf_counter()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = iter_compare(
            work.models,
            data,
            layers=work.layers,
            hsic_batch_size=row.hsic,
            precision=row.precision,
            device=device,
            **row.options,
        )
        with closing(run):
            for step in run:
                if step.batches in (FIRST, len(data)) and not step.done:
                    gpu_costs.wait(device)
                    times.append(time.perf_counter())
        result = step.result
    steady = (times[-1] - times[1]) / max(1, len(data) - FIRST) if len(times) > 2 else 0.0
    names = list(work.models)
    matrix = result.matrix(names[0], names[-1])
    return matrix, result.blocks, Timed(times[1] - times[0] if len(times) > 1 else 0.0, steady)


def measured(work: Workload, row: Row, rounds: int, until: float) -> dict[str, Any]:
    """All of a row; fewer rounds where the time is up."""
    device, whole = work.batches[0].device, len(work.batches)
    torch.set_float32_matmul_precision(row.precision)
    truth = reference.matrix(work, work.batches[:1], row.hsic)
    found, blocks, _ = own(work, row, 1)
    error, _ = reference.largest_error(found, truth)
    data = work.batches[FIRST:]
    bare(work, data[:2])
    ratios, above, firsts, spent = [], [], [], []
    for _ in range(rounds):
        floor = gpu_costs.seconds(device, lambda: bare(work, data)) / len(data)
        _, _, took = own(work, row, whole)
        spent.append(took.steady)
        firsts.append(took.first - FIRST * took.steady)
        ratios.append(took.steady / floor)
        above.append(1e3 * (took.steady - floor))
        if time.perf_counter() > until:
            break
    speed, bandwidth = gpu_costs.rates(device, row.precision)
    products = 2e3 * gpu_costs.features(work) * len(data[0]) / blocks / speed
    moving = 1e3 * gpu_costs.traffic(partial(own, work, row)) / bandwidth
    # One batch of a longer run less the run without it: the first ones are another matter.
    long, short = (gpu_costs.profiled(device, partial(own, work, row, FIRST + k)) for k in (2, 1))
    seen = {key: long[key] - short[key] for key in long} if long and short else None
    busy = None if seen is None else min(1.0, seen["gpu_ms"] / 1e3 / statistics.median(spent))
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
        "kernels": None if seen is None else seen["kernels"],
        "bound": larger if busy is None or busy >= 0.9 else "host",
        "extra_mb": gpu_costs.extra_megabytes(
            device, lambda: bare(work, data[:2]), partial(own, work, row, whole)
        ),
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


def measure_all(size: Size, rows: list[Row], rounds: int, limit: float, into: Path | None) -> None:
    start, where = time.perf_counter(), circumstances(size.device)
    built: tuple[str, Workload] | None = None
    took: dict[str, float] = {}
    for row in rows:
        left = limit - (time.perf_counter() - start)
        if left < took.get(row.workload, 0.0):
            print(f"no time left for {row} at {row.hsic}, {row.precision}", flush=True)
            continue
        began = time.perf_counter()
        if built is None or built[0] != row.workload:
            built = None  # one workload at a time fills the device
            torch.manual_seed(0)
            built = row.workload, WORKLOADS[row.workload](size)
        try:
            found = measured(built[1], row, rounds, start + limit)
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=Path, help="file to which a line of JSON is added a row")
    parser.add_argument("--tiny", action="store_true", help="a row of each kind, small")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and end")
    options = parser.parse_args()
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
    measure_all(size, rows, options.rounds, options.seconds, options.into)


if __name__ == "__main__":
    main()
