"""What a run will need of the device's memory, before it starts."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch

from cka_widget.engine.devices import memory_of
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams.blocks import split

# float64 matrices of all pairs of rows that stand at once: running sums, those from before the
# batch, a result's copy of them, and what scores and error bars are computed with.
_SQUARES = 26
# Grams of a batch beyond this are formed and multiplied a part at a time.
_GRAMS = 256 << 20


def gram_bytes(n: int, hsic_batch_size: int | None, min_samples: int = 4) -> int:
    """Bytes of one row's Grams of a batch of n samples."""
    return sum(4 * s.blocks * s.size**2 for s in split(n, hsic_batch_size, min_samples))


def samples_at_once(rows: int, hsic_batch_size: int | None) -> int | None:
    """Most samples that go through the models together, None where it is the whole batch.

    The Grams of larger batches would take more than 256 MB; models in evaluation mode do not mind.
    """
    if hsic_batch_size is None:
        return None
    return hsic_batch_size * max(1, _GRAMS // (4 * max(1, rows) * hsic_batch_size**2))


def numbers_together() -> int:
    """Numbers of Grams that temporary float64 copies are made of at a time, some 40 MB in all."""
    return _GRAMS >> 8


def bytes_needed(rows: int, n: int, hsic_batch_size: int | None, min_samples: int = 4) -> int:
    """Memory of a run beside the models and their activations, at most.

    The float32 Grams that stand at once, rows x HSIC batch^2 of them at least, and 26 float64
    matrices of rows x rows.
    """
    size = max((s.size for s in split(n, hsic_batch_size, min_samples)), default=0)
    grams = min(rows * gram_bytes(n, hsic_batch_size, min_samples), max(_GRAMS, 4 * rows * size**2))
    return grams + _SQUARES * 8 * rows**2


def rows_that_fit(memory: float, n: int, hsic_batch_size: int | None, min_samples: int = 4) -> int:
    """Largest number of rows whose `bytes_needed` are at most `memory`."""
    most = math.isqrt(int(memory) // (_SQUARES * 8)) + 1
    return (
        bisect_right(
            range(most + 1), memory, key=lambda r: bytes_needed(r, n, hsic_batch_size, min_samples)
        )
        - 1
    )


def check(
    rows: int, n: int, hsic_batch_size: int | None, min_samples: int, device: torch.device
) -> None:
    """Raises CompareError where the device has not the memory that rows at batches of n need."""
    memory, size = memory_of(device), (n, hsic_batch_size, min_samples)
    if (needed := bytes_needed(rows, *size)) > memory:
        raise CompareError(
            f"{rows:,} rows (layers times particles) at batches of {n} samples need "
            f"{needed / 1e9:.1f} GB and {device} has {memory / 1e9:.1f}: "
            f"choose at most {rows_that_fit(memory, *size):,} rows, or a smaller hsic_batch_size"
        )
