"""What a recorded graph could not do again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recordable(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, looks at every operation of this thread.

    Attributes:
        reason: what the first one did that cannot be recorded, or None. On a device such a one
            makes the host wait, and breaks a recording.
    """

    supports_higher_order_operators = True

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reason: str | None = None
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if self.reason is None and (why := self._why(func, args, kwargs, made)):
            self.reason = f"an operation ({func}) {why}"
        return made

    def _why(self, func: Any, args: Any, kwargs: Any, made: Any) -> str | None:
        if not isinstance(func, torch._ops.OpOverload):
            return "runs others by its own rules"
        if _reads(func, args):
            return "depends on the data in a way that the host must know"
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        got = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
        if any(x.is_nested or x.layout is not torch.strided for x in (*given, *got)):
            return "uses nested or sparse tensors"
        # Numbers of the host, tensors of no dimension, go with those of any device.
        away = [x.device for x in (*given, *got) if x.dim() and not self._is_here(x)]
        if any(self._is_here(x) for x in given):
            away += [x.device for x in got if not self._is_here(x)]
        return f"uses memory of {away[0]}" if away else None

    def _is_here(self, tensor: Tensor) -> bool:
        """On the device, whose number may be left open."""
        device = tensor.device
        return device.type == self._device.type and self._device.index in (None, device.index)


def _reads(func: Any, args: Any) -> bool:
    name = func.overloadpacket.__name__
    if name.lstrip("_").startswith(("index", "unsafe_index")) and len(args) > 1:
        indices = tree_leaves(args[1])
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)
    return not _READS.isdisjoint(func.tags)


@contextmanager
def searching(device: torch.device) -> Iterator[Recordable]:
    """A search of what runs within, with torch's own notice of waits that no operation shows."""
    with Recordable(device) as found:
        if device.type != "cuda":
            yield found
            return
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        said = str(warning.message)
        if "called a synchronizing" in said:
            found.reason = found.reason or "an operation makes the host wait for the device"
        elif "prototype feature" not in said:  # torch's own notice of the search
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
