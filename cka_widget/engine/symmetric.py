"""X X' of every block, by whichever way is quickest on this processor."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cka_widget.engine import accelerator

# Numbers in a block below which no way was seen ahead of the plain one.
_LEAST = 1 << 18

# Writes X X' of blocks X (blocks, m, d) into (blocks, m, m).
Way = Callable[[Tensor, Tensor], None]


def gemm(out: Tensor, x: Tensor) -> None:
    """All of it by BLAS."""
    if out.shape[0] == 1:
        one = x[0]
        torch.mm(one, one.mT, out=out[0])
    else:
        torch.bmm(x, x.mT, out=out)


def panels(out: Tensor, x: Tensor, *, width: int, chunks: int = 1) -> None:
    """The upper triangle, so many columns at a time, and its mirror image.

    Of p panels that is (p + 1) / 2p of the arithmetic. By oneDNN where torch has it: it packs the
    panel alone and reads the rest as it lies, where BLAS packs both factors of a product that
    is only as wide as a batch.

    Args:
        out: written.
        x: features.
        width: of a panel, in samples.
        chunks: above 1 the features are cut into so many, by BLAS: threads then share out
            features, and no two of them read the same numbers.
    """
    for block, to in zip(x.unbind(), out.unbind(), strict=True):
        stop = 0
        for some in torch.split(block, width):
            start, stop = stop, stop + len(some)
            rows = block[:stop]
            panel = (
                _times_transpose(rows, some)
                if chunks == 1
                else accelerator.split_sum(rows, some, chunks)
            )
            to[:stop, start:stop] = panel
            if start:
                to[start:stop, :start] = panel[:start].mT


def _onednn() -> Callable[[Tensor, Tensor], Tensor] | None:
    """A B' by oneDNN's inner product; None where this torch has none."""
    op = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if op is None:
        return None
    return lambda a, b: op.default(a, b, None, "none", [], "")


_times_transpose = _onednn() or (lambda a, b: a @ b.mT)


def ways(blocks: int, m: int) -> list[Way]:
    """What may be the quickest for blocks of m samples; the plain one first.

    Few widths are enough, and oneDNN keeps some 0.5 MB of code for each shape of a product: four
    panels of 16 columns or more, for large blocks eight. Threads share out the columns of a small
    block's panel: so many times wider ones for them, or a single one; or they share out the
    features, unless there are blocks to share.
    """
    threads = torch.get_num_threads()
    narrow = min(64, max(16, m // 64 * 16))
    if m > 512:
        return [gemm, partial(panels, width=-(-m // 8))]
    if threads == 1:
        return [gemm, partial(panels, width=narrow)]
    columns = [partial(panels, width=w) for w in sorted({min(narrow * threads, m), m})]
    features = partial(panels, width=max(32, m // 2), chunks=2 * threads)
    return [gemm, *columns, *([features] if blocks == 1 else [])]


def quickest_way(out: Tensor, x: Tensor) -> Way:
    """The way for these blocks; `product_` off the CPU, `gemm` where it hardly matters.

    The ways differ in the last digit of float32. Under `torch.use_deterministic_algorithms` it is
    `gemm`, so that no timing decides about it.
    """
    if accelerator.accelerated(out.device):
        return accelerator.product_
    blocks, m, d = x.shape
    if (
        m < 16
        or m * d < _LEAST
        or not (out.dtype is x.dtype is torch.float32)
        or not x.is_contiguous()
        or torch.are_deterministic_algorithms_enabled()
    ):
        return gemm
    key = blocks, m, trial_width(blocks, m, d), torch.get_num_threads()
    if not key[2]:  # too large to try anything: little more than half the arithmetic always pays
        return ways(blocks, m)[1]
    if key not in _fastest:
        _fastest[key] = _try(out, x, key[2])
    return _fastest[key]


def trial_width(blocks: int, m: int, d: int) -> int:
    """Features a trial takes: a power of two, so that 10 ms or so are enough.

    0 where the blocks are too large to try anything.
    """
    most = min(d, (1 << 22) // (blocks * m), (1 << 26) // (blocks * m * m))
    return 1 << (most.bit_length() - 1) if most >= 64 else 0


# Of blocks, samples, features tried and threads.
_fastest: dict[tuple[int, int, int, int], Way] = {}


def _try(out: Tensor, x: Tensor, width: int) -> Way:
    """Try all ways once for a shape, on numbers of x, so that it takes little memory.

    Which one wins depends on shape, processor and threads. Billions of operations a second, the
    mirror image counted, seen on an EPYC with one thread, of gemm and of panels of 16, 32 and 64:
    at 64 x 65536: 77, 141, 121, 91; at 4 blocks 16 x 65536: 53, 68; at 8 blocks 32 x 4096: 72,
    62, 70; at 256 x 4096: 99, 151, 158, 162, where numpy's syrk had 154. With two threads at
    64 x 16384, of gemm, panels of 32 and 64, and of 32 with shared features: 140, 193, 169, 178.
    """
    blocks, m, _ = x.shape
    some = x.view(-1)[: blocks * m * width].view(blocks, m, width)
    shared = torch.get_num_threads() > 1
    # A layer's threads have each their samples in their own caches, and lose them to a way that
    # has them read each other's: what the next layer pays for that belongs to the way.
    some = some.clone() if shared else some

    def once(way: Way) -> None:
        if shared:
            some.mul_(1.0)
        way(out, some)
        if shared:
            some.mul_(1.0)

    def milliseconds(way: Way) -> float:
        return min(timeit.repeat(lambda: once(way), number=1, repeat=4))

    # Another way than the plain one must be clearly ahead.
    spent = {way: milliseconds(way) * (1.0 if way is gemm else 1.05) for way in ways(blocks, m)}
    return min(spent, key=spent.__getitem__)
