"""Running sums of per-block HSIC matrices, on the device where they arise."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from cka_widget.engine.summing.permutations import fourth_cumulants
from cka_widget.result.sums import ARRAYS, Array, HsicSums, in_unit


class Sums:
    """`HsicSums` on a device; memory O(R^2), no block is kept."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.weight = 0.0
        self.blocks = 0
        self.unit = np.zeros(rows)
        self.d = torch.zeros(rows, dtype=torch.float64, device=device)
        self.moments = torch.zeros(4, rows, dtype=torch.float64, device=device)
        self.h, self.hh, self.hd, self.dd, self.chance2, self.chance4 = (
            torch.zeros(rows, rows, dtype=torch.float64, device=device) for _ in range(6)
        )

    def add(self, h: Tensor, d: Tensor, n: int, shapes: Tensor | None = None) -> None:
        """Add blocks of n samples.

        Args:
            h: HSICs (blocks, R, R).
            d: self-HSICs (blocks, R).
            n: samples of a block.
            shapes: of the Grams, see `permutations`; without them chance is not summed.
        """
        self.weight += n * len(h)
        self.blocks += len(h)
        self.h.add_(_total(h), alpha=n)
        self.d.add_(d.sum(0), alpha=n)
        self.hh.add_(_total(h.square()), alpha=n**2)
        self.hd.add_(_total(h * d[:, :, None]), alpha=n**2)
        self.dd.addmm_(d.mT, d, alpha=n**2)
        self.moments.add_(torch.stack([d, d**2, d**3, d**4]).sum(1))
        if shapes is None:
            return
        self.chance2.addmm_(d.mT, d, alpha=2 * n / (n - 3))
        size = (n * d).square()
        fourth = fourth_cumulants(shapes, n).clamp_(min=0)
        self.chance4.add_(_total(fourth.mul_(size[:, :, None]).mul_(size[:, None, :])))

    def count_in(self, unit: Array) -> None:
        """From now on rows count in 2^unit (R,), see `HsicSums`; rare, so the host does it."""
        change, self.unit = unit - self.unit, unit
        for name in ARRAYS if change.any() else ():
            array: Tensor = getattr(self, name)
            array.copy_(torch.from_numpy(in_unit(name, array.cpu().numpy(), change)))

    def copy(self) -> Sums:
        """The same sums in memory of their own."""
        made = copy.copy(self)
        for name in ARRAYS:
            setattr(made, name, getattr(self, name).clone())
        return made

    def on_host(self) -> HsicSums:
        """A copy in numpy."""
        arrays = {name: getattr(self, name).cpu().numpy().copy() for name in ARRAYS}
        return HsicSums(self.weight, self.blocks, **arrays, unit=self.unit)


def _total(x: Tensor) -> Tensor:
    """The sum over blocks (blocks, R, R), without a copy where there is one block."""
    return x[0] if len(x) == 1 else x.sum(0)
