"""`cuda_graph=True`: the scores of a run without, whatever the models do.

The CPU stands in for the GPU: operations are noted with their tensors, and done again.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run, same
from oracles import reference_compare
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cka_widget.engine import accelerator, replay
from cka_widget.engine.compare import iter_compare
from cka_widget.engine.kernel import Kernel
from cka_widget.engine.particles import StackedParticles
from cka_widget.engine.recordable import Recordable
from cka_widget.engine.stack import GramStack

CPU = torch.device("cpu")


class Tape(TorchDispatchMode):
    """Notes operations, and does them again on the same memory, as a CUDA graph does."""

    playing = False

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def play(self) -> None:
        Tape.playing = True
        try:
            self._play()
        finally:
            Tape.playing = False

    def _play(self) -> None:
        for func, args, kwargs, made in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


Tapes = list[weakref.ref[Tape]]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    """What was recorded, while it lives."""
    found: Tapes = []

    def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        tape = Tape()
        found.append(weakref.ref(tape))
        with tape:
            work()
        return tape.play

    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    monkeypatch.setattr(replay, "available", lambda device: True)
    monkeypatch.setattr(replay, "recorded", recorded)
    return found


def counted(seed: int = 0) -> Any:
    return zoo.Counting(zoo.mlp(seed))


def stacked() -> StackedParticles:
    return StackedParticles(zoo.mlp(9), *stack_module_state([zoo.mlp(0), zoo.mlp(1)]))


CASES: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, Any]]] = {
    "two": (lambda: {"a": counted(0), "b": zoo.mlp(1)}, {}),
    "blocks": (lambda: {"a": counted(0), "b": zoo.mlp(1)}, {"hsic_batch_size": 8}),
    "ensemble": (lambda: {"a": counted(3), "e": [zoo.mlp(0), zoo.mlp(1)]}, {}),
    "stacked": (lambda: {"a": counted(3), "e": stacked()}, {}),
    "dead": (lambda: {"a": counted(0), "b": zoo.seeded(zoo.Dead)}, {}),
    "mean": (lambda: {"a": counted(0), "b": zoo.seeded(zoo.Shifted, 1e4)}, {}),
    "in place": (lambda: {"a": counted(0), "b": zoo.seeded(zoo.InPlaceChain)}, {}),
    "rbf": (lambda: {"a": counted(0), "b": zoo.mlp(1)}, {"kernel": "rbf"}),
    "TF32": (lambda: {"a": counted(0), "b": zoo.mlp(1)}, {"precision": "high"}),
    "bfloat16": (lambda: {"a": counted(0), "b": zoo.mlp(1)}, {"precision": "medium"}),
    "vmap": (lambda: {"a": counted(3), "e": [zoo.mlp(0), zoo.mlp(1)]}, {"vmap": True}),
    "biased": (lambda: {"a": counted(0), "b": zoo.mlp(1)}, {"unbiased": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_scores_are_those_of_a_run_without(case: str, tapes: Tapes) -> None:
    made, options = CASES[case]
    batches = zoo.vectors(256, batch=32)
    models = made()
    found = run(models, batches, cuda_graph=True, **options)
    assert len(tapes) == 1
    assert models["a"].sizes == [32] * 5, "plain, searched, recorded, run, checked"
    same(found, run(made(), batches, **options))
    assert not any("CUDA graph" in sentence for sentence in found.warnings)


def unrecorded(result: Any) -> str:
    """What the result says of the graph that was not used."""
    (sentence,) = (s for s in result.warnings if "CUDA graph" in s)
    return sentence


def test_nothing_is_kept_after_the_run(tapes: Tapes) -> None:
    steps = iter_compare({"a": zoo.mlp(0)}, zoo.vectors(192, batch=32), cuda_graph=True)
    snapshots = [next(steps) for _ in range(5)]
    assert [tape() is not None for tape in tapes] == [True]
    snapshots += list(steps)
    assert snapshots[-1].result.samples == 192
    assert [tape() for tape in tapes] == [None]


def test_a_smaller_last_batch_and_short_loaders(tapes: Tapes) -> None:
    for samples, recordings in ((150, 1), (32, 0), (8, 0)):
        models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(samples, batch=16)
        tapes.clear()
        found = run(models, batches, cuda_graph=True)
        assert len(tapes) == recordings
        same(found, run(models, batches))


def test_batches_of_changing_shape_run_as_without(tapes: Tapes) -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    batches = [x for _ in range(4) for x in (torch.randn(16, 8), torch.randn(24, 8))]
    found = run(models, batches, cuda_graph=True)
    assert not tapes
    same(found, run(models, batches))


@pytest.mark.parametrize("at", [1, 2, 3, 4, 6])
def test_a_mean_that_jumps_is_centred_and_recorded_anew(at: int, tapes: Tapes) -> None:
    models = {"a": counted(0), "b": zoo.mlp(1)}
    batches = zoo.vectors(384, batch=32)
    batches[at] = batches[at] + 1e5
    found = run(models, batches, layers={"a": "inner.*", "b": None}, cuda_graph=True)
    assert len(tapes) == (1 if at < 2 else 2)
    reference = reference_compare(models, batches)
    assert largest_error(found, reference) < TOLERANCE


def test_a_layer_that_wakes_late(tapes: Tapes) -> None:
    a = nn.Sequential(nn.Linear(8, 12, bias=False), nn.ReLU(), nn.Linear(12, 5))
    models = {"a": a, "b": zoo.mlp(0)}
    batches = [torch.zeros(32, 8)] * 5 + [x * 1e12 for x in zoo.vectors(192, batch=32)]
    found = run(models, batches, cuda_graph=True)
    assert len(tapes) == 2
    assert largest_error(found, reference_compare(models, batches)) < TOLERANCE


def test_every_model_sees_its_own_batch(tapes: Tapes) -> None:
    models = {"a": counted(0), "b": zoo.mlp(1)}
    loaders = {
        "a": zoo.vectors(256, batch=32),
        "b": [x.flip(1) for x in zoo.vectors(256, batch=32)],
    }
    found = run(models, loaders, cuda_graph=True)
    assert len(models["a"].sizes) == 5
    same(found, run(models, loaders))


def test_labels_and_masks_go_along(tapes: Tapes) -> None:
    models = {"a": zoo.seeded(zoo.TokenClassifier), "b": zoo.seeded(zoo.TokenClassifier, seed=1)}
    batches = zoo.token_batches(128, batch=16)
    found = run(models, batches, reduce="mean", cuda_graph=True)
    assert len(tapes) == 1
    same(found, run(models, batches, reduce="mean"))


class Operations(TorchDispatchMode):
    """Counts, while entered, what is handed to the device: views are not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or Tape.playing)
        return func(*args, **(kwargs or {}))


