"""The next batch drawn under this one's work: order, errors, and nothing too many."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run
from torch import Tensor, nn

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.data import batches, prefetch
from cka_widget.engine.data.prefetch import Prefetch
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams import accelerator

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True], ids=["cpu", "accelerator"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    return bool(request.param)


class Loader:
    """Notes when a batch is drawn, beside what else is noted; can fail at one of them."""

    def __init__(self, batches: list[Tensor], notes: list[str], fail_at: int | None = None) -> None:
        self.batches, self.notes, self.fail_at = batches, notes, fail_at
        self.closed = 0

    def __iter__(self) -> Iterator[Tensor]:
        try:
            for number, batch in enumerate(self.batches, start=1):
                self.notes.append(f"draw {number}")
                if number == self.fail_at:
                    raise OSError("disk on fire")
                yield batch
        finally:
            self.closed += 1


class Noting(nn.Module):
    """A model whose passes are noted."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.inner, self.notes, self.passes = zoo.mlp(), notes, 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 3:
            self.passes += 1
            self.notes.append(f"pass {self.passes}")
        return self.inner(x)


def session(**options: Any) -> tuple[list[str], Loader, Iterator[Any]]:
    notes: list[str] = []
    loader = Loader(zoo.vectors(64), notes, options.pop("fail_at", None))
    return notes, loader, iter_compare({"a": Noting(notes)}, loader, **options)


def test_a_batch_is_drawn_behind_the_passes_before_it(ahead: bool) -> None:
    notes, loader, steps = session()
    assert len(list(steps)) == 5
    drawn_late = [f"{what} {k}" for k in range(1, 5) for what in ("draw", "pass")]
    drawn_early = ["draw 1", "pass 1", "draw 2", "pass 2", "draw 3", "pass 3", "draw 4", "pass 4"]
    assert notes == (drawn_early if ahead else drawn_late)
    assert loader.closed == 1


@pytest.mark.parametrize("limit", [1, 2, 4, 9])
def test_no_batch_beyond_max_batches(ahead: bool, limit: int) -> None:
    notes, loader, steps = session(max_batches=limit)
    last = list(steps)[-1]
    drawn = [note for note in notes if note.startswith("draw")]
    assert len(drawn) == last.batches == min(limit, 4)
    assert loader.closed == 1


def test_a_run_that_may_end_by_itself_draws_only_what_it_uses(ahead: bool) -> None:
    notes, loader, steps = session(stop_at_stderr=1.0, hsic_batch_size=4)
    assert list(steps)[-1].batches == 2
    assert notes == ["draw 1", "pass 1", "draw 2", "pass 2"]
    assert loader.closed == 1


def test_an_error_of_the_loader_comes_with_its_batch(ahead: bool) -> None:
    """The batch before it counts."""
    notes, loader, steps = session(fail_at=3)
    assert [next(steps).batches for _ in range(2)] == [1, 2]
    with pytest.raises(CompareError, match="failed at batch 3: OSError: disk on fire") as caught:
        next(steps)
    assert caught.value.result.batches == 2
    assert notes.count("draw 3") == 1
    assert loader.closed == 1


def test_closing_early_lets_the_loader_go(ahead: bool) -> None:
    notes, loader, steps = session()
    assert next(steps).batches == 1
    steps.close()
    assert loader.closed == 1
    assert notes == ["draw 1", "pass 1", *(["draw 2"] if ahead else [])]
    batches = [weakref.ref(batch) for batch in loader.batches]
    del loader, steps
    gc.collect()
    assert [ref() for ref in batches] == [None] * 4


