"""What would mislead the reader of a result, in words a student understands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from operator import eq
from typing import Any

from torch import Tensor

from cka_widget.engine.data.class_labels import classes_of, labels_in

# Neighbours in a batch share their class this much more often than by chance: sorted.
_SORTED_EXCESS = 0.5
# Fewer pairs of neighbours may agree by chance.
_FEWEST_NEIGHBOURS = 20

_NOT_INDEPENDENT = (
    "Neighbouring samples of a batch are more alike than others, as the frames of a video, a time "
    "series or runs of one class are: they are not independent, so that similarity is "
    'overestimated, and neither the error bars nor "above chance" hold; shuffle the data once, or '
    "say by groups= which samples belong together."
)


class Diagnostics:
    """Watches the batches of one run."""

    def __init__(self, min_samples: int) -> None:
        self._min_samples = min_samples
        self._batches = 0
        self._small = 0
        self._samples = 0
        self._neighbours = 0
        self._equal_neighbours = 0
        self._classes: Counter[Hashable] = Counter()
        self._unpaired = False
        # Labels on a device, not read yet.
        self._waiting: list[tuple[list[Any], int, list[int] | None]] = []

    def observe(self, batches: list[Any], n: int, order: list[int] | None = None) -> None:
        """Note one batch of n samples, from each loader, and the order of its blocks' samples."""
        self._batches += 1
        self._samples += n
        self._small += n < self._min_samples
        labels = [labels_in(batch) for batch in batches]
        if any(isinstance(one, Tensor) and one.device.type != "cpu" for one in labels):
            # Reading them would make the host wait for the device in every batch.
            self._waiting.append(([(None, _kept(one)) for one in labels], n, order))
        else:
            self._note(batches, n, order)

    def _note(self, batches: list[Any], n: int, order: list[int] | None) -> None:
        found = [labels for labels in (classes_of(batch, n) for batch in batches) if labels]
        if not found:
            return
        labels = found[0] if order is None else [found[0][sample] for sample in order]
        if not labels:
            return
        self._neighbours += len(labels) - 1
        self._equal_neighbours += sum(map(eq, labels[1:], labels))
        self._classes.update(labels)
        self._unpaired |= any(other != found[0] for other in found[1:])

    @property
    def classes(self) -> int:
        """Number of classes that the batches' labels told of; 0 without labels."""
        return len(self._classes)

    def warnings(self, neighbours_alike: Callable[[], bool]) -> list[str]:
        """Sentences, most misleading first; what the Grams say of neighbours is asked last."""
        waiting, self._waiting = self._waiting, []
        for batches, n, order in waiting:
            self._note(batches, n, order)
        found = []
        if self._samples < self._min_samples:
            found.append(
                f"Only {self._samples} samples came: CKA needs at least {self._min_samples} "
                "in a batch, and about a thousand in all for a good estimate."
            )
        elif self._small > self._batches / 4:
            found.append(
                f"{self._small} of {self._batches} batches had fewer than {self._min_samples} "
                "samples and were left out: use a larger batch size."
            )
        if self._unpaired:
            found.append(
                "The loaders give different labels for the same row: CKA compares row by row, "
                "so every loader must give the same samples in the same order (shuffle=False)."
            )
        by_class = self._looks_sorted()
        if by_class:
            found.append(
                "The batches look sorted by class: within such batches similarity is "
                "overestimated; shuffle the data once (shuffle=True)."
            )
        if len(self._classes) == 1 and self._neighbours >= _FEWEST_NEIGHBOURS:
            (label,) = self._classes
            found.append(
                f"All samples have the same label, {label!r}: where that is only the beginning of "
                "data sorted by class, shuffle them (shuffle=True)."
            )
        elif not by_class and neighbours_alike():
            found.append(_NOT_INDEPENDENT)
        return found

    def _looks_sorted(self) -> bool:
        total = sum(self._classes.values())
        if self._batches < 2 or self._neighbours < _FEWEST_NEIGHBOURS:
            return False
        by_chance = sum(c * c for c in self._classes.values()) / total**2
        equal = self._equal_neighbours / self._neighbours
        return by_chance < 1 and (equal - by_chance) / (1 - by_chance) > _SORTED_EXCESS


def _kept(labels: Any) -> Any:
    """Labels that the loader may overwrite."""
    return labels.clone() if isinstance(labels, Tensor) else labels
