"""Loaders with worker processes: as without them, and told when one fails; none is left."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run
from torch.utils.data import DataLoader
from worker_data import Rows, Wrapped, children, load

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.data.streams import Stream
from cka_widget.engine.errors import CompareError

METHODS = [
    "fork",
    pytest.param("spawn", marks=pytest.mark.slow),
    pytest.param("forkserver", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    assert not children()
    yield
    end = time.monotonic() + 5
    while children() and time.monotonic() < end:
        time.sleep(0.01)
    assert not children()


def failed(loader: Any) -> CompareError:
    """How a comparison fails; within ten seconds, the model as found."""
    net = zoo.mlp().train()
    start = time.monotonic()
    with pytest.raises(CompareError) as caught:
        run({"a": net}, loader)
    assert time.monotonic() - start < 10
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    return caught.value


@pytest.mark.parametrize("method", METHODS)
def test_workers_give_what_one_process_gives(method: str) -> None:
    loader = load(num_workers=2, multiprocessing_context=method, persistent_workers=True)
    expected = run({"a": zoo.mlp()}, load()).matrix("a", "a")
    workers = []
    for _ in range(2):
        found = run({"a": zoo.mlp()}, loader).matrix("a", "a")
        np.testing.assert_allclose(found, expected, atol=1e-7)
        workers.append(children())
    assert workers[0] == workers[1]
    assert len(workers[0]) == 2
    loader._iterator._shutdown_workers()


def test_the_order_is_drawn_once() -> None:
    """The random numbers that a script draws after a comparison are those after any other pass."""
    states = []
    for go in (list, lambda loader: run({"a": zoo.mlp()}, loader)):
        for workers in (0, 2):
            torch.manual_seed(5)
            go(load(shuffle=True, num_workers=workers))
            states.append(torch.rand(()).item())
    assert states[:2] == states[2:]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("exit3", "ended by itself (exit code 3)"),
        ("exit0", "ended by itself (exit code 0)"),
        ("kill", "was killed by SIGKILL, as the system does where memory runs out"),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_that_dies_is_told(what: str, words: str, persistent: bool) -> None:
    loader = load(what, num_workers=2, persistent_workers=persistent)
    error = failed(loader)
    assert words in str(error)
    assert "num_workers=0" in str(error)
    assert "\n" not in str(error)
    assert error.result.samples >= 8
    loader.dataset.armed = False
    assert run({"a": zoo.mlp()}, loader).samples == 64
    if persistent:
        loader._iterator._shutdown_workers()


@pytest.mark.parametrize("wrap", [lambda loader: loader, Wrapped])
@pytest.mark.parametrize(
    ("what", "words"), [("raise", "ValueError: bad sample"), ("key", "'no such file'")]
)
def test_a_workers_own_words(wrap: Any, what: str, words: str) -> None:
    error = failed(wrap(load(what, num_workers=1)))
    assert str(error).startswith("the loader failed at batch 6 in worker process 0: ")
    assert str(error).endswith(words)
    assert error.result.samples == 40


def test_a_worker_that_dies_behind_a_generator_is_told() -> None:
    assert "killed by SIGKILL" in str(failed(Wrapped(load("kill", num_workers=2))))


def test_workers_of_an_iterator_that_the_caller_made_stay_with_the_caller() -> None:
    mine = iter(load(num_workers=1))
    with closing(iter_compare({"a": zoo.mlp()}, mine)) as steps:
        assert next(steps).samples == 8
    assert len(children()) == 1
    assert len(list(mine)) == 7
    assert "killed by SIGKILL" in str(failed(iter(load("kill", num_workers=1))))


def test_a_run_that_is_left_ends_its_workers() -> None:
    for wrap in (lambda loader: loader, Wrapped):
        with closing(iter_compare({"a": zoo.mlp()}, wrap(load(num_workers=2)))) as steps:
            assert next(steps).samples == 8
            assert len(children()) == 2
        assert not children()


def test_what_waits_in_a_dead_worker_is_not_waited_for() -> None:
    """The other worker goes on and on, which keeps torch from looking for the dead."""

    class Uneven(Rows):
        def __getitem__(self, i: int) -> torch.Tensor:
            time.sleep(1.0 if i // 8 % 2 and i % 8 == 0 else 0.0)
            return super().__getitem__(i)

    loader = DataLoader(Uneven("kill", at=16, n=192), 8, num_workers=2, prefetch_factor=12)
    start = time.monotonic()
    assert "killed by SIGKILL" in str(failed(loader))
    assert time.monotonic() - start < 8


@pytest.mark.filterwarnings("ignore:Got pickle error")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_pickled_is_told(method: str) -> None:
    class Local(Rows):
        pass

    loader = DataLoader(Local(), 8, num_workers=1, multiprocessing_context=method)
    with pytest.raises(CompareError, match=r"could not start: .*Local.*module file.*num_workers=0"):
        run({"a": zoo.mlp()}, loader)


@pytest.mark.slow
def test_what_a_notebook_defines_is_told_by_name() -> None:
    script = """if True:
    import torch, zoo, cka_widget as cw
    from worker_data import Rows
    from torch.utils.data import DataLoader
    class Cell(Rows): pass
    try:
        cw.compare({"a": zoo.mlp()}, DataLoader(
            Cell(), 8, num_workers=1, multiprocessing_context="spawn"), progress=False)
    except RuntimeError as error:
        print(error)
    """
    tests = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tests, capture_output=True, text=True, timeout=120
    )
    assert "cannot load what is defined in a notebook (Cell)" in done.stdout
    assert "put that into a module file, or use num_workers=0" in done.stdout


# starting and stopping ---------------------------------------------------------------------------
def test_loaders_start_in_the_thread_that_starts_the_stream() -> None:
    seen: list[tuple[str, int]] = []

    class Notes:
        def __iter__(self) -> Iterator[torch.Tensor]:
            seen.append(("start", threading.get_ident()))
            for batch in zoo.vectors(32):
                yield batch
                seen.append(("next", threading.get_ident()))

    stream = Stream(Notes(), ["a"], None)
    thread = threading.Thread(target=stream.start)
    thread.start()
    thread.join()
    assert len(list(stream)) == 2
    here = threading.get_ident()
    assert seen[0] == ("start", thread.ident)
    assert seen[1:] == [("next", here)] * 2


def test_a_stream_that_is_stopped_ends_at_once_where_its_loader_hangs() -> None:
    gate = threading.Event()

    def hangs() -> Iterator[torch.Tensor]:
        yield from zoo.vectors(16)
        gate.wait()
        yield from zoo.vectors(16)

    class Loader:
        def __iter__(self) -> Iterator[torch.Tensor]:
            return hangs()

    stream = Stream(Loader(), ["a"], None)
    stream.start(torch.no_grad)
    steps = iter(stream)
    next(steps)
    threading.Timer(0.2, stream.stop).start()
    start = time.monotonic()
    assert list(steps) == []
    assert time.monotonic() - start < 5
    gate.set()
    end = time.monotonic() + 5
    while any(one.name == "cka-loader" for one in threading.enumerate()):
        assert time.monotonic() < end, "the thread is left although its loader goes on"
        time.sleep(0.01)


def test_what_start_meets_comes_with_the_first_step() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no such disk")

    stream = Stream({"a": load(num_workers=1), "b": Broken()}, ["a", "b"], None)
    stream.start(torch.no_grad)
    with pytest.raises(CompareError, match="could not start: OSError: no such disk"):
        next(iter(stream))


def test_drawn_in_a_thread_nothing_comes_too_early_and_settings_hold() -> None:
    drawn: list[tuple[int, bool]] = []

    class Loader:
        def __iter__(self) -> Iterator[torch.Tensor]:
            for number in itertools.count():
                drawn.append((number, torch.is_grad_enabled()))
                yield torch.zeros(8, 4)

    stream = Stream(Loader(), ["a"], 3)
    stream.start(torch.no_grad)
    for step, _ in enumerate(stream):
        assert [number for number, _ in drawn] == list(range(step + 1))
    assert [grad for _, grad in drawn] == [True, False, False]
