"""Models brought into evaluation mode and onto the device, and left as they were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import Tensor, nn

from cka_widget.engine.particles import Pass


def pick_device(device: str | torch.device | None) -> torch.device:
    """The given device; without one CUDA, then Apple's MPS, then the CPU."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class Placement:
    """While entered, all submodules are in evaluation mode and all models on the device.

    Flags are set and restored one by one: `train()` and `eval()` may be overridden to do more,
    and would flip children that were frozen. Models that fill more than half of the device's
    free memory together go there one at a time, for their own pass; stacked particles' tensors
    too. A model already spread over several devices stays where it is.
    """

    def __init__(self, passes: Iterable[Pass], device: torch.device) -> None:
        self._passes = list(passes)
        self._device = device
        self._roots = list({id(p.root): p.root for p in self._passes}.values())
        self._flags: list[tuple[nn.Module, bool]] = []
        self._homes: list[tuple[nn.Module, torch.device]] = []
        self._states: dict[int, dict[str, Tensor]] = {}  # of stacked particles, on the device
        self.one_at_a_time = False

    def __enter__(self) -> Placement:
        modules = {m for root in self._roots for m in root.modules()}
        self._flags = [(m, m.training) for m in modules if m.training]
        for module, _ in self._flags:
            module.training = False
        self._homes = [
            (root, home)
            for root in self._roots
            if (home := _home(root)) not in (None, self._device)
        ]
        states = [run.state for run in self._passes if run.state is not None]
        size = sum(t.nbytes for root, _ in self._homes for t in _tensors(root))
        size += sum(t.nbytes for s in states for t in s.values() if t.device != self._device)
        self.one_at_a_time = size > _free_bytes(self._device) / 2
        try:
            if not self.one_at_a_time:
                for root, _ in self._homes:
                    root.to(self._device)
                self._states = {id(state): self._here(state) for state in states}
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for module, training in self._flags:
            module.training = training
        for root, home in self._homes:
            root.to(home)
        self._flags, self._homes, self._states = [], [], {}

    @contextmanager
    def on_device(self, run: Pass) -> Iterator[Pass]:
        """The pass with its model (or its stacked particle's tensors) on the device."""
        if run.state is not None:
            state = self._states.get(id(run.state)) or self._here(run.state)
            yield Pass(run.model, run.particle, run.root, state)
            return
        home = next((home for root, home in self._homes if root is run.root), None)
        if home is None or not self.one_at_a_time:
            yield run
            return
        run.root.to(self._device)
        try:
            yield run
        finally:
            run.root.to(home)

    def _here(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._device) for name, tensor in state.items()}


def _tensors(root: nn.Module) -> Iterator[Tensor]:
    yield from root.parameters()
    yield from root.buffers()


def _home(root: nn.Module) -> torch.device | None:
    devices = {t.device for t in _tensors(root)}
    return devices.pop() if len(devices) == 1 and "meta" not in map(str, devices) else None


def _free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
