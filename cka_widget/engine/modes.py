"""What runs change of modules while they need it so: several may need the same module at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

# Brings a module back to how it was found.
Restore = Callable[[], object]


class Held:
    """Changes of modules, each made by the first that asks and taken back by the last that leaves.

    A notebook's cell may be run again while its last run still goes over the same models.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The module itself keeps its id from being used again.
        self._held: dict[int, tuple[nn.Module, Restore, int]] = {}

    def __contains__(self, module: nn.Module) -> bool:
        return id(module) in self._held

    def take(self, module: nn.Module, change: Callable[[nn.Module], Restore]) -> None:
        """Change the module, unless it is changed already."""
        with self._lock:
            _, restore, users = self._held.get(id(module)) or (module, change(module), 0)
            self._held[id(module)] = module, restore, users + 1

    def leave(self, module: nn.Module) -> None:
        """Bring the module back, if nobody else needs it changed."""
        with self._lock:
            _, restore, users = self._held.pop(id(module))
            if users > 1:
                self._held[id(module)] = module, restore, users - 1
            else:
                restore()


_evaluated = Held()


def _evaluate(module: nn.Module) -> Restore:
    found, module.training = module.training, False
    return lambda: setattr(module, "training", found)


@contextmanager
def evaluating(roots: Iterable[nn.Module]) -> Iterator[None]:
    """All submodules in evaluation mode, and each back as it was found.

    Flags are set one by one: `train()` and `eval()` may be overridden to do more, and would flip
    children that were frozen.
    """
    with ExitStack() as stack:
        for module in dict.fromkeys(module for root in roots for module in root.modules()):
            _evaluated.take(module, _evaluate)
            # The last one first: a compiled module sets the flag of the module that it wraps.
            stack.callback(_evaluated.leave, module)
            module.training = False  # also where its owner set it since another run began
        yield
