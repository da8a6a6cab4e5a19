"""The passes of a batch recorded once as a CUDA graph, and replayed for the batches after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cka_widget.engine.batches import map_tensors, tensors
from cka_widget.engine.recordable import Recordable
from cka_widget.engine.stack import Filling, GramStack

# Of a row's largest number: how far a replay may be from a run.
_TOLERANCE = 1e-3

Batches = Mapping[str, Any]
Run = Callable[[Batches], None]


def available(device: torch.device) -> bool:
    """Can work be recorded there?"""
    return device.type == "cuda"


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record what the work hands to the device, without doing it; returns what does it."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # Other threads, a loader's or the user's, go on with their own work.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    return lambda: graph.replay()


class _Recording(NamedTuple):
    """A filled stack: what fills it again, from which tensors, and what it then knows."""

    play: Callable[[], None]
    inputs: Batches
    filling: Filling


class Replay:
    """Fills a stack, of the batches that are alike without any of the models' Python.

    A run's first batch runs as without. Of those after it that are alike in their shapes, and in
    how the stack forms its Grams, the first is searched for what cannot be recorded, the second
    recorded, the third replayed and run, which must fill the stack alike; all others are replayed.

    Attributes:
        refused: why nothing is recorded any more, or None.
    """

    def __init__(self, stack: GramStack, device: torch.device) -> None:
        self.refused: str | None = None
        if not available(device):
            self.refused = f"it needs a CUDA device, and the models ran on {device}"
        self._stack = stack
        self._device = device
        self.forget()

    def forget(self) -> None:
        """Let the recording and its memory go."""
        self._key: Any = None  # of batches that are alike
        self._recording: _Recording | None = None
        self._checked = False

    def fill(self, batches: Batches, run: Run) -> None:
        """Fill the stack of a batch that was begun.

        Args:
            batches: by model, on the device.
            run: fills the stack from batches.
        """
        if self.refused is not None or not self._stack.rows:
            run(batches)
            return
        key = self._stack.formation(), _shapes(batches)
        if not _same(key, self._key):
            self.forget()
            self._key = key
            self._search(batches, run)
        elif self._recording is None:
            self._record(batches, run)
        elif not self._checked:
            self._check(self._recording, batches, run)
        else:
            self._play(self._recording, batches)

    def _search(self, batches: Batches, run: Run) -> None:
        with Recordable(self._device) as found:
            run(batches)
        if found.reason is not None:
            self._refuse(f"an operation {found.reason}")

    def _record(self, batches: Batches, run: Run) -> None:
        try:
            copies = {id(b): map_tensors(b, Tensor.clone) for b in batches.values()}
            inputs = {model: copies[id(batch)] for model, batch in batches.items()}
            play = recorded(lambda: run(inputs), self._device)
            self._recording = _Recording(play, inputs, self._stack.filling())
        except Exception as error:  # nothing is lost: recording does nothing yet
            lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            self._refuse(f"recording failed, {lines[0]}")
        run(batches)

    def _check(self, recording: _Recording, batches: Batches, run: Run) -> None:
        """Replay and run: a graph does not know what Python would decide for another batch."""
        self._play(recording, batches)
        replayed = self._stack.grams().clone()
        run(batches)
        grams = self._stack.grams()
        largest = grams.abs().amax(1, keepdim=True).clamp(min=torch.finfo(grams.dtype).tiny)
        self._checked = torch.allclose(
            replayed / largest, grams / largest, rtol=0.0, atol=_TOLERANCE, equal_nan=True
        )
        if not self._checked:
            self._refuse("the models do not do the same with every batch")

    def _play(self, recording: _Recording, batches: Batches) -> None:
        for old, new in zip(_all(recording.inputs), _all(batches), strict=True):
            old.copy_(new)
        recording.play()
        self._stack.fill_as(recording.filling)

    def _refuse(self, why: str) -> None:
        self.refused = why
        self.forget()


def _all(batches: Batches) -> list[Tensor]:
    """The tensors of all batches, each batch once."""
    return list(tensors(list({id(b): b for b in batches.values()}.values())))


def _shapes(batches: Batches) -> Any:
    """What must be equal for two batches to go through the same operations."""
    whole = {id(b): b for b in batches.values()}
    order = list(whole)
    return (
        [(t.shape, t.stride(), t.dtype, t.device) for t in _all(batches)],
        [(model, order.index(id(batch))) for model, batch in batches.items()],
        [map_tensors(batch, lambda t: None) for batch in whole.values()],
    )


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # arrays have no single answer
        return False
