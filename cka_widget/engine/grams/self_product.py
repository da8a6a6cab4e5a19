"""X X' of every block, by the way that is quick for its shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cka_widget.engine.grams import accelerator

# Numbers in a block below which panels were not seen ahead of the plain product; twice as many
# where there are several blocks.
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


def panels(out: Tensor, x: Tensor) -> None:
    """The upper triangle, some columns at a time, and its mirror image.

    Of p panels that is (p + 1) / 2p of the arithmetic. By oneDNN where torch has it: it packs the
    panel alone and reads the rest as it lies, where BLAS packs both factors of a product that
    is only as wide as a batch.
    """
    columns = width(x.shape[1])
    for block, to in zip(x.unbind(), out.unbind(), strict=True):
        stop = 0
        for some in torch.split(block, columns):
            start, stop = stop, stop + len(some)
            panel = _times_transpose(block[:stop], some)
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


def width(m: int) -> int:
    """Samples in a panel of blocks of m.

    oneDNN keeps some 0.5 MB of code for each shape of a product: four panels of 16 columns or more,
    for large blocks eight. Threads share out the columns of a small block's panel: so many times
    wider ones for them, or a single one.
    """
    if m > 512:
        return -(-m // 8)
    return min(m, min(64, max(16, m // 64 * 16)) * torch.get_num_threads())


def way(out: Tensor, x: Tensor) -> Way:
    """The way for these blocks, by their shape alone: equal runs give equal bits.

    `product_` off the CPU; on it panels for large blocks and for one that has no others beside it,
    else `gemm`. Billions of operations a second, the mirror image counted, seen on an EPYC with one
    thread, of gemm and of panels of 16, 32 and 64: at 64 x 65536: 77, 141, 121, 91; at 4 blocks
    16 x 65536: 53, 68; at 8 blocks 32 x 4096: 72, 62, 70; at 256 x 4096: 99, 151, 158, 162, where
    numpy's syrk had 154. With two threads at 64 x 16384, of gemm and panels of 32 and 64: 140, 193,
    169.
    """
    if accelerator.accelerated(out.device):
        return accelerator.product_
    blocks, m, d = x.shape
    if (
        m < 16
        or m * d < (_LEAST if blocks == 1 else 2 * _LEAST)
        or not (out.dtype is x.dtype is torch.float32)
        or not x.is_contiguous()
    ):
        return gemm
    return panels
