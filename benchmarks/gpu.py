"""The comparison on a GPU over the bare forward passes, and what bounds it.

    python benchmarks/gpu.py [resnet particles vit] [--batch 256] [--pixels 224] [--rounds 5]

Needs torch, numpy, pandas, tqdm and safetensors. Without a CUDA device it says so and ends.
For every workload: median of the ratios to the bare forward passes with smallest and largest, the
same with HSIC batches, the extra memory of the allocator, the largest error against float32 with
"highest" precision, and from the profiler how much of the time the GPU worked (busy), spent in
matrix products, and how long the host needed to issue the work.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cka_widget.engine.compare import compare

Models = dict[str, nn.Module | list[nn.Module]]


def resnet(batch: int, pixels: int) -> tuple[Models, list[Tensor]]:
    """ResNet-50 x WideResNet-50, all layers."""
    data = [torch.randn(batch, 3, pixels, pixels, device="cuda") for _ in range(2)]
    pair = {"ResNet-50": models.resnet50(), "WideResNet-50": models.wide_resnet50()}
    return {k: models.warmed(m.cuda(), data[0][:32]) for k, m in pair.items()}, data


def particles(batch: int, pixels: int) -> tuple[Models, list[Tensor]]:
    """An ensemble of 16 small particles."""
    data = [torch.randn(batch, 1, 8, 8, device="cuda") for _ in range(16)]
    ensemble: list[nn.Module] = [
        models.warmed(models.DigitsCNN().cuda(), data[0]) for _ in range(16)
    ]
    return {"ensemble": ensemble}, data


def vit(batch: int, pixels: int) -> tuple[Models, list[Tensor]]:
    """Two 12-block encoders of ViT-S size, all layers."""
    data = [torch.randn(batch, 196, 384, device="cuda") for _ in range(2)]
    return {k: models.Encoder().cuda().eval() for k in ("A", "B")}, data


WORKLOADS = {"resnet": resnet, "particles": particles, "vit": vit}


def roots(found: Models) -> Iterator[nn.Module]:
    for model in found.values():
        yield from model if isinstance(model, list) else [model]


def bare(found: Models, data: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in data:
            for root in roots(found):
                root(batch)


def own(found: Models, data: list[Tensor], hsic: int | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = compare(found, data, hsic_batch_size=hsic, device="cuda", progress=False)
    names = list(found)
    return result.matrix(names[0], names[-1]).to_numpy()


def clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds until the GPU is done, and until the host had issued the work."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    issued = time.perf_counter() - start
    torch.cuda.synchronize()
    return time.perf_counter() - start, issued


def extra_bytes(found: Models, data: list[Tensor], call: Callable[[], object]) -> int:
    """Peak of the allocator above that of the bare passes."""
    tops = []
    for run in (lambda: bare(found, data), call):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run()
        tops.append(torch.cuda.max_memory_allocated())
    return tops[1] - tops[0]


def kernels(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds in which kernels ran, and those of them in matrix products."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    busy = products = 0.0
    for event in profile.key_averages():
        seconds = event.self_device_time_total / 1e6
        if event.device_type is torch.autograd.DeviceType.CUDA:
            busy += seconds  # a kernel or a copy
        elif event.key in ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"):
            products += seconds  # what the operator launched; linear layers count too
    return busy, products


def report(name: str, batch: int, pixels: int, rounds: int) -> None:
    torch.manual_seed(0)
    found, data = WORKLOADS[name](batch, pixels)
    torch.set_float32_matmul_precision("highest")
    print(f"\n### {name}: {WORKLOADS[name].__doc__} Batch {batch}\n")
    print("| HSIC batch | precision | median of ratios | extra memory | largest error |", end="")
    print(" kernels, products, host |\n" + "|---" * 6 + "|")
    for hsic in (None, 64):
        torch.set_float32_matmul_precision("highest")
        truth = own(found, data, hsic)
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            bare(found, data)
            error = float(np.nanmax(np.abs(own(found, data, hsic) - truth)))
            ratios, spent, hosts = [], [], []
            for _ in range(rounds):
                floor, _ = clocked(lambda: bare(found, data))
                took, host = clocked(lambda h=hsic: own(found, data, h))
                ratios.append(took / floor)
                spent.append(took)
                hosts.append(host)
            memory = extra_bytes(found, data, lambda h=hsic: own(found, data, h)) / 2**20
            busy, products = kernels(lambda h=hsic: own(found, data, h))
            took = statistics.median(spent)
            cells = [
                str(hsic or "whole"),
                precision,
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{memory:.0f} MB",
                f"{error:.1e}",
                f"{busy / took:.0%}, {products / took:.0%}, {statistics.median(hosts) / took:.0%}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help=", ".join(WORKLOADS))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: not measured")
        return
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}")
    for name in options.workloads or WORKLOADS:
        report(name, options.batch, options.pixels, options.rounds)


if __name__ == "__main__":
    main()
