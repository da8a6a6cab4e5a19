"""What a CUDA graph cannot do again runs as without one, with the same scores, and says why."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run, same
from tapes import Tapes, stand_in, unrecorded
from torch import Tensor, nn
from torch.func import stack_module_state

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.cuda_graph import recording
from cka_widget.engine.cuda_graph.recordable import Recordable
from cka_widget.engine.models.particles import StackedParticles

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
        return torch.tanh(x) if self.random is None else x * self.random.uniform(1.0, 3.0)


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


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "reads": (
        lambda: zoo.seeded(zoo.DataDependent),
        "an operation (aten._local_scalar_dense.default) depends on the data",
    ),
    "remembers": (lambda: zoo.seeded(Remembers), KEEPS),
    "new buffer": (lambda: zoo.seeded(zoo.Steps), KEEPS),
    "written buffer": (lambda: zoo.seeded(Drifts), KEEPS),
    "stacked": (
        lambda: StackedParticles(
            zoo.Steps(), *stack_module_state([zoo.seeded(zoo.Steps, seed=k) for k in range(2)])
        ),
        KEEPS,
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(case: str, tapes: Tapes) -> None:
    made, reason = MODELS[case]
    batches = zoo.vectors(256, batch=32)
    found = run({"a": made(), "b": zoo.mlp(1)}, batches, cuda_graph=True)
    assert not tapes
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
        return model(batch * (next(factors) if len(batch) > 3 else 1.0))

    found = run({"a": zoo.mlp(0)}, zoo.vectors(112), forward=forward, cuda_graph=True)
    assert ALIKE in unrecorded(found)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_first_batch_that_decides_nothing(kernel: str, tapes: Tapes) -> None:
    models, batches = {"a": zoo.mlp(0)}, [torch.randn(2, 8), *zoo.vectors(192)]
    found = run(models, batches, kernel=kernel, cuda_graph=True)
    assert len(tapes) == 1
    same(found, run(models, batches, kernel=kernel))


def test_a_layer_without_a_bandwidth_yet(tapes: Tapes) -> None:
    models = {"a": zoo.seeded(zoo.Dead)}
    found = run(models, zoo.vectors(192), kernel="rbf", cuda_graph=True)
    assert not any("CUDA graph" in sentence for sentence in found.warnings)  # it served
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
    assert len(tapes) == 1
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

    monkeypatch.setattr(recording, "recorded", fails)
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
