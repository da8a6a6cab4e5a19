"""Samples that a model sorts, turns round or shifts are no rows of the batch's samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

ORDERS: dict[str, Any] = {
    "sorted": lambda x: x.flatten(1).norm(dim=1).argsort(),
    "reversed": lambda x: torch.arange(len(x)).flip(0),
    "shifted": lambda x: torch.arange(len(x)).roll(1),
}


class Sorts(nn.Module):
    """A layer in the batch's order, one in another order, and one in the batch's again."""

    def __init__(self, order: str, steps_first: bool = False) -> None:
        super().__init__()
        self.first, self.sorted, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.order, self.axis = ORDERS[order], int(steps_first)

    def forward(self, x: Tensor) -> Tensor:
        order = self.order(x)
        x = torch.tanh(self.first(x))[order]
        x = self.sorted(x.transpose(0, self.axis)).transpose(0, self.axis)
        return self.last(torch.tanh(x)[order.argsort()])


@pytest.mark.parametrize("steps_first", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(6))
def test_samples_in_another_order_are_left_out_and_told(
    order: str, steps_first: bool, seed: int
) -> None:
    """Whether two or three samples show it, or the first batch alone."""
    torch.manual_seed(seed)
    models = {"a": zoo.seeded(Sorts, order, steps_first)}
    batches = [torch.randn(16, 5, 6) for _ in range(3)]
    result = run(models, batches)
    assert result.layers("a") == ["first", "last"]
    (said,) = result.warnings
    assert said == (
        'Model "a", layer "sorted" is left out, though it holds samples: its entries are the '
        "samples in another order than the batch's; sort them in the loader instead."
    )
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE


class Packs(nn.Module):
    """Sorts by length for itself, or lets torch do it, which keeps the order that was."""

    def __init__(self, sorts: bool) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Linear(6, 8), nn.GRU(8, 8), nn.Linear(8, 3)
        self.sorts = sorts

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        order = lengths.argsort(descending=True) if self.sorts else torch.arange(len(x))
        steps = self.embed(x)[order]
        pack = nn.utils.rnn.pack_padded_sequence
        packed = pack(steps, lengths[order], batch_first=True, enforce_sorted=self.sorts)
        return self.head(self.rnn(packed)[1][-1][order.argsort()])


@pytest.mark.parametrize("sorts", [False, True])
def test_packed_sequences_that_the_model_sorts(sorts: bool) -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 5, 6), torch.randint(1, 6, (16,))) for _ in range(3)]
    result = run({"a": zoo.seeded(Packs, sorts)}, batches)
    assert result.layers("a") == (["embed", "head"] if sorts else ["embed", "rnn", "head"])
    assert ['layer "rnn" is left out' in said for said in result.warnings] == [True] * sorts


@pytest.mark.parametrize("coarse", [False, True])
def test_samples_that_are_mixed_stay_rows(coarse: bool) -> None:
    """Also where few values are possible, or two samples are one."""

    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mixed = nn.Linear(6, 8), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.mixed(x - x.mean(0))

    batches = [torch.randn(16, 6) for _ in range(3)]
    if coarse:
        batches = [batch[[0, 0, *range(2, 16)]].sign() for batch in batches]
    models = {"a": zoo.seeded(Mixes)}
    result = run(models, batches)
    assert result.layers("a") == ["first", "mixed"]
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE
