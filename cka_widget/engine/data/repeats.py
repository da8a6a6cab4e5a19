"""Samples that a loader gives more than once: error bars too small, and likeness within a block."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import IterableDataset, RandomSampler, WeightedRandomSampler

from cka_widget.engine.data.batches import tensors
from cka_widget.engine.data.loaders import length, samplers

_MOST = 50_000
"""So many samples are remembered; each takes some hundred bytes."""
_VALUES = 64
"""A sample is recognised by so many of its numbers, spread over it."""


def padded(loader: Any) -> str | None:
    """A sentence on a sampler that gives samples twice, or None."""
    for sampler in samplers(loader):
        name = type(sampler).__name__
        if _draws_again(sampler):
            return (
                f"With the {name} samples come more than once, so that error bars are too small: "
                "shuffle=True without a sampler gives each once."
            )
        size = length(getattr(sampler, "dataset", None))
        total = getattr(sampler, "total_size", None)
        if size is not None and isinstance(total, int) and total > size:
            return (
                f"The {name} pads {size:,} samples to {total:,} with samples that come a second "
                f"time: drop_last=True in the sampler, or a loader without it, gives each once."
            )
        even, shards = getattr(sampler, "even_batches", False), getattr(sampler, "num_processes", 1)
        if even and shards > 1 and not getattr(sampler, "drop_last", False):
            return (
                f"The {name} gives samples a second time where the batches do not divide by its "
                f"{shards} processes: even_batches=False, or a loader without it, gives each once."
            )
    return None


def _draws_again(sampler: Any) -> bool:
    if not isinstance(sampler, (RandomSampler, WeightedRandomSampler)):
        return False
    size = length(getattr(sampler, "data_source", None))
    return sampler.replacement or (size is not None and sampler.num_samples > size)


class Repeats:
    """Watches a loader of an iterable data set with several workers.

    Each of them has a copy of the data set, and gives all of it unless the data set divides itself.
    Values that come often within one worker's part (short codes, blank images) prove nothing.
    """

    def __init__(self, loader: Any) -> None:
        self._workers: int = getattr(loader, "num_workers", 0)
        self._dataset: Any = getattr(loader, "dataset", None)
        several = isinstance(self._workers, int) and self._workers > 1
        self._on = several and isinstance(self._dataset, IterableDataset)
        self._seen = 0
        self._kept = 0
        self._own: list[set[bytes]] = [set() for _ in range(self._workers)] if self._on else []

    def see(self, batch: Any, step: int) -> None:
        """Note the batch of a step; torch asks the workers in turn."""
        if not self._on:
            return
        first = next((t for t in tensors(batch) if t.ndim and t.device.type == "cpu"), None)
        if first is None or first.is_sparse:
            return
        self._seen += len(first)
        if self._kept >= _MOST:
            return
        self._kept += len(first)
        flat = first.detach().reshape(len(first), -1)
        some = flat[:, :: -(-flat.shape[1] // _VALUES) or 1].resolve_conj().contiguous()
        rows = some.view(torch.uint8) if some.shape[1] else some.to(torch.uint8)
        self._own[step % self._workers].update(row.tobytes() for row in rows.numpy())

    def warning(self) -> str | None:
        """A sentence where the workers gave the same samples, or None."""
        size = length(self._dataset) if self._on else None
        own, distinct = sum(map(len, self._own)), len(set().union(*self._own))
        same = self._kept >= 8 and own > 0.9 * self._kept and distinct < 0.7 * own
        if not same and (size is None or self._seen <= size):
            return None
        times = f"about {own / distinct:.0f} times" if same else f"more often than its {size:,}"
        return (
            f"Samples come {times}: each of the loader's {self._workers} workers gives all of the "
            f"{type(self._dataset).__name__}, so that error bars are too small; divide it by "
            "torch.utils.data.get_worker_info() in its __iter__, or use num_workers=0."
        )
