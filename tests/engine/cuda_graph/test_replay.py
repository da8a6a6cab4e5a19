"""`cuda_graph=True`: the scores of a run without, whatever the models do.

The CPU stands in for the GPU: operations are noted with their tensors, and done again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run, same
from oracles import reference_compare
from tapes import Tape, Tapes, stand_in
from torch import nn
from torch.func import stack_module_state
from torch.utils._python_dispatch import TorchDispatchMode

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.cuda_graph.recordable import Recordable
from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.forming import Needs
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.models.particles import StackedParticles


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    return stand_in(monkeypatch)


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


@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
@pytest.mark.parametrize("vmap", [False, True])
def test_one_recording_serves_residual_networks(precision: str, vmap: bool, tapes: Tapes) -> None:
    """Whose rho comes near the bound of TF32; and particles as one call are centred together."""
    counting = zoo.Counting(zoo.resnet18(9).eval())
    models = {"e": [zoo.resnet18(k).eval() for k in range(2)], "a": counting}
    run(models, zoo.images(256, batch=32), cuda_graph=True, precision=precision, vmap=vmap)
    assert len(tapes) == 1
    assert counting.sizes == [32] * 5


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


@pytest.mark.parametrize("max_rho", [1000.0, 30.0])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
@pytest.mark.parametrize("block", [None, 16])
@pytest.mark.parametrize("look", [False, True])
def test_grams_never_leave_the_device(
    max_rho: float, centred: bool, precision: str, block: int | None, look: bool
) -> None:
    """Torch's "meta" device stands for another than the host's: its numbers cannot be read."""
    device = torch.device("meta")
    stack = GramStack(Needs(max_rho=max_rho), block, device, precision=precision, capacity=3)
    for _ in range(3):
        stack.add_row()
    for row in stack.formed.rows:
        row.look, row.centre_features = look, centred
    stack.begin(40)
    with Recordable(device) as found:
        stack.put(0, torch.randn(40, 4096, device=device))
        stack.put_all([1, 2], torch.randn(2, 40, 64, device=device))
        stack.copy(2, 0)
    assert found.reason is None
