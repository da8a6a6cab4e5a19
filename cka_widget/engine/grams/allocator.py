"""What a batch frees on the CPU is kept for the next one: fresh pages cost more than Grams."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

# The largest block, its header and alignment included, that moves glibc's threshold (mallopt(3)).
_LARGEST = (32 << 20) - (64 << 10)


def keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 32 MB when they are freed.

    glibc gives blocks above a threshold back to the system at once, and free memory above twice
    that; each of the pages that is asked for again is a fault, half the time that a small
    network's passes take. The threshold follows the largest such block freed so far, whoever freed
    it. As nothing is written to ours, they take no memory. Other C libraries are left as they are.
    """
    # Free memory serves the first two at most; the third is one that the system gave.
    with suppress(MemoryError):
        [np.empty(_LARGEST, np.uint8) for _ in range(3)]
