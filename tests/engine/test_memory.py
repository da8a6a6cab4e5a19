"""Work that does not fit the device's memory is cut, or moved there piece by piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from checks import run
from torch import nn

from cka_widget.engine import placement, session
from cka_widget.engine.budget import bytes_needed, rows_that_fit
from cka_widget.engine.compare import compare
from cka_widget.engine.errors import CKAWarning, CompareError


class Small(nn.Module):
    """Runs out of memory, after its first layer, on more than `limit` samples."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 4)
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.second(x)


@pytest.mark.parametrize("first", [64, 16])
def test_batches_are_halved_until_they_fit(first: int) -> None:
    """The unbiased estimate over the same blocks stays the same; the result says what was done."""
    batches = [torch.randn(n, 8) for n in (first, 64, 64)]
    model, other = zoo.seeded(Small, 1000), zoo.mlp(1)
    whole = run({"a": model, "b": other}, batches, hsic_batch_size=16)
    model.limit = 20
    cut = run({"a": model, "b": other}, batches, hsic_batch_size=16)
    np.testing.assert_allclose(cut.matrix("a", "b"), whole.matrix("a", "b"), atol=1e-6)
    assert cut.layers("a") == whole.layers("a")
    assert (cut.samples, cut.batches) == (whole.samples, whole.batches)
    assert any("cut into at most 16 samples" in sentence for sentence in cut.warnings)
    assert not model.first._forward_hooks


def test_it_is_said_aloud() -> None:
    with pytest.warns(CKAWarning, match="did not fit the memory of cpu"):
        compare({"a": zoo.seeded(Small, 8)}, zoo.vectors(48), progress=False)


def test_what_never_fits_fails_with_the_layer_named() -> None:
    with pytest.raises(CompareError, match=r'model "a" failed.*OutOfMemoryError'):
        run({"a": zoo.seeded(Small, 3)}, zoo.vectors(48))


def test_particles_too_large_together_go_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cpu:0` is another name of the CPU: every move is made, and none costs a device."""
    moves: list[tuple[int, str]] = []

    class Moving(nn.Linear):
        def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
            moves.append((id(self), "moved"))
            return super()._apply(fn, recurse)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moves.append((id(self), "ran"))
            return super().forward(x)

    particles = [zoo.seeded(Moving, 8, 4, seed=seed) for seed in range(3)]
    expected = run({"e": particles}, zoo.vectors(32, batch=16)).matrix("e", "e")
    moves.clear()
    monkeypatch.setattr(placement, "_free_bytes", lambda device: 0)
    found = run({"e": particles}, zoo.vectors(32, batch=16), device="cpu:0").matrix("e", "e")
    np.testing.assert_allclose(found, expected, atol=1e-7)
    visit = [what for _, what in moves[:9]]
    assert visit == ["moved", "ran", "moved"] * 3
    assert [owner for owner, _ in moves[:9:3]] == [id(p) for p in particles]


def test_rows_that_cannot_fit_are_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = zoo.Counting(zoo.mlp())
    monkeypatch.setattr(session, "memory_of", lambda device: 1e5)
    with pytest.raises(CompareError, match=r"rows .* at batches of 64 .* choose at most \d+ rows"):
        run({"a": model}, zoo.vectors(64, batch=64))
    assert model.sizes == []
    run({"a": model}, zoo.vectors(64, batch=64), hsic_batch_size=8)


@pytest.mark.parametrize(("n", "block"), [(64, None), (4096, 64), (66, 16)])
def test_the_largest_number_of_rows(n: int, block: int | None) -> None:
    memory = 24e9
    rows = rows_that_fit(memory, n, block)
    assert bytes_needed(rows, n, block) <= memory < bytes_needed(rows + 1, n, block)


def test_a_thousand_layers_a_hundred_particles_and_large_batches() -> None:
    """The buffers are what was promised, whatever the features' size."""
    layers = [nn.Linear(8, 8) for _ in range(1000)]
    deep = nn.Sequential(*(m for layer in layers for m in (layer, nn.LayerNorm(8))))
    found = run({"a": deep}, zoo.vectors(4096, batch=4096), layers="*0", hsic_batch_size=64)
    assert found.blocks == 64
    many = run({"e": [nn.Linear(8, 4) for _ in range(100)]}, zoo.vectors(64, batch=32))
    assert many.particles("e", "e", row="(output)", col="(output)").shape == (100, 100)
