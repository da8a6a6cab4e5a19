"""What is kept of a run that does not come to its end, and what a batch is to the next model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import largest_error, run
from oracles import reference_compare
from torch import Tensor, nn

from cka_widget.engine.compare import compare
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams import forming
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.summing import running_sums


# models that write into their input ---------------------------------------------------------------
class Halved(nn.Module):
    """Changes its input in place; with `late`, from its third call on."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.lin, self.late, self.calls = nn.Linear(8, 6), late, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if not self.late or self.calls > 2:
            x.mul_(0.5).relu_()
        return self.lin(x)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_model_that_writes_into_its_input_does_not_reach_the_next(order: str) -> None:
    made = {
        "a": [zoo.seeded(Halved, seed=seed) for seed in range(3)],
        "b": nn.Sequential(nn.Linear(8, 6), nn.Tanh()),
    }
    models = {name: made[name] for name in order}
    batches = zoo.vectors(64)
    before = [batch.clone() for batch in batches]
    result = run(models, batches)
    reference = reference_compare(models, batches, call=lambda model, x: model(x.clone()))
    assert largest_error(result, reference) < 1e-5
    assert all(map(torch.equal, batches, before)), "the reader's own batches were changed"


def test_a_model_that_begins_to_write_fails_and_is_named() -> None:
    models = {"a": zoo.seeded(Halved, late=True), "b": zoo.mlp()}
    with pytest.raises(CompareError, match=r'model "a" changed its input in place') as caught:
        run(models, zoo.vectors(64))
    assert caught.value.result.batches == 2


# Ctrl-C ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", [2, 3, 5])
def test_ctrl_c_between_two_batches_leaves_nothing_behind(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the progress bar; the last update is that of the finished run."""
    from tqdm.auto import tqdm

    updates = [0]

    def interrupted(self: Any, n: int = 1) -> None:
        updates[0] += 1
        if updates[0] == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(tqdm, "update", interrupted)
    model = zoo.mlp().train()
    before = zoo.state_of(model)
    with pytest.raises(KeyboardInterrupt) as caught:
        compare({"a": model}, zoo.vectors(64))
    zoo.assert_same_state(before, model)
    assert caught.value.result.batches == min(at, 4)


@pytest.mark.parametrize("seed", range(8))
def test_a_real_signal_at_any_moment(seed: int) -> None:
    """Batches, samples and sums of what is kept agree."""
    calls, at = [0], 3 + 5 * seed

    def fuse(*_: object) -> None:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGINT)

    model = zoo.mlp()
    handles = [m.register_forward_pre_hook(fuse) for m in model.modules()]
    with pytest.raises(KeyboardInterrupt) as caught:
        compare({"a": model}, zoo.vectors(160), progress=False)
    for handle in handles:
        handle.remove()
    assert not any(m._forward_hooks for m in model.modules())
    kept = getattr(caught.value, "result", None)
    if kept is not None:
        assert kept.samples == 16 * kept.batches == 16 * kept.blocks


def test_ctrl_c_held_back_by_the_sums_counts_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    add, calls = running_sums.Sums.add, [0]

    def interrupted(self: running_sums.Sums, *args: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        add(self, *args)

    monkeypatch.setattr(running_sums.Sums, "add", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        compare({"a": zoo.mlp()}, zoo.vectors(160), progress=False)
    assert (caught.value.result.batches, caught.value.result.samples) == (3, 48)


# other failures ----------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", ["text", None, {}])
def test_a_batch_that_cannot_be_used_loses_nothing(bad: Any) -> None:
    batches = zoo.vectors(48)
    with pytest.raises(CompareError, match="batch 4 failed: TypeError") as caught:
        run({"a": zoo.mlp()}, [*batches, bad])
    expected = run({"a": zoo.mlp()}, batches).matrix("a", "a")
    np.testing.assert_array_equal(caught.value.result.matrix("a", "a"), expected)


def test_what_cannot_work_at_all_is_told_as_it_is() -> None:
    with pytest.raises(TypeError):
        run({"a": zoo.mlp()}, ["text"])


def _out_of_memory(above: int, n: int) -> None:
    if n > above:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("where", ["_reserve", "_of"])
def test_memory_that_ends_outside_the_model_halves_the_batch(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(128, batch=64)
    expected = run(models, batches, hsic_batch_size=16)
    real = getattr(GramStack, where)

    def short(self: GramStack, *args: Any) -> Any:
        _out_of_memory(32, self._n)
        return real(self, *args)

    monkeypatch.setattr(GramStack, where, short)
    found = run(models, batches, hsic_batch_size=16)
    np.testing.assert_allclose(found.matrix("a", "b"), expected.matrix("a", "b"), atol=1e-6)
    assert (found.samples, found.batches, found.blocks) == (128, 2, 8)
    assert any("cut into at most 32 samples" in sentence for sentence in found.warnings)


def test_a_second_pass_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first products of a batch whose mean jumped are worthless; they do not stay."""

    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.calls = nn.Linear(8, 6), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 4:
                raise RuntimeError("no second pass")
            return self.lin(x)

    def jumping() -> Iterator[Tensor]:
        for number, batch in enumerate(zoo.vectors(48)):
            yield batch + 1e6 * (number == 2)

    models = {"a": zoo.seeded(Failing), "b": zoo.mlp()}
    monkeypatch.setattr(forming, "FORM_AGAIN", 1.0)
    with pytest.raises(CompareError, match="no second pass") as caught:
        run(models, list(jumping()))
    models["a"].calls = 0
    expected = run(models, zoo.vectors(32))
    np.testing.assert_array_equal(caught.value.result.matrix("a", "b"), expected.matrix("a", "b"))
    assert (caught.value.result.samples, caught.value.result.blocks) == (32, 2)
