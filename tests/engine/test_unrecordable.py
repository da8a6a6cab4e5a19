"""What a CUDA graph cannot do again runs as without one, with the same scores, and says why."""

from __future__ import annotations

import random
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
from torch.func import stack_module_state

from cka_widget.engine import cuda_graph
from cka_widget.engine.compare import iter_compare
from cka_widget.engine.particles import StackedParticles
from cka_widget.engine.recordable import Recordable

CPU = torch.device("cpu")
ALIKE = "the models do not do the same with every batch"
KEEPS = "a model keeps tensors from one batch to the next"


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    return stand_in(monkeypatch)


class Fails(nn.Module):
    """Does what a number of its own says, from one batch to the next."""

    def __init__(self, skips: tuple[int, ...] = (), chance: bool = False) -> None:
        super().__init__()
        self.lin, self.head = nn.Linear(8, 6), nn.Linear(6, 6)
        self.calls, self.skips = 0, skips
        self.random = random.Random(0) if chance else None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.lin(x)
        if self.calls not in self.skips:
            self.head(x)
        return torch.tanh(x) if self.random is None else x * self.random.choice([1.0, 2.0, 3.0])


class Remembers(nn.Module):
    """Keeps its last output as a tensor of its own, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.last: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        now = self.lin(x)
        out = now + (self.last[-1] if self.last else 0.0)
        self.last = [now]
        return out


class Drifts(nn.Module):
    """Writes into a buffer."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.lin(x)
        self.mean.lerp_(y.mean(0), 1e-4)
        return y - self.mean


