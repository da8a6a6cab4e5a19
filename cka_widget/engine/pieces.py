"""Batches that go through the models in pieces, since their Grams or passes need much memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from cka_widget.engine.data.batches import divisible, each, take
from cka_widget.engine.devices import ran_out
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams.blocks import split
from cka_widget.engine.grams.memory import samples_at_once
from cka_widget.engine.sample_facts import SampleFacts

# The batches of the models, by name; their number of samples; what is known of the samples.
Piece = tuple[Mapping[str, Any], int, SampleFacts]


class Pieces:
    """How many samples of a batch go through the models at once.

    Args:
        device: of the Grams.
        min_samples: a piece of fewer has no HSIC.
    """

    def __init__(self, device: torch.device, min_samples: int) -> None:
        self._device = device
        self._min_samples = min_samples
        self._limit: int | None = None
        self._cut: int | None = None  # the limit, where memory ran out

    def bound(self, n_rows: int, hsic_batch_size: int | None) -> None:
        """Keep the Grams of large batches within `memory.samples_at_once`."""
        self._limit = samples_at_once(n_rows, hsic_batch_size)

    def of(self, batches: Mapping[str, Any], n: int, facts: SampleFacts) -> Iterator[Piece]:
        """The batch, or near-equal pieces of it.

        Args:
            batches: of every model.
            n: number of samples.
            facts: of the samples.
        """
        bounds = [b for s in split(n, self._limit, self._min_samples) for b in s.bounds()]
        if len(bounds) < 2:
            yield batches, n, facts
            return
        for start, stop in bounds:
            part = each(batches, partial(take, start=start, stop=stop, n=n))
            # The limit may have become smaller in the pieces before.
            yield from self.of(part, stop - start, facts.part(start, stop))

    def can_halve(self, batches: Mapping[str, Any], n: int) -> bool:
        """May a batch of n samples be cut in two?"""
        large = n // 2 >= self._min_samples
        return large and all(divisible(batch, n) for batch in batches.values())

    def halve(self, n: int) -> None:
        """Take half of n samples from now on."""
        self._cut = self._limit = n // 2

    def warnings(self) -> Iterator[str]:
        """What the reader of the result should know."""
        if self._cut is not None:
            yield (
                f"A batch did not fit the memory of {self._device}: batches were cut into at most "
                f"{self._cut} samples."
            )


def lacked_memory(error: Exception) -> bool:
    """Did a pass fail since memory ran out, in whatever words it is told?"""
    cause = error.__cause__ if isinstance(error, CompareError) else None
    return ran_out(cause or error)


def free_memory(device: torch.device) -> None:
    """Give back what a failed pass held; to be called when its error is handled.

    The error's traceback keeps the tensors of the pass alive until then, and frames that hold each
    other do so until they are collected.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
