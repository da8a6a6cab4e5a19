"""A loader gives batches; what only looks like one is refused with the line that would work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

X = torch.zeros(32, 8)


class Mapped(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 48

    def __getitem__(self, i: int) -> torch.Tensor:
        return X[i % 32]


class Streamed(IterableDataset):  # type: ignore[type-arg]
    """Samples or whole batches, without a length."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class StreamedWithLength(Streamed):
    def __len__(self) -> int:
        return len(self.items)


class PipelineLoader(Streamed):
    """As the loaders of other libraries are: an iterable data set that gives batches."""


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (X, r"is a tensor, .*DataLoader\(.*TensorDataset\(data\).*data\.split"),
        (X.numpy(), r"a numpy array, .*DataLoader\(.*TensorDataset\(torch\.from_numpy"),
        (TensorDataset(X), r"a data set \(TensorDataset\).*DataLoader\(dataset, batch_size=64\)"),
        (torch.utils.data.Subset(TensorDataset(X), [0, 1]), r"\(Subset\).*DataLoader\(dataset"),
        (Mapped(), r"\(Mapped\).*DataLoader\(dataset, batch_size=64\)"),
        (Streamed(X), r"\(Streamed\).*batch_size=None where it gives whole batches"),
        (pd.DataFrame(X.numpy()), r"is a DataFrame, .*torch\.tensor\(frame\.to_numpy\(\)"),
        (pd.Series([1.0, 2.0]), "is a Series"),
        ("images/", "is a str, .*DataLoader"),
        (Path("images"), "is a .*Path, .*DataLoader"),
        (nn.Sequential(nn.Linear(2, 2)), r"a model \(Sequential\)"),
        ((X, torch.zeros(32).long()), r"one batch, a tuple of tensors, .*\[batch\]"),
        (7.0, "cannot be iterated.*DataLoader"),
        (len, "cannot be iterated"),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_what_is_no_loader(loader: Any, words: str, by_name: bool) -> None:
    model = zoo.Counting(zoo.mlp())
    with pytest.raises(TypeError, match=words):
        run({"a": model}, {"a": loader} if by_name else loader)
    assert not model.sizes


def test_one_tokenised_batch_is_no_mapping_of_loaders() -> None:
    with pytest.raises(ValueError, match=r"not input_ids, attention_mask, labels; .*\[batch\]"):
        run({"a": zoo.seeded(zoo.TokenClassifier)}, zoo.token_batches()[0])
    with pytest.raises(ValueError, match='not resnet; did you mean "resnet18"'):
        run({"resnet18": zoo.mlp()}, {"resnet": zoo.vectors()})


@pytest.mark.parametrize("kind", [Streamed, StreamedWithLength])
@pytest.mark.parametrize("whole", [False, True])
def test_a_loader_over_an_iterable_data_set(kind: Any, whole: bool) -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(64)
    data = kind(batches if whole else list(torch.cat(batches)))
    result = run(models, DataLoader(data, batch_size=None if whole else 16))
    assert result.samples == 64
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE


@pytest.mark.parametrize(
    "wrap", [tuple, iter, lambda batches: (b for b in batches), PipelineLoader]
)
def test_other_ways_to_give_batches(wrap: Any) -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(64)
    result = run(models, wrap(batches))
    assert result.samples == 64
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE
