"""Loaders that give samples more than once are told, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo
from checks import run
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)
from worker_data import Rows, Streamed

from cka_widget.engine.data.repeats import Repeats, padded


def x(n: int = 64, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def told(loader: Any) -> str:
    return " ".join(run({"a": zoo.mlp()}, loader).warnings)


# workers of an iterable data set ------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are processors
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("shuffled", [False, True])
def test_workers_that_each_give_everything_are_told(workers: int, shuffled: bool) -> None:
    loader = DataLoader(Streamed(x(), shuffled=shuffled), 8, num_workers=workers)
    result = run({"a": zoo.mlp()}, loader)
    assert result.samples == workers * 64
    (said,) = result.warnings
    assert f"come about {workers} times: each of the loader's {workers} workers" in said
    assert "get_worker_info()" in said


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_that_divide_the_data_are_not(workers: int) -> None:
    loader = DataLoader(Streamed(x(), divided=True), 8, num_workers=workers)
    result = run({"a": zoo.mlp()}, loader)
    assert result.samples == 64
    assert not result.warnings


def test_it_is_told_of_a_run_that_has_not_ended() -> None:
    loader = DataLoader(Streamed(x()), 8, num_workers=2)
    assert "come about 2 times" in " ".join(run({"a": zoo.mlp()}, loader, max_batches=4).warnings)


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
def test_more_samples_than_the_data_set_has_are_told_though_none_is_like_another() -> None:
    class Noisy(Streamed):
        def __len__(self) -> int:
            return len(self.x)

        def __iter__(self) -> Any:
            return (row + torch.randn(8) for row in super().__iter__())

    assert "more often than its 64" in told(DataLoader(Noisy(x()), 8, num_workers=2))


def test_values_that_come_often_by_themselves_prove_nothing() -> None:
    codes = x().sign()[:, :2].repeat(1, 4)
    loader = DataLoader(Streamed(codes, divided=True), 8, num_workers=2)
    assert not run({"a": zoo.mlp()}, loader).warnings


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(4, 0),
        torch.tensor(3.0),
        torch.eye(4).to_sparse(),
        torch.ones(4, 2, dtype=torch.complex64).conj(),
        torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True),
        torch.ones(4, dtype=torch.bool),
        {"text": ["a", "b"]},
    ],
)
def test_any_batch_can_be_looked_at(batch: Any) -> None:
    watch = Repeats(SimpleNamespace(num_workers=2, dataset=Streamed(x())))
    for step in range(8):
        watch.see(batch, step)
    assert watch.warning() is None


# samplers -----------------------------------------------------------------------------------------
def test_a_sampler_that_pads_is_told() -> None:
    data = TensorDataset(x(61))
    sampler = DistributedSampler(data, num_replicas=4, rank=3, shuffle=False)
    said = told(DataLoader(data, 8, sampler=sampler))
    assert "DistributedSampler pads 61 samples to 64" in said
    assert "drop_last=True" in said


@pytest.mark.parametrize(("n", "drop"), [(64, False), (61, True)])
def test_a_sampler_that_needs_no_padding_is_not(n: int, drop: bool) -> None:
    data = TensorDataset(x(n))
    sampler = DistributedSampler(data, num_replicas=4, rank=0, drop_last=drop)
    assert not told(DataLoader(data, 8, sampler=sampler))


def test_a_padding_sampler_is_found_where_batches_are_sampled() -> None:
    data = TensorDataset(x(61))
    sampler = DistributedSampler(data, num_replicas=4, rank=0, shuffle=False)
    loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 8, False))
    assert "pads 61 samples" in str(padded(loader))


@pytest.mark.parametrize(
    "sampler",
    [
        RandomSampler(range(64), replacement=True),
        WeightedRandomSampler([1.0] * 64, 64),
        RandomSampler(range(64), num_samples=100),
    ],
)
def test_drawing_samples_again_is_told(sampler: Sampler) -> None:
    said = told(DataLoader(TensorDataset(x()), 8, sampler=sampler))
    assert "samples come more than once" in said


def test_drawing_each_once_is_not_told() -> None:
    for options in ({"shuffle": True}, {"sampler": WeightedRandomSampler([1.0] * 64, 64, False)}):
        assert not told(DataLoader(Rows(), 8, **options))