def test_a_replayed_batch_hands_over_the_batch_and_the_products(tapes: Tapes) -> None:
    """Whatever the models do; that of a run without grows with their layers."""

    def counted(depth: int, **options: Any) -> int:
        models = {"a": zoo.mlp(0, depth=depth), "b": zoo.mlp(1, depth=depth)}
        steps = iter_compare(models, zoo.vectors(192, batch=32), precision="medium", **options)
        for _ in range(4):
            next(steps)
        with Operations() as found:
            next(steps)
        steps.close()
        return found.count

    short, long = counted(2, cuda_graph=True), counted(6, cuda_graph=True)
    assert short == long < counted(2)
    assert counted(6) > counted(2) + 2 * 2 * 4


class Chance(nn.Module):
    """Flips a coin in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(0)
        self.lin = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) * self.random.choice([1.0, 2.0, 3.0, 4.0])


class Remembers(nn.Module):
    """Keeps its last output as a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 6)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        now = self.lin(x)
        out = now + (0.0 if self.last is None else self.last)
        self.last = now
        return out


@pytest.mark.parametrize(
    ("made", "reason", "recordings"),
    [
        (
            zoo.DataDependent,
            "an operation (aten._local_scalar_dense.default) depends on the data",
            0,
        ),
        (Chance, "the models do not do the same with every batch", 1),
        (Remembers, "the models do not do the same with every batch", 1),
    ],
)
def test_what_a_graph_cannot_do_runs_as_without(
    made: type[nn.Module], reason: str, recordings: int, tapes: Tapes
) -> None:
    batches = zoo.vectors(256, batch=32)
    found = run({"a": zoo.seeded(made), "b": zoo.mlp(1)}, batches, cuda_graph=True)
    assert len(tapes) == recordings
    assert reason in unrecorded(found)
    assert found.samples == 256
    if made is zoo.DataDependent:
        same(found, run({"a": zoo.seeded(made), "b": zoo.mlp(1)}, batches))


