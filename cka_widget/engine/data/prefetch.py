"""Batches brought to the device; on an accelerator the next one comes under this one's work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cka_widget.engine.data.batches import each, map_tensors, tensors, to_device
from cka_widget.engine.devices import ran_out


class Loaded(NamedTuple):
    """One batch a model, by name: as the loader gave it, and on the device.

    Models that share a batch share its copy.
    """

    given: Mapping[str, Any]
    placed: Mapping[str, Any]


class Prefetch:
    """Iterates over steps `{model: batch}`; `advance` draws the next one before it is asked for.

    Nothing is drawn before the first is asked for, nor more than one ahead, and without `ahead`
    `advance` does nothing. What the loader raises, its end included, comes when that batch is
    asked for. On CUDA the copy is made from pinned memory on a stream of its own, and the host
    waits for it alone, where the loader has pinned that memory and may write into it again.
    """

    def __init__(
        self, steps: Iterable[Mapping[str, Any]], device: torch.device, *, ahead: bool
    ) -> None:
        self._steps = iter(steps)
        self._device = device
        self._ahead = ahead
        self._side: torch.cuda.Stream | None = None
        if ahead and device.type == "cuda":
            self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copied: torch.cuda.Event | None = None  # what is under way on that stream
        self._pinned = False  # by the loader
        self._next: Loaded | None = None
        self._uncopied: Mapping[str, Any] | None = None  # drawn ahead, and found no room
        self._error: Exception | None = None
        self._ended = False

    def __iter__(self) -> Iterator[Loaded]:
        return self

    def __next__(self) -> Loaded:
        if self._ended:
            raise StopIteration
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # it holds this frame, which must not hold it
        loaded, self._next = self._next or self._placed(self._draw()), None
        if self._copied is not None:
            self._join(loaded, self._copied)
        return loaded

    def advance(self) -> None:
        """Draw the next batch and start its copy; the place for it is behind queued work."""
        if not self._ahead or self._ended or self._next is not None or self._error is not None:
            return
        if self._copied is not None and self._pinned:
            self._copied.synchronize()
        try:
            self._uncopied = self._draw()
            self._next, self._uncopied = self._placed(self._uncopied), None
        except StopIteration:  # not kept: by its traceback it holds all that runs above here
            self._ended = True
        except Exception as error:
            # Where two batches do not fit, this one is copied when the other is done.
            self._error = None if ran_out(error) else error

    def close(self) -> None:
        """Let the loader go."""
        self._next = self._uncopied = self._error = None
        if (close := getattr(self._steps, "close", None)) is not None:
            close()

    def _draw(self) -> Mapping[str, Any]:
        given, self._uncopied = self._uncopied, None
        return next(self._steps) if given is None else given

    def _placed(self, given: Mapping[str, Any]) -> Loaded:
        self._copied, self._pinned = None, False
        with torch.inference_mode(False):
            return Loaded(given, each(given, self._copy))

    def _copy(self, batch: Any) -> Any:
        if self._side is None or any(t.device.type != "cpu" for t in tensors(batch)):
            return to_device(batch, self._device)
        self._pinned |= any(t.is_pinned() for t in tensors(batch))
        with torch.cuda.stream(self._side):
            placed = to_device(map_tensors(batch, _pinned), self._device, behind=True)
            self._copied = self._side.record_event()
        return placed

    def _join(self, loaded: Loaded, copied: torch.cuda.Event) -> None:
        """The models' stream waits for the copy, and the copy's memory for the models' stream."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for tensor in tensors(list(loaded.placed.values())):
            if tensor.device == self._device and tensor.layout is torch.strided:
                tensor.record_stream(current)


def _pinned(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.is_pinned():
        return tensor
    try:
        return tensor.pin_memory()
    except RuntimeError:  # the system gives no more of it
        return tensor
