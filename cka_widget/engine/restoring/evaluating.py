"""What runs change of modules while they need it so: several may need the same module at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import nn

# Brings a module back to how it was found.
Restore = Callable[[], object]


class Held:
    """Changes of modules, each made by the first that asks and taken back by the last that leaves.

    A notebook's cell may be run again while its last run still goes over the same models. A user is
    any object. Whoever has taken leaves, also where taking did not come to its end; and again,
    where leaving did not: an exception that another thread sends may come between any two steps.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may have a run leave while another takes
        # The module itself keeps its id from being used again.
        self._held: dict[int, tuple[nn.Module, Restore, set[object]]] = {}

    def __contains__(self, module: nn.Module) -> bool:
        return id(module) in self._held

    def take(
        self,
        module: nn.Module,
        user: object,
        found: Callable[[nn.Module], Restore],
        change: Callable[[nn.Module], object],
    ) -> None:
        """Note how to bring the module back and change it, unless it is changed already."""
        with self._lock:
            if id(module) in self._held:
                self._held[id(module)][2].add(user)
                return
            self._held[id(module)] = module, found(module), {user}
            change(module)

    def leave(self, user: object) -> None:
        """Bring back what nobody else needs changed."""
        with self._lock, ExitStack() as stack:
            for key in list(self._held):
                # The last one first: a compiled module sets the flag of the module that it wraps.
                stack.callback(self._leave, key, user)

    def _leave(self, key: int, user: object) -> None:
        if key not in self._held:
            return
        _, restore, users = self._held[key]
        if users == {user}:
            restore()
            del self._held[key]
        users.discard(user)


_evaluated = Held()


def _flag(module: nn.Module) -> Restore:
    found = module.training
    return lambda: setattr(module, "training", found)


def _evaluate(module: nn.Module) -> None:
    module.training = False


def evaluate(roots: Iterable[nn.Module], user: object) -> None:
    """Bring all submodules into evaluation mode, until `as_found`.

    Flags are set one by one: `train()` and `eval()` may be overridden to do more, and would flip
    children that were frozen.
    """
    for module in dict.fromkeys(module for root in roots for module in root.modules()):
        _evaluated.take(module, user, _flag, _evaluate)
        _evaluate(module)  # also where its owner set it since another run began


def as_found(user: object) -> None:
    """Bring every module's flag back, if nobody else evaluates it."""
    _evaluated.leave(user)


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled code as written, so that hooks fire (pytorch issue 117758)."""
    # The stance imports torch._dynamo, seconds that are spent already where something is compiled.
    compiled = "torch._dynamo" in sys.modules
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield
