"""What an accelerator needs: reduced precision of features, and sums cut into chunks.

Precisions are named as in `torch.set_float32_matmul_precision`:

- "highest": float32 (scores of the benchmarks are off by at most 1e-6),
- "high": TF32 on NVIDIA GPUs, 10 bits of mantissa (9e-5),
- "medium": features rounded to bfloat16, 7 bits (5e-4).

Sums are float32, and so are products of Grams. In bfloat16 all features are centred, since their
first digit would be lost, in TF32 those whose mean is large against their spread. Features of half
precision that need no centring are multiplied as they are: nothing is rounded then.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

PRECISIONS = ("highest", "high", "medium")

# A matrix product is shared out in tiles of this many rows and columns, one to a processor.
_TILE = 128
# Fewer features than this are not worth a processor of their own; a launch costs about as much.
_LEAST_FEATURES = 4096
# Chunks begin where a vector of loads does.
_ALIGN = 64


def accelerated(device: torch.device) -> bool:
    """Work is queued there: reading a number makes the host wait for all of it."""
    return device.type != "cpu"


def sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: Apple's devices have no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def double(x: Tensor) -> Tensor:
    """The same numbers in float64, where sums are kept."""
    return x.to(sums_device(x.device)).double()


def resolve(precision: str | None, device: torch.device) -> str:
    """The precision of a run; None follows `torch.set_float32_matmul_precision` on CUDA.

    Raises:
        ValueError: not one of `PRECISIONS`.
    """
    if precision is None:
        return _torch_precision() if device.type == "cuda" else "highest"
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not known: {', '.join(PRECISIONS)} or None")
    return precision


def _torch_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set by `torch.backends`, which torch calls a mix
        return "high" if _backend("cuda").fp32_precision == "tf32" else "highest"


def matmul(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """While entered, float32 matrix products on the device have this precision.

    torch's setting is the process's; it is left alone where it is right already.
    """
    wanted = "ieee" if precision == "highest" or device.type == "cpu" else "tf32"
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    switch = _Switch(device.type, wanted)
    return nullcontext() if switch.right() else switch


def uncast(device: torch.device) -> AbstractContextManager[Any]:
    """While entered, autocast rounds nothing on the device: the models have it, Grams do not."""
    # Asked first: entering a context costs more than a small Gram.
    if _asks_autocast(device.type)():
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@functools.cache
def _asks_autocast(kind: str) -> Callable[[], bool]:
    """What tells whether autocast is on for a kind of device."""
    available = torch.amp.is_autocast_available(kind)
    return partial(torch.is_autocast_enabled, kind) if available else lambda: False


class _Switch(AbstractContextManager[None]):
    """Torch's setting for one kind of device, restored on leaving."""

    def __init__(self, kind: str, wanted: str) -> None:
        self._backend = _backend(kind)
        self._wanted = wanted
        if self._backend is None:  # one setting serves all devices
            self._wanted = "highest" if wanted == "ieee" else "high"
        self._before = self._get()

    def right(self) -> bool:
        same = ("none", "ieee") if self._wanted == "ieee" else (self._wanted,)
        return self._before in same

    def __enter__(self) -> None:
        self._before = self._get()
        self._set(self._wanted)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._backend is not None:
            self._set("none")
            if self._get() == self._before:
                return  # it was inherited, and is again
        self._set(self._before)

    def _get(self) -> str:
        if self._backend is None:
            return torch.get_float32_matmul_precision()
        return str(self._backend.fp32_precision)

    def _set(self, value: str) -> None:
        if self._backend is None:
            torch.set_float32_matmul_precision(value)
        else:
            self._backend.fp32_precision = value


def _backend(kind: str) -> Any:
    """Where torch keeps the setting of one kind of device; None before torch 2.9."""
    owner = torch.backends.mkldnn if kind == "cpu" else torch.backends.cuda
    found = getattr(owner, "matmul", None)  # the CPU's came with torch 2.9
    return found if hasattr(found, "fp32_precision") else None


def exact(x: Tensor) -> bool:
    """Are products of its numbers exact in float32, so that they are multiplied as they are?"""
    return accelerated(x.device) and x.dtype in (torch.bfloat16, torch.float16)


def product_(out: Tensor, x: Tensor, *, beta: float = 0.0, alpha: float = 1.0) -> None:
    """Write beta out + alpha X X' of every block into out.

    Args:
        out: (blocks, m, m), written.
        x: (blocks, m, d), of out's dtype, or bfloat16 or float16; summed in out's.
        beta: 0 ignores what `out` holds.
        alpha: scale of the product.
    """
    blocks, m, d = x.shape
    chunks = chunks_for(blocks, m, d, _processors(x.device)) if accelerated(x.device) else 1
    if chunks > 1:
        for to, block in zip(out, x, strict=True):
            _split_product_(to, block, chunks, beta, alpha)
    elif x.dtype is out.dtype:
        torch.baddbmm(out, x, x.mT, beta=beta, alpha=alpha, out=out)
    else:
        _write_(out, _times_transpose(x), beta, alpha)


def _write_(out: Tensor, products: Tensor, beta: float, alpha: float) -> None:
    if beta:
        out.mul_(beta).add_(products, alpha=alpha)
    else:
        torch.mul(products, alpha, out=out)


def _split_product_(out: Tensor, x: Tensor, chunks: int, beta: float, alpha: float) -> None:
    """The same of one block (m, d), as a sum of so many products, each over some features.

    A tall product has few tiles, and one processor would walk through all features of each.
    """
    m, d = x.shape
    width = min(d, math.ceil(d / chunks / _ALIGN) * _ALIGN)
    whole = d // width * width
    parts = _times_transpose(x[:, :whole].view(m, -1, width).transpose(0, 1))
    if not beta and alpha == 1.0 and whole == d:
        torch.sum(parts, 0, out=out)
        return
    total = parts.sum(0)
    if whole < d:
        total += _times_transpose(x[None, :, whole:])[0]
    _write_(out, total, beta, alpha)


def chunks_for(blocks: int, m: int, d: int, processors: int) -> int:
    """How many chunks of the features to make of each block, one block after another.

    1 where all blocks at once, each tile walking through all features, are done sooner; else as
    many as there are processors for, or half of that at least where this leaves no remainder,
    whose product and sum are launches of their own.
    """
    most = min(processors // math.ceil(m / _TILE) ** 2, d // _LEAST_FEATURES)
    if most <= 1 or blocks * (d / most + _LEAST_FEATURES) >= d:
        return 1
    even = (n for n in range(most, most // 2, -1) if d % (n * _ALIGN) == 0)
    return next(even, most)


def _times_transpose(x: Tensor) -> Tensor:
    """X X' of blocks, float32 where they are of half precision."""
    if x.dtype not in (torch.bfloat16, torch.float16):
        return torch.bmm(x, x.mT)
    if _sums_in_float32(x.device):
        return torch.bmm(x, x.mT, out_dtype=torch.float32)
    # Products of two such numbers are exact in float32, and in TF32.
    return torch.bmm(x.float(), x.float().mT)


def _sums_in_float32(device: torch.device) -> bool:
    """Can products of half precision be asked for in float32 there?"""
    return device.type == "cuda" and hasattr(torch.ops.aten.bmm, "dtype")


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 64
