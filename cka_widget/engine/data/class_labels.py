"""Which parts of a batch are labels, and the class of every sample that they give."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from cka_widget.engine.data.batches import LABEL_KEYS, tensors

# Parameters with these last words take whole numbers, one a sample, that are no class labels.
_INPUT_WORDS = re.compile(
    "batch|captions?|cond|conditions?|context|counts?|domain|idx?|ids|index|indices|inputs?|langs?"
    "|lens?|lengths?|num|offsets?|pos|positions?|prompts?|sizes?|speaker|steps?|t|tasks?|texts?"
    "|times?|timesteps?|tokens?|types?|users?|items?"
)
_LENGTH = re.compile("length|^lens?|lens?$")
_LABELS = ("label", "labels", "label_ids")


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


def is_label(value: Any, name: str, decodes: bool = False) -> bool:
    """Would a model not miss it? Class labels, unless the parameter is named as one for inputs.

    Args:
        value: a part of a batch.
        name: of the parameter that would take it, "" where it has none.
        decodes: whether the model makes its decoder's inputs of labels that are tokens.
    """
    if name in _LABELS:
        tokens = isinstance(value, Tensor) and value.dim() > 1 and not value.is_floating_point()
        return not (tokens and decodes)
    words = name.lower().split("_")
    if isinstance(value, Tensor) and any("mask" in word for word in words):
        return is_class_per_sample(value) and value.dtype is not torch.bool
    is_input = bool(_INPUT_WORDS.fullmatch(words[-1])) or any(map(_LENGTH.search, words))
    if is_class_per_sample(value):
        return not is_input
    return not any(True for _ in tensors(value)) and not (is_input and value is not None)


def is_class_per_sample(value: Any) -> bool:
    """Whole numbers (n,) or (n, 1), or a list of whole numbers or names."""
    if isinstance(value, Tensor):
        flat = value.dim() == 1 or (value.dim() == 2 and value.shape[1] == 1)
        return flat and not value.is_floating_point() and not value.is_complex()
    return isinstance(value, (tuple, list)) and all(isinstance(y, (int, str)) for y in value)
