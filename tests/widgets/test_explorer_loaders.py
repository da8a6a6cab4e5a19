"""The explorer and its loader: where it starts, that Cancel ends one that hangs, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from explorers import Slow, until
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from worker_data import HANGS, Rows, Streamed, Wrapped, children, load

import cka_widget as cw
from cka_widget.widgets.comparison.first_look import peek


def explore(loader, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).train()
    return cw.CKAExplorer({"a": net}, loader, device="cpu", **options)


def net_of(explorer):
    return explorer._study.models["a"]


@pytest.fixture(autouse=True)
def _no_worker_is_left():
    assert not children()
    yield
    until(lambda: not children())


# workers that are forked --------------------------------------------------------------------------
@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("wrap", [lambda loader: loader, Wrapped])
def test_forked_workers_never_hang_while_the_main_thread_draws(wrap, times):
    """Forked in the run's thread they inherit a lock that the main thread holds, for ever."""
    for number in range(times):
        explorer = explore(wrap(load(num_workers=2)))
        explorer.run()
        end = time.monotonic() + 30
        while explorer.state == "running":
            torch.randn(200, 200)
            assert time.monotonic() < end, f"run {number} hangs"
        assert explorer.state == "done", explorer.failure
        assert explorer.result.samples == 64
        assert not children()
        explorer.close()


def test_persistent_workers_serve_the_next_run():
    loader = load(num_workers=2, persistent_workers=True)
    explorer, seen = explore(loader), []
    for _ in range(2):
        explorer.run()
        assert explorer.wait(30) == "done"
        seen.append(children())
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]
    explorer.run()
    explorer.cancel()
    explorer.wait(30)
    assert children() == seen[0]
    loader._iterator._shutdown_workers()


# where it starts ----------------------------------------------------------------------------------
class Noting(Slow):
    """Notes the thread and the explorer's state at every start."""

    def __init__(self, error=None):
        super().__init__(6)
        self.batches = [torch.randn(32, 8) for _ in range(6)]
        self.starts, self.error, self.explorer = [], None, None

    def __iter__(self):
        self.starts.append((threading.current_thread(), self.explorer and self.explorer.state))
        if self.error is not None:
            raise self.error
        yield from super().__iter__()


def test_the_loader_starts_in_the_callers_thread_once_the_state_says_running():
    loader = Noting()
    explorer = loader.explorer = explore(loader)
    here = threading.current_thread()
    for go in (explorer.run, lambda: explorer.add_data(loader), explorer._views.header.run.click):
        loader.starts.clear()
        go()
        assert explorer.wait(30) == "done"
        assert loader.starts == [(here, "running")]


def test_a_loader_that_cannot_start_fails_the_run():
    loader = Noting()
    explorer = explore(loader)
    loader.error = OSError("no such disk")
    explorer.run()
    assert explorer.wait(30) == "failed"
    assert "failed at batch 1: OSError: no such disk" in explorer.failure.sentence
    loader.error = None
    explorer.run()
    assert explorer.wait(30) == "done"


def test_ctrl_c_while_the_loader_starts_cancels_the_run():
    loader = Noting()
    explorer = explore(loader)
    loader.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        explorer.run()
    assert explorer.state == "cancelled"
    assert explorer.wait(1) == "cancelled"
    loader.error = None
    explorer.run()
    assert explorer.wait(30) == "done"


def test_what_is_no_loader_is_told_on_the_page():
    explorer = explore(load(), more_data=lambda: 3)
    explorer.run(block=True)
    explorer._views.header.more.click()
    assert "cannot be iterated" in explorer._views.line.notes.value
    assert explorer.state == "done"


# cancelled, closed, failed ------------------------------------------------------------------------
class Hanging:
    """Three batches, and then none for ever."""

    def __iter__(self):
        yield from [torch.randn(8, 8) for _ in range(3)]
        HANGS.wait()


@pytest.mark.parametrize(
    "loader",
    [
        Hanging,
        lambda: load("hang", num_workers=0),
        lambda: load("hang", num_workers=2),
        lambda: load("hang", num_workers=2, persistent_workers=True),
        lambda: Wrapped(load("hang", num_workers=2)),
    ],
    ids=["own code", "data set", "workers", "persistent", "generator"],
)
def test_a_loader_that_hangs_can_be_cancelled(loader):
    check_left(loader, "cancel")


@pytest.mark.parametrize("how", ["finish", "close"])
def test_a_loader_that_hangs_can_be_left(how):
    check_left(Hanging, how)


def check_left(loader, how):
    HANGS.clear()
    loader = loader()
    explorer = explore(loader)
    net = net_of(explorer)
    explorer.run()
    until(lambda: explorer.result is not None)
    time.sleep(0.5)  # the batches after the first come in a burst, of which not each is shown
    start = time.monotonic()
    getattr(explorer, how)()
    assert explorer.wait(10) == ("done" if how == "finish" else "cancelled")
    assert time.monotonic() - start < 5
    if how != "close":  # a closed explorer shows nothing more
        assert explorer.result.samples in (24, 40)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    until(lambda: not children())
    HANGS.set()
    if how == "cancel" and isinstance(loader, DataLoader):
        loader.dataset.armed = False
        explorer.run()
        assert explorer.wait(30) == "done"
        assert explorer.result.samples == 64
        if loader.persistent_workers:
            loader._iterator._shutdown_workers()


