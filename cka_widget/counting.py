"""One forward pass by torchinfo, which counts calls and parameters, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from torch import nn
from torchinfo import torchinfo
from torchinfo.enums import Mode
from torchinfo.layer_info import LayerInfo


def counted(model: nn.Module, run: Callable[[], Any]) -> list[LayerInfo]:
    """Run a model by torchinfo.

    Args:
        model: the model, in evaluation mode.
        run: calls it.

    Returns:
        One `LayerInfo` for every call of every module.

    Raises:
        RuntimeError, TypeError, ...: the model failed, or has modules or outputs that torchinfo
            refuses (a dataclass, a string).
    """
    outer = _Outer(model, run)
    before = _hooks(model)
    try:
        # Not `summary`: its totals visit a nest of depth k in 2^k steps.
        record = torchinfo.forward_pass(
            outer, [], None, cache_forward_pass=False, device=None, mode=Mode.EVAL
        )
    except BaseException:
        # It leaves its hooks behind where it fails before the run, or is interrupted.
        for key, hooks in _hooks(model).items():
            if key not in before:
                del hooks[key]
        raise
    infos = [info for info in record if info.executed and info.module is not outer]
    # torchinfo keeps the list in a module global; emptied, it does not keep the model alive.
    record.clear()
    return infos


class _Outer(nn.Module):
    """Gives torchinfo one module to call without arguments, whatever the batch and `forward`."""

    def __init__(self, model: nn.Module, run: Callable[[], Any]) -> None:
        super().__init__()
        self.model = model
        self.run = run
        self.training = False

    def forward(self) -> None:
        self.run()

    def train(self, mode: bool = True) -> _Outer:
        """Nothing: a model's own `train` and `eval` may do more than set flags."""
        return self


def _hooks(model: nn.Module) -> dict[int, MutableMapping[int, Any]]:
    """Where torchinfo's hooks hang, by the numbers of their handles, which torch gives once."""
    return {
        key: hooks
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for key, hook in hooks.items()
        if getattr(hook, "__module__", None) == torchinfo.__name__
    }
