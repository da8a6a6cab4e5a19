"""The class of every sample of a batch, in the forms that data sets give it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from cka_widget.engine.batches import LABEL_KEYS


def classes_of(batch: Any, n: int) -> list[Hashable] | None:
    """One class a sample, or None where the batch seems to carry none.

    Args:
        batch: a mapping with labels, or a sequence whose second element they are: integers (n,)
            or (n, 1), one-hot rows (n, classes), or a list of integers or names.
        n: number of samples.
    """
    found = labels_in(batch)
    classes = _of_tensor(found) if isinstance(found, Tensor) else _of_list(found)
    return classes if classes is not None and len(classes) == n else None


def labels_in(batch: Any) -> Any:
    """What a batch has in the place of labels, as it is; None for nothing."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in LABEL_KEYS if key in batch), None)
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[1]
    return None


def _of_tensor(labels: Tensor) -> list[Hashable] | None:
    if labels.dim() == 2 and labels.shape[1] > 1:
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
        return list(labels.int().argmax(1).tolist()) if one_hot else None
    if labels.is_floating_point() or labels.is_complex():
        return None
    if labels.dim() == 1 or labels.dim() == 2:
        return list(labels.flatten().tolist())
    return None


def _of_list(labels: Any) -> list[Hashable] | None:
    if isinstance(labels, (tuple, list)) and all(isinstance(y, (int, str)) for y in labels):
        return list(labels)
    return None
