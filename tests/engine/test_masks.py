"""A mask that does not fit a layer's tokens is said, not dropped in silence."""

from typing import Any

import pytest
import torch
import zoo
from checks import run
from torch import Tensor, nn

from cka_widget.engine.notes import UNMASKED


class Halving(nn.Module):
    """Two layers over all tokens, then two over every second."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.halved, self.again = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.whole(x)
        x = self.norm(x.mT).mT
        return self.again(self.halved(x[:, ::2]))


def said(reduce: Any, *, masked: bool = True) -> list[str]:
    batches = zoo.masked_batches(48)
    width = batches[0]["x"].shape[-1]
    model = zoo.seeded(Halving).eval()
    model.whole = nn.Linear(width, 8)
    if not masked:
        batches = [batch["x"] for batch in batches]
        call = lambda m, x: m(x, None)  # noqa: E731
        return list(run({"a": model}, batches, reduce=reduce, forward=call).warnings)
    return list(run({"a": model}, batches, reduce=reduce).warnings)


@pytest.mark.parametrize("reduce", ["mean", "last"])
def test_the_layer_with_other_tokens_is_named(reduce: str) -> None:
    notes = [note for note in said(reduce) if UNMASKED in note]
    assert notes == [f'Model "a", layer "halved" (and "again") {UNMASKED}']


def test_nothing_is_said_where_padding_does_not_matter() -> None:
    assert not [note for note in said("cls") if UNMASKED in note]
    assert not [note for note in said("mean", masked=False) if UNMASKED in note]
    assert not [note for note in said(lambda x: torch.relu(x[:, 0])) if UNMASKED in note]


def test_a_mask_of_another_kind_is_no_error() -> None:
    batches = zoo.masked_batches(48)
    for batch in batches:
        batch["attention_mask"] = batch["attention_mask"][:, None, None]
    model = zoo.seeded(Halving).eval()
    model.whole = nn.Linear(8, 8)
    notes = [n for n in run({"a": model}, batches, reduce="mean").warnings if UNMASKED in n]
    assert notes == [f'Model "a", layer "whole" (and "norm", "halved", "again") {UNMASKED}']


@pytest.mark.parametrize("reduce", ["mean", "cls", "last"])
def test_tokens_are_tokens_where_channels_come_first(reduce: str) -> None:
    """What a batch norm over (n, features, tokens) does to numbers, a layer norm's way can too."""
    batches = zoo.masked_batches(48)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.BatchNorm1d(8), nn.Identity()

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            return self.last(self.first(x.mT).mT)

    result = run({"a": Both().eval()}, batches, reduce=reduce)
    assert result.matrix("a", "a").loc["first", "last"] == pytest.approx(1.0, abs=1e-6)
