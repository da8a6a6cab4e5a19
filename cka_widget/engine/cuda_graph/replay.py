"""The passes of a batch recorded once as a CUDA graph, and replayed for the batches after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cka_widget.engine.cuda_graph import recording as cuda_graph
from cka_widget.engine.cuda_graph.alike import alike, layout
from cka_widget.engine.cuda_graph.recordable import searching
from cka_widget.engine.data.batches import each, map_tensors, tensors
from cka_widget.engine.errors import first_line
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.models.placement import Placement

# Of a row's largest number: how far a replay may be from a run.
_TOLERANCE = 1e-3
# So many searches that lead to no replay, and batches are not alike enough.
_PATIENCE = 8

Batches = Mapping[str, Any]
Run = Callable[[Batches], None]
Kept = list[tuple[Tensor, int]]


class _Recording(NamedTuple):
    """A filled stack: what fills it again, from which tensors, and what it then knows."""

    play: Callable[[], None]
    inputs: Batches
    filling: tuple[bool, ...]


class Replay:
    """Fills a stack; for batches that are alike, without any of the models' Python.

    Batches count from the one by which the stack has decided how to form its Grams. Of those that
    are alike in their shapes, and in how Grams are formed, the first is searched for what cannot be
    recorded, the second recorded, the third replayed and run, which must fill the stack alike;
    all others are replayed.

    Attributes:
        refused: why nothing is recorded any more, or None.
        replayed: how many batches were.
    """

    def __init__(self, stack: GramStack, device: torch.device, placement: Placement) -> None:
        self.refused: str | None = None
        self.replayed = 0
        if not cuda_graph.available(device):
            self.refused = f"it needs a CUDA device, and the models ran on {device}"
        self._stack = stack
        self._device = device
        self._placement = placement
        self._searches = 0  # since the last replay
        self.forget()

    def forget(self) -> None:
        """Let the recording and its memory go."""
        self._key: Any = None  # of batches that are alike
        self._recording: _Recording | None = None
        self._checked = False

    @property
    def holds(self) -> bool:
        """Is there a recording?"""
        return self._recording is not None

    def refuse(self, why: str) -> None:
        """Run all batches from now on."""
        self.refused = why
        self.forget()

    def warnings(self) -> Iterator[str]:
        """What a user who asked for a graph should know."""
        if not self.replayed:
            why = self.refused or "too few batches were alike"
            yield f"No CUDA graph was used, and the models ran as without one: {why}."
        elif self.refused:
            yield (
                f"A CUDA graph served {self.replayed} batches, and the others ran as without one: "
                f"{self.refused}."
            )

    def fill(self, batches: Batches, run: Run) -> None:
        """Fill the stack of a batch that was begun.

        Args:
            batches: by model, on the device; all of it may matter to the models.
            run: fills the stack from batches.
        """
        if self.refused is not None or not self._stack.formed.settled():
            run(batches)
            return
        key = self._stack.formation(), layout(batches)
        if not alike(key, self._key):
            self.forget()
            self._search(batches, run)
            # Particles that run as one call agree on centring in the batch that they fill.
            self._key = self._stack.formation(), key[1]
        elif self._recording is None:
            self._record(batches, run)
        elif not self._checked:
            self._check(self._recording, batches, run)
        else:
            self._play(self._recording, batches)
            self.replayed, self._searches = self.replayed + 1, 0

    def _search(self, batches: Batches, run: Run) -> None:
        self._searches += 1
        try:
            kept = self._placement.kept()
            with searching(self._device) as found:
                run(batches)
            keeps = not _unchanged(kept, self._placement.kept())
        except Exception:  # of the search perhaps; if of the model, it comes again
            self.refuse("what it does cannot be looked at")
            self._stack.begin_again()
            run(batches)
            return
        if found.reason is not None:
            self.refuse(found.reason)
        elif keeps:
            self.refuse("a model keeps tensors from one batch to the next")
        elif any(t.device != self._device or t.layout is not torch.strided for t in _all(batches)):
            self.refuse(f"batches hold tensors that cannot be copied on {self._device}")
        elif self._searches >= _PATIENCE:
            self.refuse("hardly two batches in a row were alike")

    def _record(self, batches: Batches, run: Run) -> None:
        try:
            inputs = each(batches, lambda batch: map_tensors(batch, Tensor.clone))
            with _no_autocast_cache():
                play = cuda_graph.recorded(lambda: run(inputs), self._device)
            self._recording = _Recording(play, inputs, self._stack.filling())
        except Exception as error:  # nothing is lost: recording does nothing yet
            cause = error.__cause__ or error
            self.refuse(f"recording failed, {first_line(cause) or type(cause).__name__}")
        self._stack.begin_again()
        run(batches)

    def _check(self, recording: _Recording, batches: Batches, run: Run) -> None:
        """Replay and run: a graph does not know what Python would decide for another batch."""
        grams = self._stack.grams()
        grams.fill_(torch.nan)
        self._play(recording, batches)
        replayed = grams.clone()
        grams.fill_(torch.nan)
        self._stack.begin_again()
        run(batches)
        largest = grams.abs().amax(1, keepdim=True).clamp(min=torch.finfo(grams.dtype).tiny)
        self._checked = self._stack.filling() == recording.filling and torch.allclose(
            replayed / largest, grams / largest, rtol=0.0, atol=_TOLERANCE, equal_nan=True
        )
        if not self._checked:
            self.refuse("the models do not do the same with every batch")

    def _play(self, recording: _Recording, batches: Batches) -> None:
        for old, new in zip(_all(recording.inputs), _all(batches), strict=True):
            old.copy_(new)
        recording.play()
        self._stack.fill_as(recording.filling)


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Autocast keeps what it has cast: within a recording that is not there yet."""
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _unchanged(before: Kept, after: Kept) -> bool:
    """The very same tensors, and nothing was written into them."""
    return len(before) == len(after) and all(
        a is b and old == new for (a, old), (b, new) in zip(before, after, strict=True)
    )


def _all(batches: Batches) -> list[Tensor]:
    """The tensors of all batches, each batch once."""
    return list(tensors(list({id(b): b for b in batches.values()}.values())))
