"""Models brought into evaluation mode and onto the device, and left as they were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from cka_widget.engine.data.batches import tensors
from cka_widget.engine.devices import memory_of
from cka_widget.engine.errors import CompareError
from cka_widget.engine.models.particles import Pass
from cka_widget.engine.restoring.evaluating import Held, Restore, as_found, evaluate

_moved = Held()
# Where each model is that a run has now; None where it comes and goes.
_places: dict[int, torch.device | None] = {}


class Placement:
    """From `enter` to `leave` all submodules are in evaluation mode and all models on the
    device.

    Models that fill more than half of the device's free memory together go there one at a time,
    for their own pass; stacked particles' tensors too. A model already spread over several devices
    stays where it is.
    """

    def __init__(self, passes: Iterable[Pass], device: torch.device) -> None:
        self._passes = list(passes)
        self._device = device
        self._roots = {id(p.root): p for p in self._passes}
        self._states: dict[int, dict[str, Tensor]] = {}  # of stacked particles, on the device
        self.one_at_a_time = False

    def enter(self) -> None:
        """Bring them there."""
        roots = [run.root for run in self._roots.values()]
        away = [root for root in roots if _home(root) not in (None, self._device)]
        states = [run.state for run in self._passes if run.state is not None]
        size = sum(t.nbytes for root in away for t in _tensors(root))
        size += sum(t.nbytes for s in states for t in s.values() if t.device != self._device)
        self.one_at_a_time = size > memory_of(self._device) / 2
        evaluate(roots, self)
        for run in self._roots.values():
            self._hold(run)
        if not self.one_at_a_time:
            self._states = {id(state): self._here(state) for state in states}

    def leave(self) -> None:
        """Leave them as they were found; again, where that did not come to its end."""
        self._states = {}
        with ExitStack() as stack:
            stack.callback(as_found, self)
            _moved.leave(self)

    def _hold(self, run: Pass) -> None:
        place = None if self.one_at_a_time else self._device
        if run.root in _moved and (place is None or _places.get(id(run.root)) != place):
            raise CompareError(
                f'another run has model "{run.model}" on another device: wait for it, or cancel it',
                model=run.model,
            )
        _moved.take(run.root, self, self._found, self._move)

    def _found(self, root: nn.Module) -> Restore:
        home = _home(root)

        def restore() -> None:
            if home not in (None, self._device):
                root.to(home)
            _places.pop(id(root), None)

        return restore

    def _move(self, root: nn.Module) -> None:
        _places[id(root)] = None if self.one_at_a_time else self._device
        if _home(root) not in (None, self._device) and not self.one_at_a_time:
            root.to(self._device)

    def kept(self) -> list[tuple[Tensor, int]]:
        """Tensors that modules and stacked particles hold between passes, and their versions."""
        found = [t for state in self._states.values() for t in state.values()]
        for run in self._roots.values():
            bound = {"_parameters", "_buffers"} if run.state is not None else set()
            for module in run.root.modules():
                found += tensors({k: v for k, v in vars(module).items() if k not in bound})
        return [(t, 0 if t.is_inference() else t._version) for t in found]

    @contextmanager
    def on_device(self, run: Pass) -> Iterator[Pass]:
        """The pass with its model (or its stacked particle's tensors) on the device."""
        if run.state is not None:
            state = self._states.get(id(run.state)) or self._here(run.state)
            yield replace(run, state=state)
            return
        # Asked only where it matters: to walk through all weights costs as much as a small pass.
        home = _home(run.root) if self.one_at_a_time else None
        if home in (None, self._device):
            yield run
            return
        run.root.to(self._device)
        try:
            yield run
        finally:
            run.root.to(home)

    def _here(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._device) for name, tensor in state.items()}


def _tensors(root: nn.Module) -> Iterator[Tensor]:
    yield from root.parameters()
    yield from root.buffers()


def _home(root: nn.Module) -> torch.device | None:
    devices = {t.device for t in _tensors(root)}
    return devices.pop() if len(devices) == 1 and "meta" not in map(str, devices) else None
