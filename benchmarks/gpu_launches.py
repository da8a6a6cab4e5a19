"""How many kernels the Grams of a batch are, counted where there is no GPU.

    python benchmarks/gpu_launches.py

Of ResNet-50 x WideResNet-50 at 224 px and of 16 small particles, batch 256, in blocks of 32, 64 and
whole: where no layer's features are centred, where 28 of 100 are, as "high" finds in the former,
and where all are, as in "medium"; and of half precision that is multiplied as it is. By torch's
"meta" device, which has shapes and no memory, for 132 processors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import measure
import models
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.forming import Needs
from cka_widget.engine.grams.stack import GramStack

META = torch.device("meta")
BATCH = 256


class Launches(TorchDispatchMode):
    """Counts operations that are kernels: views and fresh memory are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        view = any(a.alias_info for a in schema.arguments) and not schema.is_mutable
        self.count += not (view or func.overloadpacket.__name__ in ("empty", "promote_types"))
        return func(*args, **(kwargs or {}))


def outputs(roots: list[nn.Module], *shape: int) -> list[torch.Size]:
    """Shapes of the features that get a row: what is passed on untouched gets one."""
    found: list[torch.Size] = []
    seen: dict[tuple[int, int], Tensor] = {}

    def hook(_m: nn.Module, _a: object, out: Tensor) -> None:
        if (id(out), out._version) not in seen:
            seen[id(out), out._version] = out  # alive, so that no id is used again
            found.append(out.flatten(1).shape)

    for root in roots:
        root.to(META).eval()
        for module in root.modules():
            module.register_forward_hook(hook)
        with torch.no_grad():
            root(torch.empty(BATCH, *shape, device=META))
    return found


def launches(
    rows: list[torch.Size],
    block: int | None,
    centred: Callable[[int], bool],
    precision: str,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Of one batch."""
    stack = GramStack(Needs(), block, META, precision=precision, capacity=len(rows))
    for number in range(len(rows)):
        stack.add_row()
        stack.formed.rows[number].look = False
        stack.formed.rows[number].centre_features = centred(number)
    stack.begin(BATCH)
    with Launches() as counted:
        for number, shape in enumerate(rows):
            stack.put(number, torch.empty(shape, dtype=dtype, device=META))
    return counted.count


def main() -> None:
    workloads = {
        "resnet": outputs([models.resnet50(), models.wide_resnet50()], 3, 224, 224),
        "particles": outputs([models.DigitsCNN() for _ in range(16)], 1, 8, 8),
    }
    ways: list[Callable[..., int]] = [
        partial(launches, centred=lambda number: False, precision="high"),
        partial(launches, centred=lambda number: number % 25 < 7, precision="high"),
        partial(launches, centred=lambda number: True, precision="medium"),
        partial(launches, centred=lambda number: False, precision="high", dtype=torch.bfloat16),
    ]
    with mock.patch.multiple(
        accelerator, _processors=lambda device: 132, _sums_in_float32=lambda device: True
    ):
        table = [
            [
                name,
                str(len(rows)),
                str(block or "whole"),
                *(f"{way(rows, block):,}" for way in ways),
            ]
            for name, rows in workloads.items()
            for block in (32, 64, None)
        ]
    head = ["workload", "rows", "blocks", "none centred", "28%", "all", "half precision"]
    print(measure.table(head, table))


if __name__ == "__main__":
    main()
