"""CKA of features at hand: one pair, or batches of named features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cka_widget.engine.grams.forming import Needs
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.outputs.features import flatten
from cka_widget.engine.summing.accumulator import Accumulator
from cka_widget.result.sums import HsicSums


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

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), computed in float64, where K_ij = x_i . x_j, or
    exp(-|x_i - x_j|^2 / (2 sigma^2)) with sigma = bandwidth * median_i<j |x_i - x_j|, and L the
    same of y.

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
        ValueError: different numbers of samples, or fewer than 4 (2 when biased); complex features
            or none at all; an unknown kernel.
    """
    a, b = _features("x", x).double(), _features("y", y).double()
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
        """Nothing is known until `update`.

        Args:
            kernel: "linear" or "rbf".
            unbiased: estimator of Song et al. (2012, eq. 5); False that of Gretton et al. (2005).
            bandwidth: of the RBF kernel, as a fraction of the median distance in the first batch.
            hsic_batch_size: cut batches into blocks of this many samples; None takes each whole.
            device: where Gram matrices and sums are kept.
            dtype: of the Gram matrices; float64 costs twice the memory and time.

        Raises:
            ValueError: an unknown kernel, or a bandwidth that is not above 0.
        """
        self._measure = CKA(kernel, unbiased, bandwidth)
        self._device = torch.device(device)
        self._options = (hsic_batch_size, dtype)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        hsic_batch_size, dtype = self._options
        needs = Needs(self._measure.min_samples, self._measure.max_rho)
        self._stack = GramStack(needs, hsic_batch_size, self._device, dtype=dtype)
        self._names: tuple[str, ...] = ()
        self._acc: Accumulator | None = None
        self._merged: HsicSums | None = None

    @torch.no_grad()
    def update(self, features: Mapping[str, Any]) -> None:
        """Add one batch: name -> features (n, ...), the same samples in the same order.

        Raises:
            ValueError: too few samples, other names than before, numbers of samples that differ;
                complex features or none at all.
        """
        rows = {name: _features(name, x).to(self._device) for name, x in features.items()}
        if len({len(x) for x in rows.values()}) != 1:
            raise ValueError("all features of a batch must have the same number of samples")
        if self._names and tuple(rows) != self._names:
            raise ValueError(f"expected features {', '.join(self._names)}, got {', '.join(rows)}")
        n = len(next(iter(rows.values())))
        if not self._stack.begin(n):
            raise ValueError(f"{n} samples are too few: at least {self._measure.min_samples}")
        self._names = tuple(rows)
        if self._acc is None:
            for _ in rows:
                self._stack.add_row()
            self._acc = Accumulator(
                [self._measure],
                list(range(len(rows))),
                [-1] * len(rows),
                len(rows),
                self._device,
            )

        def put(chosen: Iterable[int]) -> None:
            for row in chosen:
                self._stack.put(row, rows[self._names[row]])

        put(range(len(rows)))
        self._acc.update(self._stack, put)

    def merge_state(self, others: Iterable[MinibatchCKA]) -> None:
        """Add what other accumulators saw; they stay as they are.

        Raises:
            ValueError: they saw other names, or have another kernel or estimator; nothing is added.
        """
        others = list(others)
        for other in others:
            mine, theirs = _said(self._measure), _said(other._measure)
            if mine != theirs:
                raise ValueError(
                    f'merge_state needs one kernel and estimator in all: "{mine}" and "{theirs}"'
                )
        names = {acc._names for acc in (self, *others) if acc._names}
        if len(names) > 1:
            raise ValueError("merge_state needs accumulators of the same features")
        for other in others:
            sums = other._sums()
            if sums is None:
                continue
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
        own = None if self._acc is None else self._acc.each[0].rows.on_host()
        if own is None or self._merged is None:
            return own or self._merged
        return own.merge(self._merged)


def _said(cka: CKA) -> str:
    bandwidth = f" of bandwidth {cka.bandwidth}" if cka.kernel == "rbf" else ""
    return f"{cka.kernel}{bandwidth}, {'unbiased' if cka.unbiased else 'biased'}"


def _features(name: str, x: Any) -> Tensor:
    x = torch.as_tensor(x)
    if x.is_complex():
        raise ValueError(
            f'features "{name}" are complex: give real ones, as torch.view_as_real makes them'
        )
    if not x.dim() or not x.numel():
        raise ValueError(
            f'features "{name}" of shape {tuple(x.shape)} hold nothing: give (samples, features)'
        )
    return flatten(x if x.is_floating_point() else x.double())
