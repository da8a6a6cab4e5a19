"""Particles that share a module run on a copy of it: the models themselves are left alone."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import zoo
from checks import run, same
from torch.func import stack_module_state

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.models.particles import StackedParticles


def test_buffers_go_on_with_what_a_pass_gave_them() -> None:
    batches = zoo.vectors(64, batch=16)
    mapped = run({"e": zoo.ensemble(zoo.Steps)}, batches, vmap=True)
    same(mapped, run({"e": zoo.ensemble(zoo.Steps)}, batches))
    stacked = StackedParticles(zoo.Steps(), *stack_module_state(zoo.ensemble(zoo.Steps)))
    same(run({"e": stacked}, batches), mapped)


@pytest.mark.parametrize("vmap", [False, True])
def test_a_tied_base_may_be_given_both_its_names(vmap: bool) -> None:
    free, batches = zoo.ensemble(zoo.Tied, False), zoo.vectors()
    stacked = StackedParticles(zoo.Tied(True), *stack_module_state(free))
    same(run({"e": stacked}, batches, vmap=vmap), run({"e": free}, batches))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("build", [zoo.Keeps, zoo.weight_normed, zoo.Steps])
def test_models_may_run_while_and_after_they_are_compared(build: Any) -> None:
    models, batches = zoo.ensemble(build), zoo.vectors(64, batch=16)
    before, fused = zoo.state_of(models[0]), torch.backends.mha.get_fastpath_enabled()
    expected = run({"e": zoo.ensemble(build)}, batches)
    runs = [iter_compare({"e": models}, batches, vmap=True) for _ in range(2)]
    for step in runs:
        next(step)
    with torch.no_grad():
        copy.deepcopy(models[0])(batches[0])
    ends = [list(step)[-1].result for step in runs]
    assert torch.backends.mha.get_fastpath_enabled() is fused
    zoo.assert_same_state(before, models[0])
    for end in ends:
        same(end, expected)
    models[0](batches[0])


def test_runs_in_several_threads_do_not_meet() -> None:
    models, batches = zoo.ensemble(zoo.Tied, False), zoo.vectors(640, batch=16)
    expected = run({"e": models}, batches)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run, {"e": models}, batches, vmap=True) for _ in range(3)]
        with torch.no_grad():
            while not all(r.done() for r in runs):
                models[0](batches[0])
    for found in runs:
        same(found.result(), expected)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_model_that_cannot_be_copied() -> None:
    models = zoo.ensemble(zoo.Tied, False, count=2)
    for model in models:
        model.lock = threading.Lock()
    with pytest.raises(ValueError, match='model "e"'):
        run({"e": models}, zoo.vectors(), vmap=True)
    one = [models[0], models[0]]
    with pytest.raises(ValueError, match=r'"e" cannot be copied \(TypeError'):
        run({"e": one}, zoo.vectors(), vmap=True)