def test_what_forward_does_on_the_host_is_noticed(tapes: Tapes) -> None:
    """A batch's texts, for example: the graph would have those of the batch it recorded."""
    factors = iter([1.0, 2.0, 3.0, 3.0, 5.0, 6.0, 7.0, 8.0])

    def forward(model: nn.Module, batch: Tensor) -> Any:
        return model(batch * next(factors))

    found = run({"a": zoo.mlp(0)}, zoo.vectors(224, batch=32), forward=forward, cuda_graph=True)
    assert "not do the same" in unrecorded(found)


def test_batches_with_something_new_on_the_host_run_as_without(tapes: Tapes) -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    batches = [(x, {"names": [f"{k} {i}" for i in range(len(x))]}) for k, x in data()]
    found = run(models, batches, cuda_graph=True)
    assert not tapes
    same(found, run(models, batches))


def data() -> Any:
    return enumerate(zoo.vectors(192, batch=32))


@pytest.mark.parametrize("error", [RuntimeError("no more\nlines"), torch.OutOfMemoryError("much")])
def test_a_recording_that_fails_costs_nothing(
    error: Exception, tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        work()
        raise error

    monkeypatch.setattr(replay, "recorded", fails)
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(192, batch=32)
    found = run(models, batches, cuda_graph=True)
    assert f"recording failed, {str(error).splitlines()[0]}." in unrecorded(found)
    same(found, run(models, batches))


def test_without_a_gpu_the_run_says_so() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(192, batch=32)
    found = run(models, batches, device="cpu", cuda_graph=True)
    assert unrecorded(found) == (
        "No CUDA graph was used, and the models ran as without one: "
        "it needs a CUDA device, and the models ran on cpu."
    )
    same(found, run(models, batches, device="cpu"))


X = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda: X @ X.mT, None),
        (lambda: X[torch.tensor([0, 1])], None),
        (lambda: X.masked_fill(X > 2, 0.0), None),
        (lambda: torch.where(X > 2, X, 1.0), None),
        (lambda: X.clone().index_add_(0, torch.tensor([0]), X[:1]), None),
        (lambda: X.sum().item(), "the host must know"),
        (lambda: X.nonzero(), "the host must know"),
        (lambda: X[X > 2], "the host must know"),
        (lambda: X.clone().index_put_((X > 2,), torch.tensor(1.0)), "the host must know"),
        (lambda: torch.equal(X, X), "the host must know"),
        (lambda: X.to("meta"), "memory of meta"),
        (lambda: X.to_sparse() * 2, "sparse tensors"),
    ],
)
def test_what_can_be_recorded(operation: Callable[[], Any], reason: str | None) -> None:
    with Recordable(CPU) as found:
        operation()
    assert (found.reason or "").endswith(reason or "")
    assert (found.reason is None) == (reason is None)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
@pytest.mark.parametrize("block", [None, 16])
def test_grams_never_leave_the_device(
    kernel: str, centred: bool, precision: str, block: int | None
) -> None:
    """Torch's "meta" device stands for another than the host's: its numbers cannot be read."""
    device = torch.device("meta")
    stack = GramStack(Kernel(kernel, True, 0.4), block, device, precision=precision, capacity=3)
    for _ in range(3):
        stack.add_row()
    for row in stack.rows:
        row.seen, row.centre_features, row.sigma = True, centred, 1.0
    stack.begin(40)
    with Recordable(device) as found:
        stack.put(0, torch.randn(40, 4096, device=device))
        stack.put_all([1, 2], torch.randn(2, 40, 64, device=device))
        stack.copy(2, 0)
    assert found.reason is None
