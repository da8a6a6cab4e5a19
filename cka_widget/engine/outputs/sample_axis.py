"""Where the samples of a module's output are: along which axis, and folded with what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn

from cka_widget.engine.errors import LeftOutError, NoFeaturesError


@dataclass(frozen=True)
class SampleAxis:
    """An axis of `outer * n * inner` entries, numbered as an array (outer, n, inner).

    (n, d) has the defaults, (steps, n, d) has `axis=1`; windows, patches or tokens of each sample
    in turn along the first axis are `inner`.
    """

    axis: int = 0
    outer: int = 1
    inner: int = 1

    def fits(self, x: Tensor, n: int) -> bool:
        """Can x be an output of n samples?"""
        return x.dim() > self.axis and x.shape[self.axis] == self.outer * n * self.inner

    def bring(self, x: Tensor, n: int) -> Tensor | None:
        """(n, ...), or (n, entries of a sample, ...) where samples are folded; None if unfit.

        Another batch may have another number of tokens, so a fold may change its size.
        """
        if not self.fits(x, n):
            other = self._resized(x, n)
            return None if other is None else other.bring(x, n)
        if self.axis:
            x = x.movedim(self.axis, 0)
        if self.outer == self.inner == 1:
            return x
        x = x.reshape(self.outer, n, self.inner, *x.shape[1:])
        return x.movedim(1, 0).flatten(1, 2)

    @property
    def folded(self) -> bool:
        """Has a sample several entries along the axis?"""
        return self.outer * self.inner > 1

    def _resized(self, x: Tensor, n: int) -> SampleAxis | None:
        size = x.shape[self.axis] if x.dim() > self.axis else 0
        if not size or size % n or not self.folded:
            return None
        if self.outer == 1:
            return replace(self, inner=size // n)
        return replace(self, outer=size // n) if self.inner == 1 else None


class ProbedAxes(NamedTuple):
    """What passes on few samples show of an output.

    Attributes:
        axes: which may be the samples', the likeliest first.
        why_not: why there is none.
        size: its shape, whatever the number of samples, in that case.
    """

    axes: tuple[SampleAxis, ...] = ()
    why_not: NoFeaturesError | None = None
    size: tuple[int, ...] | None = None


class SampleFinder:
    """Where one output of a model has its samples, batch after batch.

    Attributes:
        axis: theirs, known from the first batch on.
        proved: have two numbers of samples shown it?
    """

    def __init__(self, shown: ProbedAxes | None) -> None:
        """Without `shown`, the first batch's shape must do until one of another size comes."""
        self.axis: SampleAxis | None = None
        self.proved = shown is not None
        self._shown = shown
        self._n = 0

    def of(self, x: Tensor, n: int, module: nn.Module | None) -> Tensor:
        """The output x of a batch of n samples as (n, ...), see `SampleAxis.bring`.

        Raises:
            NoFeaturesError: x has no features for each sample; `LeftOutError` if it holds samples.
        """
        first = self.axis is None
        if self.axis is None:
            self.axis = self._known(self._shown, x, n) if self._shown else _likely(x, n, module)
            self._n = n
        rows = self.axis.bring(x, n)
        if rows is None:
            raise NoFeaturesError(
                f"its output {tuple(x.shape)} in a batch of {n} samples has nothing for each"
            )
        self.proved |= not first and n != self._n
        return rows

    def refuse(self, x: Tensor) -> None:
        """Raises NoFeaturesError where passes on few samples have shown that x holds none."""
        shown = self._shown or ProbedAxes()
        if shown.why_not is not None and shown.size in (None, tuple(x.shape)):
            raise type(shown.why_not)(*shown.why_not.args)

    def _known(self, shown: ProbedAxes, x: Tensor, n: int) -> SampleAxis:
        self.refuse(x)
        for axis in shown.axes:
            if axis.fits(x, n):
                return axis
        raise LeftOutError(
            f"its entries are no fixed number a sample: its output is {tuple(x.shape)} for {n} "
            "samples, and was otherwise for 2 and for 3"
        )


def _likely(x: Tensor, n: int, module: nn.Module | None) -> SampleAxis:
    """The axis that the shape alone suggests."""
    sequence = x.dim() == 3
    time_first = sequence and getattr(module, "batch_first", None) is False
    for axis in (1, 0) if time_first else (0, 1) if sequence else (0,):
        if x.dim() > axis and x.shape[axis] == n:
            return SampleAxis(axis)
    if not x.dim():
        raise NoFeaturesError(f"its output has no entries for a batch of {n} samples")
    why = f"its output has {x.shape[0]} entries for a batch of {n} samples"
    if x.shape[0] and x.shape[0] % n == 0:
        raise LeftOutError(
            f"passes on 2 and on 3 samples did not show whose its entries are: {why}"
        )
    raise NoFeaturesError(why)
