"""Models are left as they were found, whatever happens; what was computed is kept."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import weakref
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import nn

from cka_widget.engine.compare import compare, iter_compare
from cka_widget.engine.devices import pick_device
from cka_widget.engine.errors import CompareError
from cka_widget.engine.summing import running_sums


def busy_model() -> nn.Module:
    """In training mode, with a frozen child, gradients, and a hook of its owner's."""
    model = zoo.seeded(zoo.FrozenChild)
    model(torch.randn(5, 8)).sum().backward()
    model.lin.register_forward_hook(lambda module, args, output: None)
    return model


@pytest.fixture
def model() -> nn.Module:
    return busy_model()


def test_after_a_run(model: nn.Module) -> None:
    before = zoo.state_of(model)
    run({"a": model, "b": zoo.mlp()}, zoo.vectors())
    zoo.assert_same_state(before, model)
    assert model.training
    assert not model.norm.training


def test_overridden_train_and_eval_are_not_called() -> None:
    class Stubborn(zoo.FrozenChild):
        def train(self, mode: bool = True) -> nn.Module:
            raise AssertionError("train() may do anything, so nobody calls it")

    model = zoo.mlp()
    wrapped = nn.Sequential(model)
    stubborn = zoo.seeded(zoo.FrozenChild)
    stubborn.__class__ = Stubborn
    run({"a": stubborn, "b": wrapped}, zoo.vectors())
    assert stubborn.training


def test_in_eval_mode_while_it_runs(model: nn.Module) -> None:
    flags = []
    model.head.register_forward_hook(lambda *_: flags.append(model.drop.training))
    batches = zoo.vectors()
    first = run({"a": model}, batches).matrix("a", "a")
    np.testing.assert_array_equal(run({"a": model}, batches).matrix("a", "a"), first)
    assert not any(flags)


def test_no_graph_is_built(model: nn.Module) -> None:
    grads = []
    model.head.register_forward_hook(lambda m, a, out: grads.append(out.requires_grad))
    run({"a": model}, zoo.vectors())
    assert not any(grads)


def test_stopping_the_iteration(model: nn.Module) -> None:
    before = zoo.state_of(model)
    snapshots = iter_compare({"a": model}, zoo.vectors(64, batch=8))
    snapshot = next(snapshots)
    assert snapshot.batches == 1
    assert torch.is_grad_enabled(), "the caller's grad mode is its own between batches"
    assert not model.training
    snapshots.close()
    zoo.assert_same_state(before, model)


def test_a_generator_that_never_started(model: nn.Module) -> None:
    before = zoo.state_of(model)
    snapshots = iter_compare({"a": model}, zoo.vectors())
    zoo.assert_same_state(before, model)
    del snapshots
    gc.collect()
    zoo.assert_same_state(before, model)


def test_a_generator_that_is_dropped(model: nn.Module) -> None:
    before = zoo.state_of(model)
    snapshots = iter_compare({"a": model}, zoo.vectors(64, batch=8))
    next(snapshots)
    del snapshots
    gc.collect()
    zoo.assert_same_state(before, model)


def test_a_model_that_fails_in_mid_run(model: nn.Module) -> None:
    fails = zoo.seeded(zoo.Raises, at=3)
    before = zoo.state_of(model), zoo.state_of(fails)
    with pytest.raises(CompareError) as caught:
        run({"good": model, "bad": fails}, zoo.vectors(64, batch=16))
    error = caught.value
    assert str(error) == (
        'model "bad", layer "fuse" failed at batch 3: RuntimeError: the fuse blew'
    )
    assert (error.model, error.layer) == ("bad", "fuse")
    assert isinstance(error.__cause__, RuntimeError)
    zoo.assert_same_state(before[0], model)
    zoo.assert_same_state(before[1], fails)
    assert error.result.batches == 2
    expected = run({"good": model, "bad": zoo.seeded(zoo.Raises, at=-1)}, zoo.vectors(32))
    np.testing.assert_allclose(
        error.result.matrix("good", "bad"), expected.matrix("good", "bad"), atol=1e-7
    )


def test_a_model_that_fails_at_once(model: nn.Module) -> None:
    with pytest.raises(CompareError) as caught:
        run({"good": model, "bad": zoo.seeded(zoo.Raises, at=1)}, zoo.vectors())
    assert caught.value.result is None


def test_the_particle_that_fails_is_named() -> None:
    ensemble = [zoo.seeded(zoo.Raises, at=at) for at in (-1, 2)]
    with pytest.raises(CompareError) as caught:
        run({"all": ensemble}, zoo.vectors(64, batch=16))
    assert str(caught.value) == (
        'model "all", particle 1, layer "fuse" failed at batch 2: RuntimeError: the fuse blew'
    )


def test_wrong_input_names_the_layer() -> None:
    with pytest.raises(CompareError, match='model "a", layer "0" failed at batch 1: RuntimeError'):
        run({"a": zoo.mlp()}, [torch.randn(8, 3)])


