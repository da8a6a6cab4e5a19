"""CKA of features at hand: one pair, or batches of named features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cka_widget.engine.features import flatten
from cka_widget.engine.hsic import HsicAccumulator
from cka_widget.engine.kernel import Kernel
from cka_widget.engine.stack import GramStack
from cka_widget.engine.sums import HsicSums


def cka(
    x: Any,
    y: Any,
    *,
    kernel: str = "linear",
    unbiased: bool = True,
    bandwidth: float = 0.4,
    hsic_batch_size: int | None = None,
) -> float:
    """Centered kernel alignment of two sets of features of the same samples.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), computed in float64.

    Args:
        x: features (n, p) or (n, ...), tensor or array; row i is sample i.
        y: features (n, q) of the same samples.
        kernel: "linear" or "rbf".
        unbiased: estimator of Song et al. (2012, eq. 5); False that of Gretton et al. (2005).
        bandwidth: of the RBF kernel, as a fraction of the median distance.
        hsic_batch_size: estimate over blocks of this many samples; None takes all at once.

    Returns:
        A number, not clamped: 1 for features equal up to rotation and scale, about 0 for
        independent ones, slightly negative by chance; NaN when x or y is constant.

    Raises:
        ValueError: different numbers of samples, or fewer than 4 (2 when biased).
    """
    a, b = _features(x).double(), _features(y).double()
    if len(a) != len(b):
        raise ValueError(f"x has {len(a)} samples, y has {len(b)}: rows must be the same ones")
    acc = MinibatchCKA(
        kernel=kernel,
        unbiased=unbiased,
        bandwidth=bandwidth,
        hsic_batch_size=hsic_batch_size,
        dtype=torch.float64,
    )
    acc.update({"x": a, "y": b})
    return float(acc.compute().loc["x", "y"])


class MinibatchCKA:
    """Accumulates CKA between named features, batch by batch.

    >>> acc = MinibatchCKA()
    >>> for _ in range(8):
    ...     x = torch.randn(64, 20)
    ...     acc.update({"x": x, "rotated": x @ torch.linalg.qr(torch.randn(20, 20))[0]})
    >>> round(acc.compute().loc["x", "rotated"], 2)
    1.0
    """

    def __init__(
        self,
        *,
        kernel: str = "linear",
        unbiased: bool = True,
        bandwidth: float = 0.4,
        hsic_batch_size: int | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._kernel = Kernel(kernel, unbiased, bandwidth)
        self._device = torch.device(device)
        self._options = (hsic_batch_size, dtype)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        hsic_batch_size, dtype = self._options
        self._stack = GramStack(self._kernel, hsic_batch_size, self._device, dtype=dtype)
        self._names: tuple[str, ...] = ()
        self._acc: HsicAccumulator | None = None
        self._merged: HsicSums | None = None

    @torch.no_grad()
    def update(self, features: Mapping[str, Any]) -> None:
        """Add one batch: name -> features (n, ...), the same samples in the same order.

        Raises:
            ValueError: too few samples, or other names or numbers of samples than before.
        """
        rows = {name: _features(x).to(self._device) for name, x in features.items()}
        if len({len(x) for x in rows.values()}) != 1:
            raise ValueError("all features of a batch must have the same number of samples")
        if self._names and tuple(rows) != self._names:
            raise ValueError(f"expected features {', '.join(self._names)}, got {', '.join(rows)}")
        n = len(next(iter(rows.values())))
        if not self._stack.begin(n):
            raise ValueError(f"{n} samples are too few: at least {self._kernel.min_samples}")
        self._names = tuple(rows)
        if self._acc is None:
            for _ in rows:
                self._stack.add_row()
            self._acc = HsicAccumulator(
                list(range(len(rows))), [-1] * len(rows), len(rows), self._device
            )

        def put(chosen: Iterable[int]) -> None:
            for row in chosen:
                self._stack.put(row, rows[self._names[row]])

        put(range(len(rows)))
        self._acc.update(self._stack, put)

    def merge_state(self, others: Iterable[MinibatchCKA]) -> None:
        """Add what other accumulators saw; they stay as they are.

        Raises:
            ValueError: they saw other names.
        """
        for other in others:
            sums = other._sums()
            if sums is None:
                continue
            if self._names and self._names != other._names:
                raise ValueError("merge_state needs accumulators of the same features")
            self._names = other._names
            self._merged = sums if self._merged is None else self._merged.merge(sums)

    def compute(self) -> pd.DataFrame:
        """CKA, names x names; NaN where undefined."""
        return self._frame("cka")

    def stderr(self) -> pd.DataFrame:
        """Standard errors of `compute`; NaN under 5 blocks."""
        return self._frame("stderr")

    def _frame(self, what: str) -> pd.DataFrame:
        sums = self._sums()
        if sums is None:
            raise ValueError("no batch yet: call update first")
        return pd.DataFrame(getattr(sums, what)(), self._names, self._names)

    def _sums(self) -> HsicSums | None:
        own = None if self._acc is None else self._acc.rows.on_host()
        if own is None or self._merged is None:
            return own or self._merged
        return own.merge(self._merged)


def _features(x: Any) -> Tensor:
    x = torch.as_tensor(x)
    return flatten(x if x.is_floating_point() else x.double())
