"""The CPU in the place of a GPU that records graphs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cka_widget.engine.cuda_graph import recording
from cka_widget.engine.grams import accelerator


class Tape(TorchDispatchMode):
    """Notes operations, and does them again on the same memory, as a CUDA graph does.

    Recording computes nothing: afterwards what was written is as before, and what is new is NaN.
    """

    playing = False

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: dict[int, Tensor] = {}
        self.open = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_memory(x): x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for key, x in given.items() if func._schema.is_mutable else ():
            if key not in self._made and key not in self._before:
                self._before[key] = _whole(x), _whole(x).clone()
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, Tensor) and _memory(x) not in given:
                self._made.setdefault(_memory(x), x)
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def end(self) -> None:
        self.open = False
        for x, before in self._before.values():
            x.copy_(before)
        for x in self._made.values():
            if x.is_floating_point():
                _whole(x).fill_(torch.nan)

    def play(self) -> None:
        Tape.playing = True
        try:
            self._play()
        finally:
            Tape.playing = False

    def _play(self) -> None:
        for func, args, kwargs, made in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _whole(x: Tensor) -> Tensor:
    """All numbers of the memory that x lies in."""
    return x.detach().as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)


Tapes = list[weakref.ref[Tape]]


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Tapes:
    """Record on the CPU; returns what was recorded, while it lives."""
    found: Tapes = []

    def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        tape = Tape()
        found.append(weakref.ref(tape))
        with tape:
            work()
        tape.end()
        return tape.play

    monkeypatch.setattr(accelerator, "accelerated", lambda device: True)
    monkeypatch.setattr(recording, "available", lambda device: True)
    monkeypatch.setattr(recording, "recorded", recorded)
    return found


def unrecorded(result: Any) -> str:
    """What the result says of batches that no graph served."""
    (sentence,) = (s for s in result.warnings if "CUDA graph" in s)
    return sentence
