"""What batches hold: their samples, whatever the nest, and nests that keep their types."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import zoo
from checks import largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

from cka_widget.engine.data.batches import count, head, map_tensors, take, to_device

TEXTS = [f"text {i}" for i in range(32)]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Graph:
    name: str
    x: Tensor
    edges: tuple[Tensor, ...] = ()


class Pair(NamedTuple):
    ids: list[int]
    text: list[str]


class Attributes(dict):  # type: ignore[type-arg]
    """The recipe: what is an item is an attribute."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.__dict__ = self


class Encoding(UserDict):  # type: ignore[type-arg]
    """As tokenizers give it: attributes for items, and something beside them."""

    words: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


class Strict(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: Any, value: Any) -> None:
        raise RuntimeError("read only")


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.ones(5, 2), 5),
        ((TEXTS, torch.ones(5, 2)), 5),
        (TEXTS, 32),
        ({"text": TEXTS, "id": list(range(32))}, 32),
        ((TEXTS, TEXTS), 32),
        ([TEXTS, TEXTS], 32),
        ((list(range(32)), TEXTS), 32),
        (Pair(list(range(32)), TEXTS), 32),
        (({"text": TEXTS}, list(range(32))), 32),
        ([{"tokens": [1, 2, 3]}, {"tokens": [1]}], 2),  # a sample each
        ([[1, 2, 3], [1]], 2),
        ([["a", "b"], ["c"]], 2),
        (Graph("g", torch.ones(7, 3)), 7),
        ({"graph": Graph("g", torch.ones(7, 3))}, 7),
        ("text", None),
        ([], None),
        ({"size": 3}, None),
    ],
)
def test_the_number_of_samples(batch: Any, samples: int | None) -> None:
    assert count(batch) == samples


def test_some_samples_of_texts() -> None:
    batch = {"text": TEXTS, "pairs": (TEXTS, list(range(32))), "name": "a", "sizes": [1, 2]}
    assert take(batch, 3, 5) == {
        "text": TEXTS[3:5],
        "pairs": (TEXTS[3:5], [3, 4]),
        "name": "a",
        "sizes": [1, 2],
    }
    mixed = take((torch.arange(32), TEXTS), 3, 5)
    assert (mixed[0].tolist(), mixed[1]) == ([3, 4], TEXTS[3:5])


def test_a_dataclass_is_mapped_and_stays_frozen() -> None:
    graph = Graph("g", torch.arange(4.0), (torch.arange(4),))
    part = head(graph, 2)
    assert isinstance(part, Graph)
    assert (part.name, part.x.tolist(), part.edges[0].tolist()) == ("g", [0, 1], [0, 1])
    assert len(graph.x) == 4
    assert map_tensors(Graph, torch.neg) is Graph  # the class itself holds nothing


@pytest.mark.parametrize("kind", [dict, OrderedDict, Attributes, Encoding])
def test_mappings_keep_their_type(kind: Any) -> None:
    batch = kind({"x": torch.ones(4, 2), "deep": kind({"y": torch.ones(4)})})
    found = to_device(head(batch, 3), CPU)
    assert type(found) is type(found["deep"]) is kind
    assert len(found["x"]) == len(found["deep"]["y"]) == 3
    assert len(batch["x"]) == len(batch["deep"]["y"]) == 4
    if kind in (Attributes, Encoding):
        assert len(found.x) == len(found.deep.y) == 3


def test_what_stands_beside_the_items_is_kept() -> None:
    batch = Encoding({"x": torch.ones(4, 2)})
    batch.words = ("a", "b")
    assert head(batch, 3).words == ("a", "b")


@pytest.mark.parametrize("kind", [MappingProxyType, Strict])
def test_mappings_that_cannot_be_filled_become_plain(kind: Any) -> None:
    assert len(head(kind({"x": torch.ones(4)}), 3)["x"]) == 3


def lengths(model: nn.Module, texts: list[str]) -> Any:
    codes = [[hash(text) >> shift & 255 for shift in range(8)] for text in texts]
    return model(torch.tensor(codes) / 255)


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("shape", ["list", "mapping", "columns"])
def test_texts_by_forward(monkeypatch: pytest.MonkeyPatch, shape: str, pieces: bool) -> None:
    """As many samples as texts, also where a batch is taken in pieces."""
    texts = [[f"text {i} of {k}" for i in range(32)] for k in range(4)]
    made = {
        "list": (lambda t: t, lambda b: b),
        "mapping": (lambda t: {"text": t, "id": [1] * len(t)}, lambda b: b["text"]),
        "columns": (lambda t: (t, t), lambda b: b[0]),
    }
    make, take = made[shape]
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, [make(t) for t in texts]

    def forward(model: nn.Module, batch: Any) -> Any:
        return lengths(model, take(batch))

    if pieces:
        monkeypatch.setattr("cka_widget.engine.pieces.samples_at_once", lambda *_: 16)
    result = run(models, batches, forward=forward)
    assert (result.samples, result.blocks) == (128, 8 if pieces else 4)
    reference = reference_compare(models, batches, call=forward)
    assert largest_error(result, reference, block=16 if pieces else None) < 1e-4


def test_graphs_by_forward() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    graphs = [Graph("g", batch) for batch in batches]
    found = run(models, graphs, forward=lambda model, graph: model(graph.x))
    expected = run(models, batches)
    np.testing.assert_array_equal(found.matrix("a", "b"), expected.matrix("a", "b"))


def test_attributes_reach_forward() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    found = run(models, [Encoding({"x": b}) for b in batches], forward=lambda model, b: model(b.x))
    np.testing.assert_array_equal(found.matrix("a", "b"), run(models, batches).matrix("a", "b"))