def test_a_loader_that_fails_in_mid_run(model: nn.Module) -> None:
    def loader() -> object:
        yield from zoo.vectors(32)
        raise OSError("the disk is gone\nwith a second line")

    before = zoo.state_of(model)
    with pytest.raises(CompareError, match="the loader failed at batch 3: OSError: the disk") as c:
        run({"a": model}, loader())
    zoo.assert_same_state(before, model)
    assert c.value.result.batches == 2
    assert c.value.model is None


@pytest.mark.parametrize("where", ["model", "loader"])
def test_ctrl_c(model: nn.Module, where: str) -> None:
    fails = zoo.seeded(zoo.Raises, at=2 if where == "model" else -1, error=KeyboardInterrupt)

    def loader() -> object:
        yield from zoo.vectors(48)
        if where == "loader":
            raise KeyboardInterrupt

    before = zoo.state_of(model), zoo.state_of(fails)
    with pytest.raises(KeyboardInterrupt) as caught:
        run({"a": model, "b": fails}, loader())
    zoo.assert_same_state(before[0], model)
    zoo.assert_same_state(before[1], fails)
    assert caught.value.result.batches == (1 if where == "model" else 3)


def test_arguments_that_fail_leave_no_trace(model: nn.Module) -> None:
    before = zoo.state_of(model)
    for options in ({"layers": ["nope"]}, {"kernel": "cubic"}, {"reduce": "middle"}):
        with pytest.raises(ValueError):
            run({"a": model}, zoo.vectors(), **options)
    with pytest.raises(TypeError):
        run({"a": model, "b": 3}, zoo.vectors())
    zoo.assert_same_state(before, model)


def test_a_reduction_that_fails(model: nn.Module) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no")

    before = zoo.state_of(model)
    with pytest.raises(CompareError, match="ZeroDivisionError"):
        run({"a": model}, zoo.vectors(), reduce=broken)
    zoo.assert_same_state(before, model)


class Killed(BaseException):
    """Comes from nowhere, as a signal does."""


@pytest.mark.parametrize("seed", range(50))
def test_killed_at_any_moment(seed: int) -> None:
    """At any call of any module of two models, or between batches."""
    rng = random.Random(seed)
    models = {"a": busy_model(), "b": zoo.mlp(1)}
    batches = zoo.vectors(64, batch=8)
    modules = [m for model in models.values() for m in model.modules()]
    at, counter = rng.randrange(1, 8 * len(modules)), [0]

    def fuse(*_: object) -> None:
        counter[0] += 1
        if counter[0] == at:
            raise Killed

    handles = [m.register_forward_pre_hook(fuse) for m in modules]
    before = {name: zoo.state_of(model) for name, model in models.items()}
    kept, done = None, False
    snapshots = iter_compare(models, batches, hsic_batch_size=4)
    try:
        for snapshot in snapshots:
            kept, done = snapshot.result, snapshot.done
            if rng.random() < 0.05:
                break
    except Killed:
        assert not done
    finally:
        snapshots.close()
    for name, model in models.items():
        zoo.assert_same_state(before[name], model)
    for handle in handles:
        handle.remove()
    if kept is not None:
        expected = run(models, batches[: kept.batches], hsic_batch_size=4).matrix("a", "b")
        np.testing.assert_array_equal(kept.matrix("a", "b"), expected)


