"""A sample of the faults; `make faults` has all of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from faults.plan import PLAN, fault, prepared
from faults.scene import BATCHES, Scene, Violation

SAMPLE = 70


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    with prepared():
        yield


@pytest.mark.parametrize("kind", PLAN)
def test_nothing_is_left_of_a_fault(kind: str) -> None:
    times = max(2, round(SAMPLE * PLAN[kind][1] / sum(number for _, number in PLAN.values())))
    found = {number: said for number in range(times) if (said := fault(kind, number, seed=1))}
    assert not found, "python -m faults --seed 1 --only KIND:NUMBER makes one of them"


# the check can fail ------------------------------------------------------------------------------
def leave_a_hook(scene: Scene) -> None:
    scene.roots()[0].register_forward_hook(lambda *_: None)


def leave_it_in_evaluation(scene: Scene) -> None:
    next(scene.roots()[0].children()).training ^= True


def leave_a_buffer(scene: Scene) -> None:
    next(scene.roots()[0].parameters()).data[0] += 1


def leave_a_setting(_: Scene) -> None:
    torch.set_grad_enabled(False)


@pytest.mark.parametrize(
    "leave", [leave_a_hook, leave_it_in_evaluation, leave_a_buffer, leave_a_setting]
)
def test_what_is_left_is_seen(leave: Any) -> None:
    scene = Scene(random.Random(0))
    scene.check_state()
    try:
        leave(scene)
        with pytest.raises(Violation):
            scene.check_state()
    finally:
        torch.set_grad_enabled(True)


def test_a_thread_that_is_left_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, gate = Scene(random.Random(0)), threading.Event()
    monkeypatch.setattr("faults.scene.PATIENCE", 0.1)
    thread = threading.Thread(target=gate.wait)
    thread.start()
    try:
        with pytest.raises(Violation, match="threads"):
            scene.check_state()
    finally:
        gate.set()
        thread.join()
    scene.check_state()


def test_a_wrong_partial_result_is_seen() -> None:
    scene = Scene(random.Random(0))
    scene.check(scene.partial(2), least=2)
    other = Scene(random.Random(0))
    other.roots()[0].register_forward_pre_hook(lambda _, args: (args[0].square(),))
    with pytest.raises(Violation, match="not that of 2 batches"):
        scene.check_result(other.run(2))
    with pytest.raises(Violation, match="count"):
        scene.check(None, least=BATCHES)
