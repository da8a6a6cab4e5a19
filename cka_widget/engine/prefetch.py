"""Batches brought to the device; on an accelerator the next one comes under this one's work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cka_widget.engine.batches import each, map_tensors, tensors, to_device
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
    asked for. On CUDA the copy is made from pinned memory on a stream of its own.
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
        self._next: Loaded | None = None
        self._uncopied: Mapping[str, Any] | None = None  # drawn ahead, and found no room
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Loaded]:
        return self

    def __next__(self) -> Loaded:
        if self._error is not None:
            raise self._error
        loaded, self._next = self._next or self._placed(self._draw()), None
        if self._side is not None:
            self._join(loaded)
        return loaded

    def advance(self) -> None:
        """Draw the next batch and start its copy; the place for it is behind queued work."""
        if not self._ahead or self._next is not None or self._error is not None:
            return
        if self._side is not None:
            self._side.synchronize()  # a loader may fill the same memory again
        try:
            self._uncopied = self._draw()
            self._next, self._uncopied = self._placed(self._uncopied), None
        except Exception as error:  # StopIteration too
            # Where two batches do not fit, this one is copied when the other is done.
            self._error = None if ran_out(error) else error

    def close(self) -> None:
        """Let the loader go."""
        self._next = self._uncopied = None
        if (close := getattr(self._steps, "close", None)) is not None:
            close()

    def _draw(self) -> Mapping[str, Any]:
        given, self._uncopied = self._uncopied, None
        return next(self._steps) if given is None else given

    def _placed(self, given: Mapping[str, Any]) -> Loaded:
        with torch.inference_mode(False):
            return Loaded(given, each(given, self._copy))

    def _copy(self, batch: Any) -> Any:
        if self._side is None or any(t.device.type != "cpu" for t in tensors(batch)):
            return to_device(batch, self._device)
        with torch.cuda.stream(self._side):
            return to_device(map_tensors(batch, _pinned), self._device, behind=True)

    def _join(self, loaded: Loaded) -> None:
        """The models' stream waits for the copy, and the copy's memory for the models' stream."""
        assert self._side is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._side)
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
