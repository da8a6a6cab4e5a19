"""Hooks that are surely taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Hooks:
    """Forward hooks of ours on others' modules.

    Each is noted before it is registered, and found by itself when it is removed: an exception that
    another thread sends may come between any two steps, in torch's code too.
    """

    def __init__(self) -> None:
        self._added: list[tuple[nn.Module, Callable[..., Any]]] = []

    def after(self, module: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> None:
        """Call `hook(module, args, output)` after each of the module's passes."""
        self._added.append((module, hook))
        # Unbound: a scripted child refuses the method, yet runs the hook.
        nn.Module.register_forward_hook(module, hook)

    def before(self, module: nn.Module, hook: Callable[[nn.Module, Any], Any]) -> None:
        """Call `hook(module, args)` before each of them."""
        self._added.append((module, hook))
        nn.Module.register_forward_pre_hook(module, hook)

    def remove(self) -> None:
        """Take all back; called again it ends what an exception has torn."""
        for module, hook in self._added:
            for registered in (module._forward_hooks, module._forward_pre_hooks):
                for key in [key for key, one in registered.items() if one is hook]:
                    registered.pop(key, None)
        self._added.clear()