def test_an_interrupt_while_drawing_ahead_ends_the_run(ahead: bool) -> None:
    def interrupted() -> Iterator[Tensor]:
        yield from zoo.vectors(32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        list(iter_compare({"a": zoo.mlp()}, interrupted()))
    assert caught.value.result.batches == (1 if ahead else 2)


def test_the_result_is_the_same(ahead: bool) -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    whole = torch.cat(zoo.vectors(64))
    loader = zoo.CountingLoader(whole, 16)
    found = run(models, loader)
    assert loader.drawn == 1
    loader.drawn = 0
    same = run(models, list(loader))
    np.testing.assert_allclose(found.matrix("a", "b"), same.matrix("a", "b"), atol=1e-7)


def test_models_share_the_copy_of_a_batch() -> None:
    x, y = torch.zeros(4), torch.ones(4)
    steps = [{"a": x, "b": x, "c": y}, {"a": y, "b": x, "c": x}]
    batches = Prefetch(steps, CPU, ahead=True)
    for given, step in itertools.zip_longest(steps, batches):
        assert step.given is given
        assert {name: t.tolist() for name, t in step.placed.items()} == {
            name: t.tolist() for name, t in given.items()
        }
        assert step.placed["b"] is step.placed["a" if given["a"] is x else "c"]
        batches.advance()
        batches.advance()  # one ahead, no more


def test_a_batch_that_found_no_room_ahead_is_copied_in_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, copies = zoo.vectors(64), [0]
    to_device = prefetch.to_device

    def full(batch: Any, device: torch.device, **how: Any) -> Any:
        copies[0] += 1
        if copies[0] % 2 == 0:  # every second one is tried while another is there
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return to_device(batch, device, **how)

    monkeypatch.setattr(prefetch, "to_device", full)
    seen = []
    steps = Prefetch([{"a": batch} for batch in given], CPU, ahead=True)
    for loaded in steps:
        seen.append(loaded.placed["a"])
        steps.advance()
        steps.advance()
    assert len(seen) == len(given)
    assert all(map(torch.equal, seen, given))


def test_only_the_side_stream_copies_behind_the_hosts_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nothing waits before the loader may write into the pinned memory again."""
    ways: list[bool] = []
    to = Tensor.to

    def noted(self: Tensor, *args: Any, **options: Any) -> Tensor:
        ways.append(options.get("non_blocking", False))
        return to(self, *args)

    monkeypatch.setattr(Tensor, "is_pinned", lambda self: True)
    monkeypatch.setattr(Tensor, "to", noted)
    next(Prefetch([{"a": torch.zeros(3)}], CPU, ahead=False))
    assert ways == [False]
    batches.to_device(torch.zeros(3), CPU, behind=True)
    assert ways == [False, True]


class Streams:
    """In the place of CUDA's streams and events: what is said to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "stream", lambda side: contextlib.nullcontext())
        monkeypatch.setattr(prefetch, "to_device", lambda batch, device, **how: batch)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.said.append(name) or self


@pytest.mark.parametrize(
    ("place", "pinned", "each"),
    [
        ("cpu", False, ["record_event", "wait_event"]),
        ("cpu", True, ["record_event", "wait_event", "synchronize"]),
        ("meta", False, []),  # in the place of a device
    ],
)
def test_the_host_waits_for_copies_of_pinned_memory_alone(
    place: str, pinned: bool, each: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader may write into that again; never does it wait for a whole stream."""
    monkeypatch.setattr(Tensor, "is_pinned", lambda self: pinned)
    streams = Streams(monkeypatch)
    given = [torch.zeros(4, device=place) for _ in range(3)]
    steps = Prefetch([{"a": batch} for batch in given], torch.device("cuda"), ahead=True)
    for loaded in steps:
        assert loaded.placed["a"] is given.pop(0)
        steps.advance()
    assert streams.said == each[:2] + (each[2:] + each[:2]) * 2 + each[2:]


def test_an_error_of_the_loader_is_held_by_who_catches_it_alone(ahead: bool) -> None:
    """By its traceback it holds the run, which would be freed by the collector only."""

    def loader() -> Iterator[dict[str, Tensor]]:
        yield {"a": torch.zeros(4)}
        raise OSError("disk on fire")

    gc.collect()
    gc.disable()
    try:
        for caught in (True, False):
            steps = Prefetch(loader(), CPU, ahead=ahead)
            next(steps)
            steps.advance()
            if caught:
                with contextlib.suppress(OSError):
                    next(steps)
            steps.close()
            gone = weakref.ref(steps)
            del steps
            assert gone() is None
    finally:
        gc.enable()