MODELS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "reads": (
        lambda: zoo.seeded(zoo.DataDependent),
        "an operation (aten._local_scalar_dense.default) depends on the data",
        0,
    ),
    "remembers": (lambda: zoo.seeded(Remembers), KEEPS, 0),
    "new buffer": (lambda: zoo.seeded(zoo.Steps), KEEPS, 0),
    "written buffer": (lambda: zoo.seeded(Drifts), KEEPS, 0),
    "stacked": (
        lambda: StackedParticles(
            zoo.Steps(), *stack_module_state([zoo.seeded(zoo.Steps, seed=k) for k in range(2)])
        ),
        KEEPS,
        0,
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(case: str, tapes: Tapes) -> None:
    made, reason, recordings = MODELS[case]
    batches = zoo.vectors(256, batch=32)
    found = run({"a": made(), "b": zoo.mlp(1)}, batches, cuda_graph=True)
    assert len(tapes) == recordings
    assert reason in unrecorded(found)
    same(found, run({"a": made(), "b": zoo.mlp(1)}, batches))


def test_particles_that_keep_tensors_as_one_call(tapes: Tapes) -> None:
    found = run({"e": MODELS["stacked"][0]()}, zoo.vectors(256), vmap=True, cuda_graph=True)
    assert KEEPS in unrecorded(found)
    same(found, run({"e": MODELS["stacked"][0]()}, zoo.vectors(256), vmap=True))


def test_chance(tapes: Tapes) -> None:
    found = run({"a": zoo.seeded(Fails, chance=True)}, zoo.vectors(256), cuda_graph=True)
    assert len(tapes) == 1
    assert ALIKE in unrecorded(found)
    assert found.samples == 256


def test_a_layer_that_does_not_run_in_the_batch_of_the_check(tapes: Tapes) -> None:
    """Recorded in the third batch, which took two calls, and checked in the fourth."""
    found = run({"a": zoo.seeded(Fails, (5,))}, zoo.vectors(128), cuda_graph=True)
    expected = run({"a": zoo.seeded(Fails, (4,))}, zoo.vectors(128))
    assert ALIKE in unrecorded(found)
    assert np.isnan(expected.matrix("a", "a").loc["head", "lin"])
    same(found, expected)


def test_what_forward_does_on_the_host_is_noticed(tapes: Tapes) -> None:
    factors = iter([1.0, 2.0, 3.0, 3.0, 5.0, 6.0, 7.0, 8.0])

    def forward(model: nn.Module, batch: Tensor) -> Any:
        return model(batch * next(factors))

    found = run({"a": zoo.mlp(0)}, zoo.vectors(112), forward=forward, cuda_graph=True)
    assert ALIKE in unrecorded(found)


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
    """Large batches are cut, here into 18, 16 and 16."""
    monkeypatch.setattr("cka_widget.engine.session.samples_at_once", lambda *a: 18)
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(1000, batch=50)
    found = run(models, batches, cuda_graph=True)
    assert "hardly two batches" in unrecorded(found)
    assert len(tapes) <= 8
    same(found, run(models, batches))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_first_batch_that_decides_nothing(kernel: str, tapes: Tapes) -> None:
    models, batches = {"a": zoo.mlp(0)}, [torch.randn(2, 8), *zoo.vectors(192)]
    found = run(models, batches, kernel=kernel, cuda_graph=True)
    assert len(tapes) == 1
    same(found, run(models, batches, kernel=kernel))


def test_a_layer_without_a_bandwidth_yet(tapes: Tapes) -> None:
    models = {"a": zoo.seeded(zoo.Dead)}
    found = run(models, zoo.vectors(192), kernel="rbf", cuda_graph=True)
    assert "too few batches were alike" in unrecorded(found)
    same(found, run(models, zoo.vectors(192), kernel="rbf"))


class LateRead(nn.Module):
    """Reads a number of the last batch, which is smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) * (1.0 if len(x) == 16 else float(x.mean()))


def test_what_a_graph_did_serve_is_told(tapes: Tapes) -> None:
    model = zoo.seeded(LateRead)
    found = run({"a": model}, zoo.vectors(136), cuda_graph=True)
    assert "served 4 batches, and the others ran as without one: an operation" in unrecorded(found)
    same(found, run({"a": model}, zoo.vectors(136)))


@pytest.mark.parametrize("where", ["around a batch", "around all", "within"])
def test_autocast(where: str, tapes: Tapes) -> None:
    """What it has cast within a recording is not there afterwards."""

    def cast(on: bool) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=on)

    def forward(model: nn.Module, batch: Tensor) -> Any:
        with cast(where == "within" or torch.is_autocast_enabled("cpu")):
            return model(batch)

    def result(**options: Any) -> Any:
        with cast(where == "around all"):
            steps = iter_compare(models, zoo.vectors(192), forward=forward, **options)
            while True:
                with cast(where != "within"):
                    last = next(steps)
                if last.done:
                    return last.result

    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    found = result(cuda_graph=True)
    assert len(tapes) == 1
    same(found, result())


class Conditional(nn.Module):
    """An operation that runs others."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lin(x)
        return torch.ops.higher_order.wrap(torch.tanh, y)


def test_operations_of_higher_order(tapes: Tapes) -> None:
    import torch._higher_order_ops.wrap  # noqa: F401

    model = zoo.seeded(Conditional)
    found = run({"a": model}, zoo.vectors(192), cuda_graph=True)
    same(found, run({"a": model}, zoo.vectors(192)))


def test_a_search_that_fails_is_not_the_models_fault(
    tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, *args: Any) -> str | None:
        raise KeyError("search")

    monkeypatch.setattr(Recordable, "_why", broken)
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    found = run(models, zoo.vectors(192), cuda_graph=True)
    assert "cannot be looked at" in unrecorded(found)
    same(found, run(models, zoo.vectors(192)))


def test_a_model_that_holds_what_holds_itself(tapes: Tapes) -> None:
    model: Any = zoo.mlp(0)
    model.ring = []
    model.ring.append(model.ring)
    found = run({"a": model}, zoo.vectors(192), cuda_graph=True)
    assert "cannot be looked at" in unrecorded(found)
    same(found, run({"a": model}, zoo.vectors(192)))


@pytest.mark.parametrize("error", [RuntimeError("no\nmore"), torch.OutOfMemoryError("much")])
def test_a_recording_that_fails_costs_nothing(
    error: Exception, tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        work()
        raise error

    monkeypatch.setattr(cuda_graph, "recorded", fails)
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    found = run(models, zoo.vectors(192), cuda_graph=True)
    assert f"recording failed, {str(error).splitlines()[0]}." in unrecorded(found)
    same(found, run(models, zoo.vectors(192)))


def test_memory_for_the_models_or_a_recording(tapes: Tapes) -> None:
    """Batches stay whole."""

    class Tight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            if any(tape() is not None for tape in tapes) and not tapes[-1]().open:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.relu(self.lin(x))

    found = run({"a": zoo.seeded(Tight)}, zoo.vectors(192), cuda_graph=True)
    assert "no memory for a recording beside the models" in unrecorded(found)
    assert (found.blocks, len(found.warnings)) == (12, 1)


def test_without_a_gpu_the_run_says_so() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    found = run(models, zoo.vectors(192), device="cpu", cuda_graph=True)
    assert unrecorded(found) == (
        "No CUDA graph was used, and the models ran as without one: "
        "it needs a CUDA device, and the models ran on cpu."
    )
    same(found, run(models, zoo.vectors(192), device="cpu"))


X = torch.arange(6.0).view(2, 3)


@torch.library.custom_op("cka_widget_tests::index_of", mutates_args=())
def index_of(x: Tensor, which: list[int]) -> Tensor:
    return x[:, which].clone()


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda: X @ X.mT, None),
        (lambda: X[torch.tensor([0, 1])], None),
        (lambda: index_of(X, [1, 0]), None),
        (lambda: X.masked_fill(X > 2, 0.0), None),
        (lambda: torch.where(X > 2, X, 1.0), None),
        (lambda: X.clone().index_add_(0, torch.tensor([0]), X[:1]), None),
        (lambda: X.sum().item(), "the host must know"),
        (lambda: X.nonzero(), "the host must know"),
        (lambda: X[X > 2], "the host must know"),
        (lambda: X.clone().index_put_((X > 2,), torch.tensor(1.0)), "the host must know"),
        (lambda: torch.equal(X, X), "the host must know"),
        (lambda: X.to("meta"), "memory of meta"),
        (lambda: X.sum().to("meta"), "memory of meta"),
        (lambda: X.to_sparse() * 2, "sparse tensors"),
    ],
)
def test_operations(operation: Callable[[], Any], reason: str | None) -> None:
    with Recordable(CPU) as found:
        operation()
    assert (found.reason or "").endswith(reason or "")
    assert (found.reason is None) == (reason is None)
