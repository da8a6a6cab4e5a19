"""The comparison on a GPU over the bare forward passes, by precision, and what bounds it.

    python benchmarks/gpu.py [resnet particles vit] [--batch 256] [--pixels 224] [--rounds 5]
    python benchmarks/gpu.py --device cpu --tiny      # does it run? a few minutes

Needs torch, numpy, pandas, tqdm and safetensors. For every workload, HSIC batch and precision:

- ratio: median over rounds of the time over that of the bare passes before it, with the smallest
  and the largest; both with torch's float32 matmul precision set to the one of the row,
- above: what stands above the bare passes, milliseconds a batch,
- products, traffic: what the Grams' arithmetic and their reading and writing of features would
  take alone, by operations and bytes counted and the rates of a square product and of a copy,
- busy: share of the time in which the GPU computed, by the profiler,
- bound: host time where it idles a tenth of the time or more, else the larger of the two,
- vmap: the particles of an ensemble as one call, beside one after another,
- graph: batches recorded as a CUDA graph; the first four run as without,
- extra memory: of the allocator, above that of the bare passes,
- largest error: against float64 on one batch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import measure
import models
import pandas as pd
import reference
import torch
from contestants import bare
from torch import Tensor, nn
from workloads import Workload, images

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cka_widget.engine import accelerator, gram
from cka_widget.engine.compare import compare

HEAD = ["HSIC batch", "precision", "ratio", "above", "products", "traffic", "busy", "bound"]
# Bytes read or written for each number of a feature: to multiply it; where features are centred
# also to find the mean, to subtract it, and to write what is left.
LINEAR = 4
CENTRED = {"highest": 4 + 4 + 4 + 4, "high": 4 + 4 + 4 + 4, "medium": 4 + 4 + 2 + 2}
VMAP, GRAPH = {"vmap": True}, {"cuda_graph": True}


class Way(NamedTuple):
    """How a workload is run."""

    hsic: int | None
    precision: str
    options: dict[str, bool]

    def __str__(self) -> str:
        named = [name.removeprefix("cuda_") for name in self.options]
        return ", ".join([str(self.hsic or "whole"), *named])


class Size(NamedTuple):
    """How large everything is."""

    device: torch.device
    batch: int
    pixels: int
    particles: int = 16
    depth: int = 12

    def pictures(self, batches: int, pixels: int, channels: int = 3) -> list[Tensor]:
        made = (images(self.batch, pixels, channels=channels) for _ in range(batches))
        repeated = 4 if self.device.type == "cuda" else 1
        return [batch.to(self.device) for batch in made] * repeated


def resnet(size: Size) -> Workload:
    """ResNet-50 x WideResNet-50, all modules."""
    data = size.pictures(4, size.pixels)
    pair = {"ResNet-50": models.resnet50(), "WideResNet-50": models.wide_resnet50()}
    ready = {k: models.warmed(m.to(size.device), data[0][:32]) for k, m in pair.items()}
    return Workload("resnet", "", dict(ready), data, None, (None, 64), 1)


def particles(size: Size) -> Workload:
    """An ensemble of 16 small particles, all leaves."""
    data = size.pictures(16, 8, channels=1)
    made = [models.DigitsCNN().to(size.device) for _ in range(size.particles)]
    ensemble = [models.warmed(m, data[0]) for m in made]
    leaves = [name for name, m in ensemble[0].named_modules() if not list(m.children())]
    return Workload("particles", "", {"ensemble": list(ensemble)}, data, leaves, (None, 64), 1)


def vit(size: Size) -> Workload:
    """Two vision transformers of size S/16, all modules."""
    data = size.pictures(4, size.pixels)
    made = {k: models.ViT(size.pixels, depth=size.depth) for k in ("A", "B")}
    ready = {k: m.to(size.device).eval() for k, m in made.items()}
    return Workload("vit", "", dict(ready), data, None, (None, 64), 1)


WORKLOADS = {"resnet": resnet, "particles": particles, "vit": vit}


def own(work: Workload, data: list[Tensor], way: Way) -> tuple[pd.DataFrame, int]:
    """The matrix, and the number of blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = compare(
            work.models,
            data,
            layers=work.layers,
            hsic_batch_size=way.hsic,
            precision=way.precision,
            device=data[0].device,
            progress=False,
            **way.options,
        )
    names = list(work.models)
    return result.matrix(names[0], names[-1]), result.blocks


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, call: Callable[[], object]) -> float:
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def features(work: Workload) -> int:
    """Numbers in all outputs of one batch, those that a container passes on counted once."""
    total, last = 0, None

    def hook(_m: nn.Module, _a: object, out: Tensor) -> None:
        nonlocal total, last
        total += 0 if out is last else out.numel()
        last = out

    for root in work.roots:
        wanted = set(work.names(root))
        hooked = [m.register_forward_hook(hook) for n, m in root.named_modules() if n in wanted]
        with torch.inference_mode():
            root(work.batches[0])
        for handle in hooked:
            handle.remove()
    return total


