"""Which axis of which tensor numbers the samples: read where it is plain, else told or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

from cka_widget.engine.data.batches import count, head, take
from cka_widget.engine.errors import CompareError
from cka_widget.engine.outputs.samples import count_for, look_count
from cka_widget.introspection import introspect

N, T = 12, 7


class Keyword(nn.Module):
    """Takes one input by name, and things that are no samples."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(6, 8)

    def forward(self, x: Tensor, image_size: Any = None, edge_index: Any = None) -> Tensor:
        return self.lin(x)


class Graph(Keyword):
    def forward(self, x: Tensor, edge_index: Tensor, **more: Any) -> Tensor:
        return self.lin(x)


class EdgesFirst(Keyword):
    def forward(self, edge_index: Tensor, x: Tensor) -> Tensor:
        return self.lin(x)


class Declared(EdgesFirst):
    main_input_name = "x"


def holds(found: Any, models: Any, data: list[Any], call: Any) -> None:
    assert largest_error(found, reference_compare(models, data, call=call)) <= TOLERANCE


X, Y, EDGES, TWO = (
    torch.randn(N, 6),
    torch.zeros(N).long(),
    torch.zeros(2, 30).long(),
    torch.ones(2),
)


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        (Keyword, {"image_size": TWO, "x": X}),
        (Keyword, {"edge_index": EDGES, "x": X}),
        (Keyword, {"image_size": TWO, "edge_index": EDGES, "x": X}),
        (Keyword, {"image_size": torch.tensor(3), "x": X}),
        (Keyword, {"image_size": 3, "x": X, "labels": Y}),
        (Keyword, (X, TWO)),
        (Keyword, (X, Y, torch.ones(3))),
        (Keyword, ({"image_size": TWO, "x": X}, Y)),
        (Graph, {"edge_index": EDGES, "x": X, "y": Y}),
        (Graph, (X, EDGES, Y)),
        (Declared, {"edge_index": EDGES, "x": X}),
        (Declared, {"edge_index": EDGES, "x": X, "labels": torch.zeros(3, 2)}),
    ],
)
def test_the_main_input_numbers_the_samples(kind: Any, batch: Any) -> None:
    assert count_for(batch, zoo.seeded(kind)) == N


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        (Graph, {"edge_index": EDGES, "x": X}),
        (Graph, {"x": X, "edge_index": EDGES, "w": torch.ones(30), "a": torch.ones(30, 4)}),
        (Graph, {"x": X, "edge_index": EDGES, "y": torch.ones(3)}),
        (Graph, (X, EDGES)),
        (EdgesFirst, {"edge_index": EDGES, "x": X}),
        (EdgesFirst, {"edge_index": EDGES, "size": TWO[:1].long(), "x": X}),
        (lambda: nn.GRU(6, 4), (torch.randn(T, N, 6), Y)),
        (lambda: nn.GRU(6, 4), (torch.randn(T, N, 6), Y, Y)),
        (lambda: nn.Embedding(9, 4), (torch.zeros(T, N).long(), Y)),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_shapes(kind: Any, batch: Any) -> None:
    model = zoo.seeded(kind)
    with pytest.raises(
        TypeError, match=r"cannot tell .*\(.*samples=lambda batch.*forward="
    ) as said:
        run({"net": model}, [batch])
    assert 'model "net"' in str(said.value)
    assert look_count(batch, model, None) is None
    introspect(model, batch)  # does not fail


@pytest.mark.parametrize(
    ("batch", "n"),
    [
        ({"a": TWO, "b": TWO, "x": X}, None),
        ({"a": TWO, "x": X, "y": Y}, N),
        ((X, Y, TWO, torch.ones(3)), N),
        ((X, TWO, torch.ones(3)), None),
        ((X, TWO, TWO), None),
        ((torch.tensor(0.5), X), N),
        (([torch.ones(3, 8, 8)] * 5, [{}] * 5), 5),
        ([torch.ones(3, 8, 8)] * 5, None),
        ((X, X, X), None),
    ],
)
def test_what_a_batch_tells_by_itself(batch: Any, n: int | None) -> None:
    assert count(batch) == n


