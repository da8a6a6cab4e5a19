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
# Of each measure more: its sums, those from before the batch, and a result's copy.
_MORE_SQUARES = 18
# Arrays that a measure's vectors are made by.
_ON_THE_WAY = 6
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


def vectors_together() -> int:
    """Numbers of Grams of which a measure makes its vectors at a time, by arrays of that size."""
    return _GRAMS >> 6


def bytes_needed(
    rows: int,
    n: int,
    hsic_batch_size: int | None,
    min_samples: int = 4,
    *,
    measures: int = 1,
    stacks: int = 1,
) -> int:
    """Memory of a run beside the models and their activations, at most.

    The float32 Grams that stand at once, rows x HSIC batch^2 of them at least, and 26 float64
    matrices of rows x rows, with those of further measures.

    Args:
        rows: layers times particles.
        n: samples of a batch.
        hsic_batch_size: as of `compare`.
        min_samples: fewest samples of a block.
        measures: their number.
        stacks: of Grams, and of what measures make of them, at once.
    """
    size = max((s.size for s in split(n, hsic_batch_size, min_samples)), default=0)
    grams = min(rows * gram_bytes(n, hsic_batch_size, min_samples), max(_GRAMS, 4 * rows * size**2))
    squares = (_SQUARES + _MORE_SQUARES * (measures - 1)) * 8 * rows**2
    made = _ON_THE_WAY * 4 * min(rows * size**2, vectors_together()) if stacks > 1 else 0
    return stacks * grams + made + squares


def rows_that_fit(
    memory: float, n: int, hsic_batch_size: int | None, min_samples: int = 4, **beside: int
) -> int:
    """Largest number of rows whose `bytes_needed`, of the same arguments, are at most `memory`."""
    most = math.isqrt(int(memory) // (_SQUARES * 8)) + 1
    return (
        bisect_right(
            range(most + 1),
            memory,
            key=lambda r: bytes_needed(r, n, hsic_batch_size, min_samples, **beside),
        )
        - 1
    )


def check(
    rows: int,
    n: int,
    hsic_batch_size: int | None,
    min_samples: int,
    device: torch.device,
    **beside: int,
) -> None:
    """Raises CompareError where the device has not the memory that rows at batches of n need.

    Arguments as of `bytes_needed`.
    """
    memory, size = memory_of(device), (n, hsic_batch_size, min_samples)
    if (needed := bytes_needed(rows, *size, **beside)) > memory:
        raise CompareError(
            f"{rows:,} rows (layers times particles) at batches of {n} samples need "
            f"{needed / 1e9:.1f} GB and {device} has {memory / 1e9:.1f}: "
            f"choose at most {rows_that_fit(memory, *size, **beside):,} rows, or a smaller "
            "hsic_batch_size"
        )
