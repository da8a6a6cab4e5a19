"""What a recorded graph could not do again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recordable(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, looks at every operation of this thread.

    Attributes:
        reason: completes "an operation ...": what the first one did that cannot be recorded, or
            None. On a device such a one makes the host wait, and breaks a recording.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reason: str | None = None
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if self.reason is None and (why := self._why(func, args, (args, kwargs, made))):
            self.reason = f"({func}) {why}"
        return made

    def _why(self, func: Any, args: Any, all_of_it: Any) -> str | None:
        if _reads(func, args):
            return "depends on the data in a way that the host must know"
        for leaf in tree_leaves(all_of_it):
            if not isinstance(leaf, Tensor):
                continue
            if leaf.is_nested or leaf.layout is not torch.strided:
                return "uses nested or sparse tensors"
            if leaf.dim() and not self._is_here(leaf.device):
                return f"uses memory of {leaf.device}"
        return None

    def _is_here(self, device: torch.device) -> bool:
        """On the device, whose number may be left open."""
        return device.type == self._device.type and self._device.index in (None, device.index)


def _reads(func: Any, args: Any) -> bool:
    name = func.overloadpacket.__name__
    if name.lstrip("_").startswith(("index", "unsafe_index")) and len(args) > 1:
        indices = args[1] if isinstance(args[1], (list, tuple)) else ()
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
    return not _READS.isdisjoint(func.tags)