def test_some_samples_of_lists_and_of_the_second_axis() -> None:
    images = [torch.full((3, 4, 4), float(i)) for i in range(5)]
    targets = [{"boxes": torch.full((2, 4), i)} for i in range(5)]
    some = take((images, targets), 1, 3)
    assert [int(x[0, 0, 0]) for x in some[0]] == [1, 2]
    assert [int(t["boxes"][0, 0]) for t in some[1]] == [1, 2]
    assert len(head(images, 2, 5)) == 2
    steps = torch.randn(T, N, 6)
    assert torch.equal(head(steps, 2, N), steps[:, :2])
    assert torch.equal(head((steps, Y), 2, T)[0], steps[:2])


# samples= -----------------------------------------------------------------------------------------
def test_samples_decides_where_the_batch_does_not() -> None:
    models = {"a": zoo.seeded(EdgesFirst), "b": zoo.seeded(EdgesFirst, seed=1)}
    data = [{"edge_index": EDGES, "x": torch.randn(N, 6)} for _ in range(3)]
    result = run(models, data, samples=lambda batch: len(batch["x"]))
    assert result.samples == 3 * N
    holds(result, models, data, lambda m, b: m(**b))


@pytest.mark.parametrize("by_name", [False, True])
def test_steps_first_batches_with_samples(by_name: bool) -> None:
    models = {"a": zoo.seeded(nn.GRU, 6, 4), "b": zoo.seeded(nn.LSTM, 6, 5)}
    data = [torch.randn(T, N, 6) for _ in range(3)]

    def width(batch: Tensor) -> int:
        return batch.shape[1]

    result = run(models, data, samples=dict.fromkeys("ab", width) if by_name else width)
    assert result.samples == 3 * N
    reference = reference_compare(
        models, data, rows=lambda t: t.transpose(0, 1).double().flatten(1).numpy()
    )
    assert largest_error(result, reference) <= TOLERANCE


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (3, TypeError, "samples=3 must be a function"),
        (lambda batch: None, TypeError, "samples= gave None"),
        (lambda batch: 2.5, TypeError, "samples= gave 2.5"),
        (lambda batch: 0, ValueError, "samples= gave 0"),
        ({"b": len}, ValueError, 'samples= names "b", which is no model'),
    ],
)
def test_samples_that_cannot_work(samples: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        run({"a": zoo.mlp()}, zoo.vectors(), samples=samples)


def test_models_that_count_differently() -> None:
    models, data = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    with pytest.raises(CompareError, match="different numbers of samples: 16 for a, 8 for b"):
        run(models, data, samples={"b": lambda batch: len(batch) // 2})


# forward= -----------------------------------------------------------------------------------------
class Detector(nn.Module):
    """A list of results, one an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: list[Tensor], targets: Any = None) -> list[dict[str, Tensor]]:
        z = torch.stack([self.pooled(image) for image in images])
        return [{"boxes": box} for box in self.head(z)]

    def pooled(self, image: Tensor) -> Tensor:
        return image.mean((1, 2)) @ self.conv.weight.mean((2, 3)).T


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (8, 8, 5, 6), (3, 4, 3, 9)])
@pytest.mark.parametrize("shape", ["pair", "zipped", "images", "mapping"])
def test_lists_of_images_by_forward(sizes: tuple[int, ...], shape: str) -> None:
    """The model's output tells how many, and then the list that was as long."""
    wrap, take = {
        "pair": (lambda x: (x, [{} for _ in x]), lambda b: b[0]),
        "zipped": (lambda x: tuple(zip(*[(i, {}) for i in x], strict=True)), lambda b: b[0]),
        "images": (lambda x: x, lambda b: b),
        "mapping": (lambda x: {"images": x, "size": torch.ones(2)}, lambda b: b["images"]),
    }[shape]
    model = zoo.Counting(zoo.seeded(Detector))
    data = [[torch.randn(3, 8, 8 + i % 2) for i in range(n)] for n in sizes]
    result = run({"a": model}, map(wrap, data), forward=lambda m, b: m(take(b)))
    assert result.samples == sum(n for n in sizes if n >= 4)
    assert sum(model.sizes) <= sum(sizes) + 2 * max(sizes)
    useful = [x for x in data if len(x) >= 4]
    reference = reference_compare({"a": zoo.Counting(zoo.seeded(Detector))}, useful)
    assert largest_error(result, reference) <= TOLERANCE


def test_a_batch_turned_by_forward() -> None:
    """Its first axis are steps, which the output shows."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(x.mean(1))

    models, data = {"a": zoo.seeded(Last), "b": zoo.seeded(Last, seed=1)}, []
    data = [torch.randn(T, n, 6) for n in (N, N, 9, N)]
    call = lambda m, b: m(b.transpose(0, 1))  # noqa: E731
    result = run(models, data, forward=call)
    assert result.samples == 3 * N + 9
    holds(result, models, data, call)


def test_steps_and_samples_that_may_be_either_are_refused() -> None:
    class Each(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.tanh()

    with pytest.raises(CompareError, match=r"may be along either axis; .*samples=lambda"):
        run({"a": Each()}, [torch.randn(T, N, 6)], forward=lambda m, b: m(b.transpose(0, 1)))
    with pytest.raises(TypeError, match=r"tells the number of samples; .*samples="):
        run({"a": Each()}, [{"a": X, "b": TWO}], forward=lambda m, b: None)


def test_an_output_that_is_no_batch_leaves_the_number_alone() -> None:
    models, data = {"a": zoo.mlp(0)}, zoo.vectors()
    for call in (
        lambda m, b: m(b).mean(),
        lambda m, b: [m(b)].clear(),
        lambda m, b: m(b).mean(0),
        lambda m, b: m(b).T.expand(3, -1, -1),
        lambda m, b: [m(b), m(b)],
    ):
        assert run(models, data, forward=call).samples == 48


# steps first --------------------------------------------------------------------------------------
class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.rnn = kind(8, 4, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.embed(x))[0][-1]


@pytest.mark.parametrize("steps", [T, 2 * N, N // 2])
@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.GRU(6, 4),
        lambda: Recurrent(nn.LSTM),
        lambda: nn.TransformerEncoderLayer(6, 2, 8),
    ],
)
def test_steps_taken_for_samples_are_refused(model: Any, steps: int) -> None:
    with pytest.raises(CompareError, match=r"steps of 12 samples .*batch_first=True.*samples="):
        run({"a": zoo.seeded(model)}, [torch.randn(steps, N, 6)])


def test_as_many_steps_as_samples_are_refused_where_the_batch_goes_in_as_it_is() -> None:
    with pytest.raises(CompareError, match="batch_first=False"):
        run({"a": nn.GRU(6, 4)}, [torch.randn(N, N, 6)])


def test_batches_turned_within_the_model_run() -> None:
    models = {"a": zoo.seeded(zoo.TimeFirst), "b": zoo.seeded(zoo.Recurrent)}
    for length in (T, N):
        result = run(models, zoo.tokens(36, length=length, batch=N))
        assert result.samples == 36
        assert np.isfinite(result.matrix("a", "b").to_numpy()).all()
    assert not any(m._forward_pre_hooks for model in models.values() for m in model.modules())


def test_an_output_turned_against_its_batch_is_refused() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[-1].tanh()

    with pytest.raises(CompareError, match="gave an output of 12 entries"):
        run({"a": Last()}, [torch.randn(T, N, 6)])


def test_an_output_with_steps_first_is_no_contradiction() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(x).transpose(0, 1)

    data = [torch.randn(N, T, 6) for _ in range(3)]
    result = run({"a": zoo.seeded(Steps)}, data, layers=["lin"])
    assert result.samples == 3 * N
