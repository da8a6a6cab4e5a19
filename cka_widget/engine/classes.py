"""The class labels of a run's samples, for the measures that need them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cka_widget.engine.data.class_labels import classes_of
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams.blocks import Segment
from cka_widget.engine.measures.measure import Measure

_LEAST_SHARE = 0.5  # of the samples, that a measure must be able to use


class Classes:
    """Numbers classes over all batches, and counts the samples that measures can use."""

    def __init__(self, measures: Sequence[Measure], hsic_batch_size: int | None) -> None:
        self._measures = [one for one in measures if one.needs_labels]
        self._size = hsic_batch_size
        self._numbers: dict[Hashable, int] = {}
        self._used = [0] * len(self._measures)
        self._samples = 0

    def values(self, batches: Sequence[Any], n: int, number: int) -> list[Hashable]:
        """The class of every sample of a batch, nothing where no measure needs them.

        Args:
            batches: of every model.
            n: number of samples.
            number: of the batch, for messages.

        Raises:
            CompareError: the batch carries no class labels.
        """
        if not self._measures:
            return []
        found = next((c for c in (classes_of(batch, n) for batch in batches) if c), None)
        if found is None:
            raise CompareError(
                f'batch {number} carries no class labels, which "{self._measures[0].name}" needs: '
                "let the loader give (inputs, labels), or leave the measure out"
            )
        return found

    def numbers(self, values: Sequence[Hashable]) -> Tensor | None:
        """Numbers for classes, (n,); None where none are needed."""
        if not values:
            return None
        return torch.tensor([self._numbers.setdefault(v, len(self._numbers)) for v in values])

    def note(
        self, labels: Tensor | None, segments: Sequence[Segment], order: list[int] | None
    ) -> None:
        """A batch, or a part of one, went in as these blocks.

        Args:
            labels: as of `numbers`.
            segments: the blocks.
            order: in which they take the samples; None as they come.

        Raises:
            CompareError: a measure can use less than half of the first samples.
        """
        if labels is None or not segments:
            return
        labels = labels if order is None else labels[order]
        first = not self._samples
        self._samples += sum(s.blocks * s.size for s in segments)
        for k, measure in enumerate(self._measures):
            for s in segments:
                self._used[k] += measure.used(labels[s.samples].view(s.blocks, s.size))
            if first and self._used[k] < _LEAST_SHARE * self._samples:
                remedy = "larger batches" if self._size is None else "hsic_batch_size=None"
                raise CompareError(
                    f'"{measure.name}" could use only {self._share(k)} of the first samples, since '
                    f"blocks of {segments[0].size} hold few samples of a class: give {remedy}"
                )

    def warnings(self) -> Iterator[str]:
        """What part of the samples measures could use."""
        for k, measure in enumerate(self._measures):
            if self._samples and self._used[k] < self._samples:
                yield (
                    f'"{measure.name}" used {self._share(k)} of the samples: classes with too few '
                    "samples in a block do not count there."
                )

    def _share(self, k: int) -> str:
        return f"{self._used[k] / self._samples:.0%}"
