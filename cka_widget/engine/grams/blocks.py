"""How a batch is cut into blocks of samples that share a Gram."""

from __future__ import annotations

import math
from typing import NamedTuple


class Segment(NamedTuple):
    """Blocks of equal size in a batch: samples start ... start + blocks * size."""

    samples: slice
    blocks: int
    size: int
    offset: int  # of the first Gram's first number in a row of the stack

    def bounds(self) -> list[tuple[int, int]]:
        """First sample and end of every block."""
        starts = range(self.samples.start, self.samples.stop, self.size)
        return [(start, start + self.size) for start in starts]


def split(n: int, hsic_batch_size: int | None, min_samples: int) -> list[Segment]:
    """Cut n samples into near-equal blocks of at most `hsic_batch_size`, none left out."""
    if n < min_samples:
        return []
    blocks = 1 if hsic_batch_size is None else math.ceil(n / hsic_batch_size)
    blocks = max(1, min(blocks, n // min_samples))
    size, larger = divmod(n, blocks)
    segments, start, offset = [], 0, 0
    for count, m in ((larger, size + 1), (blocks - larger, size)):
        if count:
            segments.append(Segment(slice(start, start + count * m), count, m, offset))
            start, offset = start + count * m, offset + count * m * m
    return segments
