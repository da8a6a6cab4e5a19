"""A mask that does not fit a layer's tokens is said, not dropped in silence."""

from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import Reference
from torch import Tensor, nn

from cka_widget.engine.outputs.layer_warnings import UNMASKED


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
        mask = batch["attention_mask"].bool()
        batch["attention_mask"] = mask[:, None] & mask[:, :, None]
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


# how a mask marks them ----------------------------------------------------------------------------
class Named(nn.Module):
    """Two layers over tokens; takes a mask under any name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, **given: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x))).sum()


class Placed(Named):
    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        return super().forward(x)


def added(kept: Tensor) -> Tensor:
    return torch.zeros(kept.shape).masked_fill(~kept, float("-inf"))


def marked(key: str, how: Any, whole: bool = False) -> tuple[list[dict[str, Tensor]], Any]:
    """Batches with the mask as `how` makes it of what counts, and what counts."""
    batches = zoo.masked_batches(48)
    masks = [batch.pop("attention_mask").bool() | whole for batch in batches]
    return [{"x": b["x"], key: how(mask)} for b, mask in zip(batches, masks, strict=True)], masks


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("key", "how"),
    [
        ("attention_mask", lambda kept: kept),
        ("attention_mask", Tensor.float),
        ("attention_mask", added),
        ("attention_mask", lambda kept: added(kept).clamp(min=-1e4)[:, None, None]),
        ("attention_mask", lambda kept: kept[:, None].long()),
        ("key_padding_mask", torch.logical_not),
        ("src_key_padding_mask", torch.logical_not),
        ("src_key_padding_mask", added),
    ],
)
def test_however_a_mask_says_which_tokens_count(key: str, how: Any, whole: bool) -> None:
    model = zoo.seeded(Named)
    batches, masks = marked(key, how, whole)
    for reduce in ("mean", "last"):
        result = run({"a": model}, batches, reduce=reduce, layers=["first", "last"])
        assert not result.warnings
        reference = Reference()
        reference.particles["a"] = 1
        for batch, mask in zip(batches, masks, strict=True):
            first = model.first(batch["x"])
            for name, x in {"first": first, "last": model.last(torch.tanh(first))}.items():
                rows = kept(x, mask, reduce)
                reference.features.setdefault(("a", 0, name), []).append(rows)
        assert largest_error(result, reference) <= TOLERANCE


@pytest.mark.parametrize("key", ["mask", "padding_mask", "input_mask", "lengths", "x_lens"])
def test_what_marks_padding_in_an_unknown_way_is_told(key: str) -> None:
    how = (lambda mask: mask.sum(1)) if key[-1] == "s" else torch.logical_not
    batches, _ = marked(key, how)
    model = zoo.seeded(Named)
    (said,) = run({"a": model}, batches, reduce="mean", layers=["first", "last"]).warnings
    assert said.startswith(f'Model "a": reduce="mean" does not read "{key}" of the batch')
    assert '"attention_mask", (n, tokens), true where a token counts' in said
    assert not run({"a": model}, batches, reduce="cls", layers=["first", "last"]).warnings


def test_a_mask_that_is_given_by_its_place_is_told() -> None:
    batches, _ = marked("attention_mask", Tensor.long)
    placed = [tuple(batch.values()) for batch in batches]
    layers = ["first", "last"]
    (said,) = run({"a": zoo.seeded(Placed)}, placed, reduce="mean", layers=layers).warnings
    assert 'does not read "attention_mask" of the batch' in said


# whose tokens a mask marks ------------------------------------------------------------------------
class EncoderDecoder(nn.Module):
    """Its decoder's tokens are its own, and may be as many as the encoder's."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.enc, self.dec = nn.Embedding(30, 8), nn.Embedding(30, 8)
        self.cross, self.width = nn.Linear(8, 8), width

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        if self.width is not None and input_ids.shape[1] != self.width:
            raise ValueError("so many tokens, and no others")
        memory = self.cross(torch.tanh(self.enc(input_ids)))
        return (self.dec(decoder_input_ids) + memory.mean(1, keepdim=True)).mean(1)


def pairs(*, decoder_mask: bool, left: bool = False) -> list[dict[str, Tensor]]:
    """9 tokens on both sides, of which 4 and 6 count, on the right or on the left."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(5):
        ids, others = torch.randint(0, 30, (2, 12, 9), generator=generator)
        masks = [(torch.arange(9) < k).long().expand(12, 9) for k in (4, 6)]
        mask, other = [m.flip(1) if left else m for m in masks]
        batch = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": others}
        batches.append(batch | ({"decoder_attention_mask": other} if decoder_mask else {}))
    return batches


def kept(x: Tensor, mask: Tensor | None, reduce: str) -> np.ndarray:
    """One row a sample, token by token."""
    rows = []
    marked = torch.ones(x.shape[:2]) if mask is None else mask
    for tokens, marks in zip(x.double(), marked, strict=True):
        own = tokens[marks.bool()]
        rows.append(own.mean(0) if reduce == "mean" else own[-1])
    return torch.stack(rows).detach().numpy()


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("reduce", ["mean", "last"])
@pytest.mark.parametrize("decoder_mask", [False, True])
def test_each_side_has_the_mask_of_its_own_tokens(
    decoder_mask: bool, reduce: str, left: bool
) -> None:
    model = zoo.seeded(EncoderDecoder)
    batches = pairs(decoder_mask=decoder_mask, left=left)
    result = run({"a": model}, batches, reduce=reduce, layers=["enc", "cross", "dec"])
    reference = Reference()
    reference.particles["a"] = 1
    for batch in batches:
        enc, dec = model.enc(batch["input_ids"]), model.dec(batch["decoder_input_ids"])
        found = {
            "enc": kept(enc, batch["attention_mask"], reduce),
            "cross": kept(model.cross(torch.tanh(enc)), batch["attention_mask"], reduce),
            "dec": kept(dec, batch.get("decoder_attention_mask"), reduce),
        }
        for name, rows in found.items():
            reference.features.setdefault(("a", 0, name), []).append(rows)
    assert largest_error(result, reference) <= TOLERANCE
    told = [f'Model "a", layer "dec" {UNMASKED}']
    assert [note for note in result.warnings if UNMASKED in note] == ([] if decoder_mask else told)


def test_a_mask_that_cannot_be_proved_is_not_used_beside_a_decoders_tokens() -> None:
    model = zoo.seeded(EncoderDecoder, 9)
    result = run({"a": model}, pairs(decoder_mask=False), reduce="mean", layers=["enc", "dec"])
    assert f'Model "a", layer "enc" (and "dec") {UNMASKED}' in result.warnings
