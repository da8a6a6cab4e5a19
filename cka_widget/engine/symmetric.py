"""X X' of every block, by whichever way is quickest on this processor."""

from __future__ import annotations

import functools
import timeit
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cka_widget.engine import accelerator

# Writes X X' of blocks X (blocks, m, d) into (blocks, m, m).
Way = Callable[[Tensor, Tensor], None]


def gemm(out: Tensor, x: Tensor) -> None:
    """All of it."""
    if len(out) == 1:
        torch.addmm(out[0], x[0], x[0].mT, beta=0, out=out[0])
    else:
        torch.baddbmm(out, x, x.mT, beta=0, out=out)


def halves(out: Tensor, x: Tensor) -> None:
    """The upper half of the rows, the lower right quarter, and a copy: 3/4 of the arithmetic."""
    half = x.shape[1] // 2
    upper, lower = x[:, :half], x[:, half:]
    torch.baddbmm(out[:, :half], upper, x.mT, beta=0, out=out[:, :half])
    torch.baddbmm(out[:, half:, half:], lower, lower.mT, beta=0, out=out[:, half:, half:])
    out[:, half:, :half] = out[:, :half, half:].mT


def syrk(out: Tensor, x: Tensor) -> None:
    """BLAS's syrk, half the arithmetic: torch has none, numpy calls it for an array times its T."""
    for block, to in zip(x.numpy(), out.numpy(), strict=True):
        np.dot(block, block.T, out=to)


def quickest_way(out: Tensor, x: Tensor) -> Way:
    """The way for these blocks; `product_` off the CPU, `gemm` where it hardly matters.

    The ways differ in the last digit of float32. Under `torch.use_deterministic_algorithms` it is
    `gemm`, so that no timing decides about it.
    """
    if accelerator.accelerated(out.device):
        return accelerator.product_
    blocks, m, d = x.shape
    if (
        not (out.dtype is x.dtype is torch.float32)
        or d < 256
        or m < 16
        or x.stride(2) != 1
        or torch.are_deterministic_algorithms_enabled()
    ):
        return gemm
    width = trial_width(blocks, m, d)
    return _timed(blocks, m, width, torch.get_num_threads()) if width else halves


def trial_width(blocks: int, m: int, d: int) -> int:
    """Features a trial takes: a power of two, so that 16 MB and 10 ms or so are enough.

    0 where the blocks are too large to try anything: three quarters of the arithmetic always
    pay there.
    """
    most = min(d, 1 << 14, (1 << 22) // (blocks * m), (1 << 28) // (blocks * m * m))
    return 1 << (most.bit_length() - 1) if most >= 64 else 0


@functools.cache
def _timed(blocks: int, m: int, d: int, threads: int) -> Way:
    """Try all ways once for a shape, a few milliseconds.

    Which one wins depends on processor and threads. Milliseconds of gemm, halves and syrk seen
    at 64 x 65536: Xeon, one thread, 11.9, -, 6.2; EPYC, one thread, 7.9, 6.7, 6.7, two threads,
    4.8, 5.4, 6.4; at 256 x 4096: EPYC, one thread, 8.4, 5.3, 3.7.
    """
    x = torch.ones(blocks, m, d)
    out = torch.empty(blocks, m, m)

    def milliseconds(way: Way) -> float:
        return min(timeit.repeat(lambda: way(out, x), number=1, repeat=4))

    # Another way than the plain one must be clearly ahead.
    spent = {way: milliseconds(way) * (1.0 if way is gemm else 1.05) for way in WAYS}
    return min(spent, key=spent.__getitem__)


WAYS: tuple[Way, ...] = (gemm, halves, syrk)
