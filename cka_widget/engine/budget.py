"""What a run will need of the device's memory, before it starts."""

from __future__ import annotations

import math
import os

import torch

from cka_widget.engine.blocks import split

# float64 matrices of all pairs of rows that stand at once: running sums, a result's copy of
# them, and what scores and error bars are computed with (peak seen with 3,000 rows: 15.5).
_SQUARES = 16


def gram_bytes(n: int, hsic_batch_size: int | None, min_samples: int = 4) -> int:
    """Bytes of one row's Grams of a batch of n samples."""
    return sum(4 * s.blocks * s.size**2 for s in split(n, hsic_batch_size, min_samples))


def bytes_needed(rows: int, n: int, hsic_batch_size: int | None, min_samples: int = 4) -> int:
    """Memory of a run beside the models and their activations.

    rows x (samples x HSIC batch) float32 Grams, and 16 rows x rows float64 matrices.
    """
    return rows * gram_bytes(n, hsic_batch_size, min_samples) + _SQUARES * 8 * rows**2


def rows_that_fit(memory: float, n: int, hsic_batch_size: int | None, min_samples: int = 4) -> int:
    """Largest number of rows whose `bytes_needed` are at most `memory`."""
    square, linear = _SQUARES * 8, gram_bytes(n, hsic_batch_size, min_samples)
    return math.floor((math.sqrt(linear**2 + 4 * square * memory) - linear) / (2 * square))


def memory_of(device: torch.device) -> float:
    """Bytes the device has free; of a CPU's memory all, since caches give way. inf: unknown."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return math.inf
