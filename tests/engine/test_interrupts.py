"""Ctrl-C at any moment, and whatever else ends a run: nothing half done, nothing lost."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run
from torch import nn

from cka_widget.engine.compare import compare, iter_compare
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams import memory
from cka_widget.engine.interrupts import Shield
from cka_widget.engine.restoring.evaluating import Held
from cka_widget.engine.restoring.hooks import Hooks


def shielded(*steps: Any) -> list[Any]:
    """Take steps within a shield, each called with it; the steps that were begun."""
    begun: list[Any] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        _take(steps, begun)
    assert caught.value.__context__ is None, "one interrupt is enough"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return begun


def _take(steps: tuple[Any, ...], begun: list[Any]) -> None:
    with Shield() as shield:
        for step in steps:
            begun.append(step)
            step(shield)


def press(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def work(_: Shield) -> None: ...


def opening(shield: Shield) -> None:
    with shield.opened():
        pass


def press_and_clean_up(shield: Shield) -> None:
    cleaned = False
    try:
        with shield.opened():
            press()
    finally:
        press()  # the second one
        cleaned = True
        assert cleaned


def test_an_interrupt_waits_for_the_next_opening() -> None:
    assert shielded(work, press, work, opening, work) == [work, press, work, opening]


def test_an_interrupt_of_the_last_steps_comes_at_the_end() -> None:
    assert shielded(press, work) == [press, work]


def test_a_second_interrupt_finds_the_shield_closed() -> None:
    assert shielded(work, press_and_clean_up, work) == [work, press_and_clean_up]


def test_who_keeps_pressing_comes_through_where_a_cleanup_hangs() -> None:
    assert len(shielded(*[press] * 20)) < 20


def test_a_handler_that_others_set_meanwhile_is_theirs() -> None:
    def other(number: int, frame: Any) -> None: ...

    found = signal.getsignal(signal.SIGINT)
    try:
        with Shield():
            signal.signal(signal.SIGINT, other)
        assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, found)


@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize("what", ["register_forward_hook", "remove"])
def test_ctrl_c_while_hooks_come_and_go(
    what: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner: Any = Hooks if what == "remove" else nn.Module
    original, calls = getattr(owner, what), [0]

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            press()
        return original(self, *args, **options)

    model = zoo.seeded(zoo.FrozenChild).train()
    before = zoo.state_of(model)
    monkeypatch.setattr(owner, what, interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare({"a": model}, zoo.vectors(), progress=False)
    monkeypatch.undo()
    assert calls[0] >= at
    zoo.assert_same_state(before, model)
    compare({"a": model}, zoo.vectors(), progress=False)
    zoo.assert_same_state(before, model)


def test_a_module_that_was_set_to_training_meanwhile_is_evaluated() -> None:
    """A run that was torn apart may have left its mark; batch norm must not move all the same."""
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).train()
    steps = iter_compare({"a": model}, zoo.vectors(64))
    next(steps)
    model.train()
    mean = model[1].running_mean.clone()
    compare({"a": model}, zoo.vectors(), progress=False)
    assert torch.equal(model[1].running_mean, mean)
    steps.close()
    assert model.training


def test_between_the_steps_every_ctrl_c_comes_through() -> None:
    steps = iter_compare({"a": zoo.mlp()}, zoo.vectors(64))
    next(steps)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            press()
    assert next(steps).batches == 2
    steps.close()


def test_a_run_whose_frame_was_torn_leaves_the_models_as_found() -> None:
    """Past its handlers, by what a profiler raises as the generator goes on."""
    model = zoo.seeded(zoo.FrozenChild).train()
    before, steps = zoo.state_of(model), iter_compare({"a": model}, zoo.vectors(64))
    held = next(steps)

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is steps.gi_code:
            press()

    sys.setprofile(profile)
    try:
        with pytest.raises(KeyboardInterrupt):
            steps.close()
    finally:
        sys.setprofile(None)
    zoo.assert_same_state(before, model)
    assert held.result.batches == 1


def test_hooks_whose_removal_was_torn_are_removed_by_the_next() -> None:
    class Torn(dict[int, Any]):
        tears = 1

        def pop(self, *args: Any) -> Any:
            if self.tears:
                self.tears -= 1
                raise SystemExit
            return super().pop(*args)

    model, hooks = zoo.mlp(), Hooks()
    before = zoo.state_of(model)
    for module in model.modules():
        hooks.after(module, print)
    model[1]._forward_hooks = Torn(model[1]._forward_hooks)
    with pytest.raises(SystemExit):
        hooks.remove()
    hooks.remove()
    zoo.assert_same_state(before, model)


def test_a_change_of_a_module_that_was_torn_is_taken_back() -> None:
    held, module, user = Held(), nn.Linear(2, 2), object()

    def change(one: nn.Module) -> None:
        one.training = False
        raise SystemExit

    def found(one: nn.Module) -> Any:
        return lambda: one.train()

    with pytest.raises(SystemExit):
        held.take(module, user, found, change)
    held.leave(object())
    assert not module.training
    held.leave(user)
    held.leave(user)
    assert module.training
    assert module not in held


# what ends a run carries its result --------------------------------------------------------------
class Ends(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.lin, self.error, self.batches = nn.Linear(8, 6), error, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches += len(x) > 3  # a look at a few samples is none
        if self.batches > 3:
            raise self.error
        return self.lin(x)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError])
def test_the_partial_result_comes_with_every_exception(kind: type[BaseException]) -> None:
    model, batches = zoo.seeded(Ends, kind()), zoo.vectors(96)
    expected = run({"a": zoo.seeded(Ends, kind())}, batches[:3]).matrix("a", "a")
    with pytest.raises((kind, CompareError)) as caught:
        compare({"a": model}, batches, progress=False)
    found: Any = caught.value
    assert found.result.batches == 3
    np.testing.assert_array_equal(found.result.matrix("a", "a"), expected)
    assert not model.lin._forward_hooks


def test_a_batch_in_pieces_counts_as_a_whole_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GRAMS", 1 << 12)
    batches, seen = zoo.vectors(256, batch=64), [0]

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen[0] += len(x) if len(x) > 3 else 0
        if seen[0] > 2 * 64 + 32:
            raise ValueError("in the midst of the third batch")
        return model(x)

    models = {"a": zoo.mlp(), "b": [zoo.mlp(1), zoo.mlp(2)]}
    with pytest.raises(CompareError) as caught:
        run({"a": models["a"]}, batches, forward=forward, hsic_batch_size=8)
    result = caught.value.result
    assert (result.batches, result.samples, result.blocks) == (2, 128, 16)
    whole = run({"a": models["a"]}, batches[:2], hsic_batch_size=8)
    np.testing.assert_array_equal(result.sums.h, whole.sums.h)


# weights that change in mid-run ------------------------------------------------------------------
def test_a_model_that_is_trained_meanwhile_is_told() -> None:
    model, other = zoo.mlp(0), zoo.mlp(1)
    steps = iter_compare({"trained": model, "other": other}, zoo.vectors(96))
    assert not next(steps).result.warnings
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    model(zoo.vectors()[0]).square().sum().backward()
    optimiser.step()
    for step in steps:
        (sentence,) = [w for w in step.result.warnings if "changed while the run" in w]
        assert '"trained"' in sentence
        assert "deepcopy" in sentence


def test_weights_that_stay_are_not_told() -> None:
    model = zoo.mlp()
    result = run({"a": model, "b": [zoo.mlp(1), zoo.mlp(2)]}, zoo.vectors(96))
    assert not result.warnings
    last = list(iter_compare({"a": model}, zoo.vectors(96)))[-1]
    with torch.no_grad():
        model[0].weight.zero_()  # after the run it is its owner's affair
    assert not last.result.warnings


@pytest.mark.parametrize("first", [0, 1])
def test_runs_that_take_turns_leave_ctrl_c_as_it_was(first: int) -> None:
    """Whichever of two generators ends first."""
    found = signal.getsignal(signal.SIGINT)
    runs = [iter_compare({"m": zoo.mlp()}, zoo.vectors(), device="cpu") for _ in range(2)]
    for one in runs:
        next(one)
    list(runs[first])
    list(runs[1 - first])
    assert signal.getsignal(signal.SIGINT) is found


def test_a_shield_that_was_left_stays_off_when_what_was_torn_is_collected() -> None:
    """Ctrl-C may come before `lifted` hears that its block has ended."""
    found, shield = signal.getsignal(signal.SIGINT), Shield()
    shield.__enter__()
    torn = shield.lifted()
    torn.__enter__()
    shield.__exit__(None, None, None)
    del torn
    gc.collect()
    assert signal.getsignal(signal.SIGINT) is found