def traffic(work: Workload, way: Way) -> int:
    """Bytes of features that the second batch's Grams read and write."""

    def moved(batches: int) -> int:
        total = 0

        def counting(form: Callable[..., None], bytes_each: int) -> Callable[..., None]:
            def call(slots: gram.Slots, x: Tensor, *args: Any, **options: Any) -> None:
                nonlocal total
                total += bytes_each * x.numel()
                form(slots, x, *args, **options)

            return call

        linear = counting(gram.linear_gram_, LINEAR)
        centred = counting(gram.centred_gram_, CENTRED[way.precision])
        with mock.patch.multiple(gram, linear_gram_=linear, centred_gram_=centred):
            own(work, work.batches[:batches], way)
        return total

    return moved(2) - moved(1)


def rates(device: torch.device, precision: str) -> tuple[float, float]:
    """Operations a second of a square product, bytes a second of a copy; best of five."""
    side, length = (8192, 1 << 28) if device.type == "cuda" else (1024, 1 << 22)
    x = torch.randn(side, side, device=device)
    x = x.bfloat16() if precision == "medium" and device.type == "cuda" else x
    a, b = (torch.zeros(length, device=device) for _ in range(2))
    with accelerator.matmul(device, precision):
        product = min(seconds(device, lambda: x @ x) for _ in range(5))
    copy = min(seconds(device, lambda: a.copy_(b)) for _ in range(5))
    return 2 * side**3 / product, 2 * a.nbytes / copy


def extra_memory(work: Workload, call: Callable[[], object]) -> str:
    """Peak of the allocator above that of the bare passes."""
    if work.batches[0].device.type != "cuda":
        return "not measured"
    tops = []
    for run in (lambda: bare(work, work.batches), call):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run()
        tops.append(torch.cuda.max_memory_allocated())
    return f"{(tops[1] - tops[0]) / 2**20:.0f} MB"


def busy(device: torch.device, call: Callable[[], object], took: float) -> float | None:
    """Share of a run's time in which the GPU computed."""
    if device.type != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        wait(device)
    on_device = torch.autograd.DeviceType.CUDA
    events = [e for e in profile.key_averages() if e.device_type is on_device]
    return sum(e.self_device_time_total for e in events) / 1e6 / took


def row(work: Workload, way: Way, rounds: int, count: int) -> list[str]:
    device, data = work.batches[0].device, work.batches
    n, (speed, bandwidth) = len(data[0]), rates(device, way.precision)
    torch.set_float32_matmul_precision(way.precision)
    truth = reference.matrix(work, data[:1], way.hsic)
    found, blocks = own(work, data[:1], way)
    error, _ = reference.largest_error(found, truth)
    ratios, above, spent = [], [], []
    bare(work, data)
    for _ in range(rounds):
        floor = seconds(device, lambda: bare(work, data))
        spent.append(seconds(device, lambda: own(work, data, way)))
        ratios.append(spent[-1] / floor)
        above.append(1e3 * (spent[-1] - floor) / len(data))
    again = partial(own, work, data, way)
    share = busy(device, again, statistics.median(spent))
    products = 1e3 * 2 * count * (n / blocks) / speed
    moving = 1e3 * traffic(work, way) / bandwidth
    arithmetic = "arithmetic" if products > moving else "bandwidth"
    return [
        str(way),
        way.precision,
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{statistics.median(above):.1f} ms",
        f"{products:.1f} ms",
        f"{moving:.1f} ms",
        "not measured" if share is None else f"{share:.0%}",
        "host" if share is not None and share < 0.9 else arithmetic,
        extra_memory(work, again),
        f"{error:.1e}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help=", ".join(WORKLOADS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="small enough for a look on a CPU")
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"no workload {sorted(unknown)[0]}; choose from {', '.join(WORKLOADS)}")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: not measured (--device cpu --tiny shows that it runs)")
        return
    size = Size(device, options.batch, options.pixels)
    if options.tiny:
        size, options.rounds = Size(device, 64, 32, 3, 2), 1
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else measure.processor()
    print(f"{on}; torch {torch.__version__}; {options.rounds} rounds")
    for name in options.workloads or WORKLOADS:
        torch.manual_seed(0)
        work = WORKLOADS[name](size)
        count = features(work)
        ways: list[dict[str, bool]] = [{}, VMAP] if name == "particles" else [{}]
        if device.type == "cuda":
            ways += [{**found, **GRAPH} for found in ways]
        rows = [
            row(work, Way(hsic, precision, found), options.rounds, count)
            for found in ways
            for hsic in (16 if options.tiny and h else h for h in work.hsic)
            for precision in accelerator.PRECISIONS
        ]
        shape = " x ".join(map(str, work.batches[0].shape))
        print(f"\n### {name}: {WORKLOADS[name].__doc__} Batches of {shape}\n")
        print(measure.table([*HEAD, "extra memory", "largest error"], rows), flush=True)


if __name__ == "__main__":
    main()
