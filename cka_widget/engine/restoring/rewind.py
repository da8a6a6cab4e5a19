"""Takes back what short passes leave in a model: states of a few samples fit no batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_REGISTRIES = ("_parameters", "_buffers", "_modules")
# Larger buffers are not copied: models only read what is so large, such as masks.
_SMALL = 1 << 16


class Before:
    """Notes a model's attributes, hooks and small buffers, to bring them back."""

    def __init__(self, root: nn.Module) -> None:
        self._modules = list(root.modules())
        self._hooks = _hooks(self._modules)
        held = (t for m in self._modules for t in (*m._parameters.values(), *m._buffers.values()))
        lazy = any(t is not None and is_lazy(t) for t in held)
        # Scripted modules have attributes that Python does not see.
        seen = [m for m in self._modules if not isinstance(m, torch.jit.ScriptModule)]
        self._found = [] if lazy else [_Found(module) for module in seen]

    def restore(self) -> bool:
        """Bring attributes of all modules, and small buffers, back.

        Returns:
            False where all stays, since a pass has filled lazy modules in or registered hooks:
            attributes then tell of what cannot be taken back.
        """
        same = self._hooks == _hooks(self._modules)
        for one in self._found if same else ():
            one.restore()
        return same


def _hooks(modules: list[nn.Module]) -> list[set[int]]:
    return [
        set(registered)
        for module in modules
        for registered in (module._forward_hooks, module._forward_pre_hooks)
    ]


class _Found:
    """The attributes and small buffers of one module, as they were."""

    def __init__(self, module: nn.Module) -> None:
        self._held: dict[str, Any] = vars(module)
        registries = [self._held[name] for name in _REGISTRIES]
        self._dicts = [(d, dict(d)) for d in (self._held, *registries)]
        self._written = [
            (buffer, buffer._version, buffer.clone())
            for buffer in module._buffers.values()
            if isinstance(buffer, Tensor) and buffer.numel() <= _SMALL and not buffer.is_inference()
        ]

    def restore(self) -> None:
        for now, before in self._dicts:
            for key in now.keys() - before.keys():
                del now[key]
            now.update({k: v for k, v in before.items() if now.get(k, self) is not v})
        with torch.no_grad():
            for buffer, version, values in self._written:
                if buffer._version != version:
                    buffer.copy_(values)
