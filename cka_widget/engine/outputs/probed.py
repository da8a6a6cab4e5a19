"""What short passes show of a model, and what its first batch is to confirm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cka_widget.engine.errors import LeftOutError, NoFeaturesError
from cka_widget.engine.outputs.glimpse import FEW, Glimpse
from cka_widget.engine.outputs.sample_axis import ProbedAxes, SampleAxis

Call = tuple[str, int]  # a module's name, and the number of its call from 1

# Distance of the same samples in two passes, over their spread, that rounding can add up to.
NEAR = 0.02
WHOSE = LeftOutError(
    "it has several rows a sample, and passes on few samples do not show which of them belong to "
    "one"
)
ANOTHER_ORDER = LeftOutError(
    "its entries are the samples in another order than the batch's; sort them in the loader instead"
)


def same_size(shape: tuple[int, ...], n: int) -> ProbedAxes:
    """Of an output that is as large for 2 samples as for n."""
    why = NoFeaturesError(
        f"it holds no samples: its output {shape} is as large for {FEW} samples as for {n}"
    )
    return ProbedAxes(why_not=why, size=shape)


@dataclass
class Probe:
    """What short passes show of a model.

    Attributes:
        shown: of each call of a module that they had and that returned numbers.
        shapes: of those, on 2 samples.
        random_from: the first layer in which two passes on the same samples differ, or None.
    """

    shown: dict[Call, ProbedAxes]
    shapes: Mapping[Call, tuple[int, ...]]
    random_from: str | None
    _few: dict[Call, Glimpse]

    def check(self, call: Call, axis: SampleAxis, x: Tensor, n: int) -> None:
        """Do the first samples of the batch that was looked at have their own rows in it?

        Few samples can agree by chance: what is sorted may lie in order.

        Args:
            call: one that holds samples; it is asked for once.
            axis: theirs.
            x: its output for the whole batch.
            n: number of samples in it.

        Raises:
            LeftOutError: they do not; who asks `shown` from now on learns the same.
        """
        few = self._few.pop(call, None)
        if few is None:
            return
        one, other = axis.bring(few.values, FEW), axis.bring(few.same_of(x, axis.axis), n)
        if one is None or other is None or one.shape[1:] != other.shape[1:]:
            return
        why = None
        if not axis.folded:
            why = ANOTHER_ORDER if few.elsewhere(one, other) else None
        elif few.distance(one.flatten(0, 1), other[:FEW].flatten(0, 1)) > NEAR:
            why = WHOSE
        if why is not None:
            self.shown[call] = ProbedAxes(why_not=why)
            raise LeftOutError(*why.args)

    def meet(self, call: Call, x: Tensor, n: int) -> None:
        """Every output of the batch that is looked at, before anything is made of it."""


class Presumed(Probe):
    """What a pass on 2 samples alone lets one presume: that all samples lie along the first axis.

    The first batch has to show it: of each output that is not as large as on 2 samples the first
    axis, and no other, is to follow their number, and each module is to run as often.

    Attributes:
        agrees: did the batch do the same with the samples that the pass had?
    """

    def __init__(self, few: dict[Call, Glimpse], times: Counter[str]) -> None:
        shapes = {call: output.shape for call, output in few.items()}
        super().__init__(dict.fromkeys(few, ProbedAxes((SampleAxis(),))), shapes, None, dict(few))
        self.agrees = True
        self._times = times
        self._followed = self._doubted = False

    def meet(self, call: Call, x: Tensor, n: int) -> None:
        """Does it have the shape that was presumed?

        Raises:
            NoFeaturesError: it is as large as on 2 samples.
        """
        shape = self.shapes.get(call)
        if shape is None:
            return
        if tuple(x.shape) == shape:
            self.shown[call] = same_size(shape, n)
            raise NoFeaturesError(str(self.shown[call].why_not))
        sizes = list(zip(shape, x.shape, strict=False))
        following = [a * n == b * FEW for a, b in sizes]  # others may be padded otherwise
        follows = x.dim() == len(shape) and following[0] and not any(following[1:])
        self._followed |= follows
        self._doubted |= not follows

    def check(self, call: Call, axis: SampleAxis, x: Tensor, n: int) -> None:
        """Are the first samples where they were, as they were? Otherwise as for `Probe`."""
        few = self._few.pop(call, None)
        if few is None or self._doubted:
            return
        one, other = few.values, few.same_of(x, axis.axis)
        sizes = zip(one.shape[1:], other.shape[1:], strict=True)
        shared = (slice(None), *(slice(min(pair)) for pair in sizes))
        one, other = one[shared], other[shared]
        if few.distance(one, other[:FEW]) <= few.tolerance:
            return
        self.agrees = False
        if few.elsewhere(one, other):
            self.shown[call] = ProbedAxes(why_not=ANOTHER_ORDER)
            raise LeftOutError(*ANOTHER_ORDER.args)

    def holds(self, calls: dict[str, int], n: int) -> bool:
        """Has the batch shown what was presumed?

        Args:
            calls: how often the batch had each module that was asked for, 0 included.
            n: number of samples in it.
        """
        times = {name: self._times[name] for name in calls}
        self.agrees &= times == calls
        looped = any(k and k * n == calls[name] * FEW for name, k in times.items())
        return self._followed and not self._doubted and not looped