@pytest.mark.parametrize("at", [1, 3, 4])
def test_ctrl_c_amid_the_sums_waits_for_their_end(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a batch in the sums would be a wrong score: the interrupt comes after it."""
    add, calls = running_sums.Sums.add, [0]

    def interrupted(self: running_sums.Sums, *args: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGINT)
        add(self, *args)

    models, batches = {"a": zoo.mlp(), "b": zoo.mlp(1)}, zoo.vectors(96, batch=16)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(running_sums.Sums, "add", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            run(models, batches)
    assert signal.getsignal(signal.SIGINT) is handler
    expected = run(models, batches[:at])
    kept = caught.value.result  # type: ignore[attr-defined]
    np.testing.assert_array_equal(kept.matrix("a", "b"), expected.matrix("a", "b"))
    assert kept.samples == 16 * at


def test_snapshots_stay_what_they_were() -> None:
    """A result taken early does not change with later batches."""
    snapshots = iter_compare({"a": zoo.mlp()}, zoo.vectors(48))
    first = next(snapshots).result
    copy = first.matrix("a", "a").copy()
    for _ in snapshots:
        pass
    np.testing.assert_array_equal(first.matrix("a", "a"), copy)
    assert first.batches == 1


def test_snapshots_tell_progress() -> None:
    found = list(iter_compare({"a": zoo.mlp()}, zoo.vectors(50, batch=16)))
    assert [s.batches for s in found] == [1, 2, 3, 4, 4]
    assert [s.done for s in found] == [False] * 4 + [True]
    assert [s.samples for s in found] == [16, 32, 48, 48, 48]
    assert {s.total_batches for s in found} == {4}
    assert {s.total_samples for s in found} == {50}
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(found))
    assert {s.device for s in found} == {"cpu"} or torch.cuda.is_available()


def test_each_particle_runs_once_a_batch() -> None:
    """On all but the last, which is too small to add anything: some models cannot run on it.

    Of each model the first one also runs on 2 samples.
    """
    particles = [zoo.Counting(zoo.mlp(seed)) for seed in range(4)]
    other = zoo.Counting(zoo.mlp(9, depth=1))
    run({"ensemble": particles, "other": other}, zoo.vectors(50, batch=16))
    for model in (*particles, other):
        assert model.sizes == [16, 16, 16]
        assert model.probed == ([] if model in particles[1:] else [2])


def test_no_activation_outlives_its_layer() -> None:
    """When a layer runs, nothing that the previous layers made is alive, but for its input."""
    alive: list[int] = []
    made: list[weakref.ref[torch.Tensor]] = []

    class Link(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            alive.append(sum(ref() is not None for ref in made))
            out = super().forward(x)
            made.append(weakref.ref(out))
            return out

    chain = nn.Sequential(*(zoo.seeded(Link, 8, 8, seed=i) for i in range(12)))
    run({"a": chain, "b": zoo.mlp()}, zoo.vectors(48))
    assert len(alive) == 12 * (1 + 3), "on 2 samples, and on three batches"
    assert max(alive) == 1, "only its own input"


def test_nothing_is_kept_after_a_run() -> None:
    model, batches = zoo.mlp(), zoo.vectors()
    watched = [weakref.ref(model), *map(weakref.ref, batches)]
    result = run({"a": model}, batches)
    del model, batches
    gc.collect()
    assert [ref() for ref in watched] == [None] * 4
    assert len(result.layers("a")) == 5


def test_compare_works_in_a_thread_while_others_use_the_model(model: nn.Module) -> None:
    """The hooks look at the run's own forward passes only."""
    import threading

    stop, data = threading.Event(), torch.randn(3, 8)

    def use() -> None:
        while not stop.is_set():
            with torch.no_grad():
                model(data)

    expected = run({"a": model}, zoo.vectors(160)).matrix("a", "a")
    thread = threading.Thread(target=use)
    thread.start()
    try:
        found = run({"a": model}, zoo.vectors(160)).matrix("a", "a")
    finally:
        stop.set()
        thread.join()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_progress_bar_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    compare({"a": zoo.mlp()}, zoo.vectors(), progress=True)
    assert "CKA" in capfd.readouterr().err
    compare({"a": zoo.mlp()}, zoo.vectors(), progress=False)
    assert capfd.readouterr().err == ""


class Normed(nn.Module):
    """In training mode its dropout and batch statistics would change every score."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.norm, self.drop = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.lin(x)))


def test_two_runs_over_one_model_at_a_time() -> None:
    """The first to end leaves the model in evaluation mode: the other is not done with it."""
    model = zoo.seeded(Normed).train()
    alone = run({"a": model}, zoo.vectors()).matrix("a", "a")
    before = zoo.state_of(model)
    longer, shorter = (iter_compare({"a": model}, zoo.vectors()) for _ in range(2))
    next(longer), next(shorter)
    shorter.close()
    assert not model.training
    *_, last = longer
    np.testing.assert_array_equal(last.result.matrix("a", "a"), alone)
    zoo.assert_same_state(before, model)
    assert all(module.training for module in model.modules())


def test_two_runs_on_two_devices_do_not_share_a_model() -> None:
    model = zoo.mlp()
    with closing(iter_compare({"a": model}, zoo.vectors(), device="cpu")) as first:
        next(first)
        with pytest.raises(CompareError, match=r'another run has model "a" on another device'):
            next(iter_compare({"a": model}, zoo.vectors(), device="cpu:0"))
    run({"a": model}, zoo.vectors(), device="cpu:0")


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors name theirs: two names for one device are not equal."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert pick_device("cuda") == pick_device(None) == torch.device("cuda", 1)
    assert pick_device("cuda:0") == torch.device("cuda", 0)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("make", [zoo.HooksItself, zoo.Steers, zoo.BuildsItself])
def test_what_a_first_pass_registers_stays_and_nothing_else_does(make: Any) -> None:
    """Hooks, buffers, weights and parametrizations are those of a model that ran by itself."""

    def kept(model: nn.Module) -> Any:
        hooks = {key: len(found) for key, found in zoo.hooks_of(model).items()}
        return hooks, [name for name, _ in model.named_buffers()], list(model.state_dict())

    alone, model = make(), make()
    alone(zoo.vectors()[0])
    run({"m": model}, zoo.vectors())
    assert kept(model) == kept(alone)
    model(zoo.vectors()[0])


def test_outputs_are_those_after_the_hooks_that_a_first_pass_registers() -> None:
    model, alone = zoo.seeded(zoo.Steers), zoo.seeded(zoo.Steers)
    alone(zoo.vectors()[0])
    reference = reference_compare({"m": alone}, zoo.vectors())
    result = run({"m": model}, zoo.vectors())
    assert largest_error(result, reference) <= TOLERANCE
    assert not any("random" in sentence for sentence in result.warnings)