def test_a_run_that_is_cancelled_before_its_first_batch_has_no_result():
    gate = threading.Event()
    explorer = explore(load())
    explorer._study.loader = load(collate_fn=lambda samples: gate.wait())
    explorer.run()
    explorer.cancel()
    assert explorer.wait(10) == "cancelled"
    assert explorer.failure is None
    assert explorer.result is None
    gate.set()


@pytest.mark.parametrize("what", ["kill", "exit1", "raise"])
def test_a_worker_that_fails_is_told_and_the_rest_end(what):
    explorer = explore(load(what, num_workers=2))
    explorer.run()
    start = time.monotonic()
    assert explorer.wait(30) == "failed"
    assert time.monotonic() - start < 10
    assert explorer.result.samples >= 8
    assert not children()
    said = {"kill": "SIGKILL", "exit1": "exit code 1", "raise": "ValueError: bad sample"}
    assert said[what] in explorer.failure.sentence
    net = net_of(explorer)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_worker_that_dies_interrupts_nothing_but_the_run():
    """torch would raise in the main thread, whatever that is doing."""
    explorer = explore(load(num_workers=2, collate_fn=slowly))
    explorer.run()
    until(lambda: explorer.result is not None)
    os.kill(children()[0], signal.SIGKILL)
    end = time.monotonic() + 10
    while explorer.state == "running" and time.monotonic() < end:
        time.sleep(0.01)
    assert "SIGKILL" in explorer.failure.sentence


def slowly(samples):
    time.sleep(0.1)
    return torch.stack(samples)


def test_an_interpreter_ends_although_a_loader_hangs():
    script = """if True:
    import torch, threading
    from torch import nn
    import cka_widget as cw
    from worker_data import load
    loaders = load("hang", num_workers=2), load("hang")
    explorers = [cw.CKAExplorer({"a": nn.Linear(8, 4)}, one, device="cpu") for one in loaders]
    for one in explorers:
        one.run()
    while not all(one.result is not None for one in explorers):
        threading.Event().wait(0.01)
    """
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], cwd=tests, check=True, timeout=60)


# the first look -----------------------------------------------------------------------------------
class Keyed(Rows):
    """Asked by name."""

    def __getitem__(self, key):
        return self.x[int(key.removeprefix("row "))]


class Wholes(Rows):
    """Asked for many at once."""

    def __getitem__(self, keys):
        assert len(keys) == 8
        return self.x[keys]


def keyed(**options):
    names = [f"row {i}" for i in range(64)]
    return DataLoader(Keyed(), 8, sampler=names, **options)


def wholes(**options):
    sampler = BatchSampler(SequentialSampler(range(64)), 8, False)
    return DataLoader(Wholes(), None, sampler=sampler, **options)


@pytest.mark.parametrize("make", [load, keyed, wholes])
def test_a_look_at_a_data_set_with_an_index_starts_no_worker(make, monkeypatch):
    first, _ = peek(make())

    def refuse(loader):
        raise AssertionError("the look starts workers")

    monkeypatch.setattr(DataLoader, "__iter__", refuse)
    loader = make(num_workers=2)
    found, same = peek(loader)
    assert same is loader
    torch.testing.assert_close(found, first)
    torch.testing.assert_close(found, Rows().x[: len(found)])


def test_a_look_leaves_the_loaders_own_generator_alone():
    generator = torch.Generator().manual_seed(3)
    sampler = BatchSampler(torch.utils.data.RandomSampler(range(64), generator=generator), 8, False)
    loader, before = DataLoader(Wholes(), None, sampler=sampler), generator.get_state()
    peek(loader)
    torch.testing.assert_close(generator.get_state(), before)


def test_a_data_set_that_fails_in_this_process_may_still_run_in_workers():
    class Picky(Rows):
        def __getitem__(self, i):
            assert torch.utils.data.get_worker_info() is not None
            return super().__getitem__(i)

    explorer = explore(DataLoader(Picky(), 8, num_workers=1))
    explorer.run()
    assert explorer.wait(30) == "done"


@pytest.mark.parametrize("persistent", [False, True])
def test_a_look_at_an_iterable_data_set_leaves_no_worker_behind(persistent):
    data = Streamed(Rows().x, divided=True)
    loader = DataLoader(data, 8, num_workers=2, persistent_workers=persistent)
    first, same = peek(loader)
    assert first.shape == (8, 8)
    assert same is loader
    assert not children()
    explorer = explore(loader)
    explorer.run()
    assert explorer.wait(30) == "done"
    assert explorer.result.samples == 64
    if persistent:
        loader._iterator._shutdown_workers()


class Once(torch.utils.data.IterableDataset):
    def __init__(self):
        self.rows = iter(Rows().x)

    def __iter__(self):
        return self.rows


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Once(), 8),
        lambda: iter(load()),
        lambda: iter(load(num_workers=1)),
        lambda: (batch for batch in load()),
    ],
)
def test_what_can_be_read_once_loses_no_sample_to_the_look(loader):
    explorer = explore(loader())
    explorer.run()
    assert explorer.wait(30) == "done"
    assert explorer.result.samples == 64
