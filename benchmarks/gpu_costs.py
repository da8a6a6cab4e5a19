"""What a comparison on a GPU has to do at least: operations, bytes, and the rates of the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from workloads import Workload

from cka_widget.engine.grams import accelerator, gram

# Numbers read or written for each one of a feature: to multiply it, once; where features are
# centred also to find the mean, to subtract it, and to write what is left.
LINEAR, CENTRED = 1, 4


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
    """Numbers in all outputs of one batch, those that are passed on untouched counted once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    alive: list[Tensor] = []  # so that no id is used again

    def hook(_m: nn.Module, _a: object, out: Tensor) -> None:
        nonlocal total
        key = id(out), out._version  # an in-place ReLU returns its input, and changes it
        if key not in seen:
            seen.add(key)
            alive.append(out)
            total += out.numel()

    for root in work.roots:
        wanted = set(work.names(root))
        hooked = [m.register_forward_hook(hook) for n, m in root.named_modules() if n in wanted]
        with torch.no_grad():  # tensors of inference mode have no version
            root(work.batches[0][:2])
        for handle in hooked:
            handle.remove()
        seen.clear()
        alive.clear()
    return total // 2 * len(work.batches[0])


@contextmanager
def traffic() -> Iterator[list[int]]:
    """Counts, while entered, the bytes of features that Grams read and write, as its one entry."""
    total = [0]

    def counting(form: Callable[..., None], times: int) -> Callable[..., None]:
        def call(slots: gram.Slots, x: Tensor, *args: Any, **options: Any) -> None:
            total[0] += times * x.nbytes
            form(slots, x, *args, **options)

        return call

    linear = counting(gram.linear_gram_, LINEAR)
    centred = counting(gram.centred_gram_, CENTRED)
    with mock.patch.multiple(gram, linear_gram_=linear, centred_gram_=centred):
        yield total


@cache
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


def profiled(device: torch.device, call: Callable[[], object]) -> Mapping[str, float] | None:
    """Of one call: milliseconds in which the GPU computed, and kernels; None without a GPU.

    The host's operations are not noted: torch needs some 0.2 ms for each to make its table.
    """
    if device.type != "cuda":
        return None
    wait(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        wait(device)
    there = torch.autograd.DeviceType.CUDA
    events = [e for e in profile.key_averages() if e.device_type == there]
    spent = sum(e.self_device_time_total for e in events) / 1e3
    return {"gpu_ms": spent, "kernels": sum(e.count for e in events)}


def peak(device: torch.device, call: Callable[[], object]) -> float:
    """Most bytes of the allocator during a call; NaN without a GPU."""
    if device.type != "cuda":
        call()
        return math.nan
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return float(torch.cuda.max_memory_allocated(device))
