"""Which batches a CUDA graph serves: those alike in all that the models see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run, same
from tapes import Tapes, stand_in, unrecorded
from torch import Tensor, nn


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    return stand_in(monkeypatch)


@dataclass(eq=False)
class Texts:
    x: Tensor
    names: list[str]


class Own(MutableMapping[str, Any]):
    """A mapping whose copies share what they hold."""

    def __init__(self, store: dict[str, Any]) -> None:
        self.store = store

    def __getitem__(self, key: str) -> Any:
        return self.store[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.store[key] = value

    def __delitem__(self, key: str) -> None:
        del self.store[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.store)

    def __len__(self) -> int:
        return len(self.store)


class Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input: Tensor) -> Any:
        return self.inner(input)


def names(k: int, x: Tensor) -> list[str]:
    return [f"{k} {i}" for i in range(len(x))]


BATCHES: dict[str, tuple[Callable[[int, Tensor], Any], Any, str | None]] = {
    "texts as labels": (lambda k, x: (x, names(k, x)), None, None),
    "ragged labels": (lambda k, x: (x, torch.zeros(k + 1)), None, None),
    "labels by name": (lambda k, x: {"input": x, "labels": torch.zeros(k + 1)}, None, None),
    "texts": (lambda k, x: (x, names(k, x)), lambda m, b: m(b[0]), "hardly two batches"),
    "an object": (lambda k, x: Texts(x, names(k, x)), lambda m, b: m(b.x), "hardly two batches"),
    "same texts": (lambda k, x: Texts(x, ["a"] * 16), lambda m, b: m(b.x), None),
    "own mapping": (lambda k, x: Own({"x": x}), lambda m, b: m(b["x"]), None),
    "arrays": (
        lambda k, x: {"x": x, "by": np.array([1.0, max(1, k - 4)])},
        lambda m, b: m(b["x"] * float(b["by"][1])),
        "hardly two batches",
    ),
    "locks": (
        lambda k, x: {"x": x, "by": threading.Lock()},
        lambda m, b: m(b["x"]),
        "hardly two batches",
    ),
    "sparse": (lambda k, x: x.to_sparse(), lambda m, b: m(b.to_dense()), "nested or sparse"),
    "compressed": (lambda k, x: x.to_sparse_csr(), lambda m, b: m(b.to_dense()), "an operation"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("case", BATCHES)
def test_batches(case: str, tapes: Tapes) -> None:
    made, forward, reason = BATCHES[case]
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    if case == "labels by name":
        models = {name: Named(model) for name, model in models.items()}
    batches = [made(k, x) for k, x in enumerate(zoo.vectors(192))]
    found = run(models, batches, forward=forward, cuda_graph=True)
    if reason is None:
        assert not any("CUDA graph" in sentence for sentence in found.warnings)
        assert len(tapes) == 1
    else:
        assert reason in unrecorded(found)
    same(found, run(models, [made(k, x) for k, x in enumerate(zoo.vectors(192))], forward=forward))


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + torch.relu(self.b(y))


def test_names_in_another_order_are_another_batch(tapes: Tapes) -> None:
    pairs = zip(zoo.vectors(256), zoo.vectors(256, seed=1), strict=True)
    batches = [
        {"x": x, "y": 3 * y} if k < 5 else {"y": 3 * y, "x": x} for k, (x, y) in enumerate(pairs)
    ]
    model = zoo.seeded(Sum)
    same(run({"a": model}, batches, cuda_graph=True), run({"a": model}, batches))
    assert len(tapes) == 2


def test_what_a_loader_fills_anew_is_seen(tapes: Tapes) -> None:
    def loader() -> Any:
        held = [1.0]
        for k, x in enumerate(zoo.vectors(256)):
            held[0] = max(1.0, k - 4.0)
            yield {"x": x, "by": held}

    def forward(model: nn.Module, batch: Any) -> Any:
        return model(batch["x"] * batch["by"][0])

    found = run({"a": zoo.mlp(0)}, loader(), forward=forward, cuda_graph=True)
    same(found, run({"a": zoo.mlp(0)}, loader(), forward=forward))


def test_pieces_of_several_sizes(tapes: Tapes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large batches are cut, here into 17, 17 and 16."""
    monkeypatch.setattr("cka_widget.engine.pieces.samples_at_once", lambda *a: 18)
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(1000, batch=50)
    found = run(models, batches, cuda_graph=True)
    assert "hardly two batches" in unrecorded(found)
    assert len(tapes) <= 8
    same(found, run(models, batches))
