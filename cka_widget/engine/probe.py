"""Passes of a model on 2 and on 3 samples: which axis of each output follows the number."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cka_widget.engine.batches import head, map_tensors
from cka_widget.engine.errors import LeftOutError, NoRowsError
from cka_widget.engine.features import values_of
from cka_widget.engine.hooks import Hooks
from cka_widget.engine.layers import named_layers
from cka_widget.engine.random_state import RandomState
from cka_widget.engine.rewind import Before
from cka_widget.engine.sample_axis import SampleAxis, Shown

Call = tuple[str, int]  # a module's name, and the number of its call from 1
Look = Callable[[Any], Tensor]

FEW, MORE = 2, 3

# At most so many entries of an output are kept along its first axis, and numbers of each entry.
_ENTRIES, _NUMBERS = 4096, 1024
# Until the first batch comes, only so many entries are kept along all axes but the samples'.
_CORNER = 8
# Distance of the same samples in two passes, over their spread, that rounding can add up to.
_NEAR = 0.02
# A model that draws random numbers runs up to so many times more: its outputs may differ.
_TRIES = 8
_WHOSE = LeftOutError(
    "it has several rows a sample, and passes on few samples do not show which of them belong to "
    "one"
)
_ANOTHER_ORDER = LeftOutError(
    "its rows are the samples in another order than the batch's; sort them in the loader instead"
)
_IN_A_LOOP = Shown(why_not=LeftOutError("it runs anew for each sample, and not once for all"))


@dataclass(frozen=True)
class Probe:
    """What short passes show of a model.

    Attributes:
        shown: of each call of a module that they had and that returned numbers.
        shapes: of those, on 2 samples.
        random_from: the first layer in which two passes on the same samples differ, or None.
    """

    shown: dict[Call, Shown]
    shapes: Mapping[Call, tuple[int, ...]]
    random_from: str | None
    _few: dict[Call, _Output]

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
            why = _ANOTHER_ORDER if few.elsewhere(one, other) else None
        elif few.distance(one.flatten(0, 1), other[:FEW].flatten(0, 1)) > _NEAR:
            why = _WHOSE
        if why is not None:
            self.shown[call] = Shown(why_not=why)
            raise LeftOutError(*why.args)


def probe(
    root: nn.Module,
    run: Callable[[Any], Any],
    batch: Any,
    look: Look = lambda output: values_of(output)[0],
    n: int | None = None,
) -> Probe | None:
    """Run a model on the first 2 and the first 3 samples of a batch, and leave it as it was.

    More passes, on 2 samples, come where the first two disagree about the samples they share, or
    drew random numbers.

    Args:
        root: the model.
        run: runs the model on a batch, in evaluation mode, without keeping what it returns.
        batch: of 3 samples at least; the model gets copies of its tensors.
        look: the tensor of a module's output whose axes count.
        n: number of samples of the batch; None counts them.

    Returns:
        Probe; None where the model cannot run on so few samples, or nothing follows their number.
    """
    passes, chance = _Passes(root, run, look), RandomState()
    try:
        few = passes(head(batch, FEW, n))
        if passes.first:  # what it has registered came after our hooks, and may change outputs
            few = passes(head(batch, FEW, n))
        more = passes(head(batch, MORE, n), like=few)
        drawn = chance != RandomState()
        shown, agree = {}, few.keys() == more.keys()
        for call in few.keys() & more.keys():
            shown[call], same = _compare(few[call], more[call], drawn)
            agree &= same
        times = [Counter(name for name, _ in calls) for calls in (few, more)]
        looped = {name for name, k in times[0].items() if k * MORE == times[1][name] * FEW}
        shown |= {call: _IN_A_LOOP for call in few if call[0] in looped}
        parted = None
        # A model that draws random numbers may happen to do the same twice.
        for _ in range(_TRIES if drawn else not agree):
            parted = parted or next(_parted(few, passes(head(batch, FEW, n), like=few)), None)
    except Exception:  # whatever a model's code raises: it will be run on its batches all the same
        return None
    finally:
        chance.restore()
    if not any(found.axes for found in shown.values()):
        return None
    shapes = {call: few[call].shape for call in shown}
    corners = {
        call: few[call].corner(found.axes[0].axis)
        for call, found in shown.items()
        if not drawn and found.axes
    }
    return Probe(shown, shapes, parted, corners)


def _parted(one: Mapping[Call, _Output], other: Mapping[Call, _Output]) -> Iterator[str]:
    """Layers that two passes on the same samples do not share, in the order of their calls."""
    for call, output in one.items():
        if call not in other or not output.equals(other[call]):
            yield call[0]
    yield from (call[0] for call in other if call not in one)


def resized_calls(
    root: nn.Module,
    run: Callable[[Any], Any],
    batch: Any,
    shapes: Mapping[Call, tuple[int, ...]],
    look: Look,
    n: int | None = None,
) -> set[Call] | None:
    """The calls whose outputs have other shapes for the first 2 samples of another batch.

    Args:
        root: the model.
        run: as for `probe`.
        batch: the other one.
        shapes: what `probe` found.
        look: as for `probe`.
        n: as for `probe`.

    Returns:
        Calls; None where the model cannot run on it.
    """
    try:
        found = _Passes(root, run, look)(head(batch, FEW, n))
    except Exception:
        return None
    return {call for call, output in found.items() if output.shape != shapes.get(call)}


class _Output:
    """The shape of one call's output, and numbers that lie evenly over it."""

    def __init__(self, x: Tensor, like: _Output | None) -> None:
        self.shape = tuple(x.shape)
        self.steps: tuple[int, ...] = _steps(self.shape)
        if like is not None and len(like.steps) == len(self.steps):
            self.steps = like.steps
        # Kernels for another number of samples round otherwise.
        self.rounding = 4 * torch.finfo(x.dtype).eps
        self.tolerance = math.sqrt(torch.finfo(x.dtype).eps)
        x = x.detach()[tuple(slice(None, None, step) for step in self.steps)]
        self.values = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)

    def corner(self, axis: int) -> _Output:
        """Keep only the beginning of every axis besides this one; returns itself."""
        kept = (slice(None if i == axis else _CORNER) for i in range(self.values.dim()))
        self.values = self.values[tuple(kept)].clone()
        return self

    def same_of(self, x: Tensor, axis: int) -> Tensor:
        """The numbers of another output, of any number of samples, that `corner` keeps of this."""
        if x.dim() != self.values.dim():
            return x[:0]
        sizes = enumerate(zip(self.values.shape, self.steps, strict=True))
        kept = (slice(None, None if i == axis else a * step, step) for i, (a, step) in sizes)
        return x.detach()[tuple(kept)].to(self.values.dtype)

    def elsewhere(self, one: Tensor, other: Tensor) -> bool:
        """Are the samples (2, ...) of this pass found in another (n, ...), at other places?"""
        if self.distance(one, other[:FEW]) <= self.tolerance:
            return False
        x, y = one.flatten(1), other.flatten(1)
        places = [int((y - row).abs().mean(1).argmin()) for row in x]
        apart = self.distance(x, y[places])
        return len(set(places)) == FEW and places != [0, 1] and apart <= self.tolerance

    def equals(self, other: _Output) -> bool:
        """Did another pass on the same samples give the same?"""
        same = self.values.shape == other.values.shape
        return same and self.distance(self.values, other.values) <= self.tolerance

    def distance(self, x: Tensor, y: Tensor) -> float:
        """Mean difference of two parts (n, ...) over the spread of the first."""
        if torch.equal(x, y):
            return 0.0
        difference, size = (x - y).abs().mean(), x.abs().mean()
        if difference <= self.rounding * size:
            return 0.0
        if not torch.isfinite(difference):  # NaN counts as a number
            x, y = x.nan_to_num(posinf=0.0, neginf=0.0), y.nan_to_num(posinf=0.0, neginf=0.0)
            difference = (x - y).abs().mean()
        spread = (x - x.mean(0)).abs().mean().clamp(min=torch.finfo(x.dtype).tiny)
        return float(difference / spread)


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    most = int(_NUMBERS ** (1 / max(1, len(shape) - 1)))
    limits = [_ENTRIES, *[most] * (len(shape) - 1)]
    return tuple(max(1, -(-size // limit)) for size, limit in zip(shape, limits, strict=False))


class _Passes:
    """Runs the model with hooks of its own, which act in this thread only.

    Attributes:
        first: has the last pass changed the model for good, as the first of some models does?
    """

    def __init__(self, root: nn.Module, run: Callable[[Any], Any], look: Look) -> None:
        self._root, self._run, self._look = root, run, look
        self._modules, self._before = named_layers(root), Before(root)
        self.first = False

    def __call__(self, batch: Any, like: Mapping[Call, _Output] | None = None) -> dict[Call, Any]:
        found: dict[Call, _Output] = {}
        calls: Counter[str] = Counter()
        thread = threading.get_ident()

        def hook(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
            if threading.get_ident() != thread:
                return
            calls[name] += 1
            call = name, calls[name]
            try:
                x = self._look(output)
            except NoRowsError:
                return
            found[call] = _Output(x, like.get(call) if like else None)

        hooks = Hooks()
        try:
            for name, module in self._modules.items():
                hooks.after(module, partial(hook, name))
            with torch.no_grad():
                self._run(map_tensors(batch, Tensor.clone))
        finally:
            try:
                hooks.remove()
            finally:  # once more, where an exception that another thread sent has torn it
                hooks.remove()
                self._rewind()
        return found

    def _rewind(self) -> None:
        restored = False
        try:
            restored = self._before.restore()
        finally:  # once more, for the same reason
            self.first = not (restored or self._before.restore())
            if self.first:
                self._before = Before(self._root)


def _compare(few: _Output, more: _Output, drawn: bool) -> tuple[Shown, bool]:
    """What two outputs show, and whether they agree about the samples that they share.

    `drawn`: the model drew random numbers.
    """
    if few.shape == more.shape:
        why = NoRowsError(
            f"it has no rows of samples: its output {few.shape} is as large for {FEW} samples as "
            f"for {MORE}"
        )
        return Shown(why_not=why, size=few.shape), True
    found: list[tuple[float, SampleAxis]] = []
    unsure: LeftOutError | None = None
    sizes = zip(few.shape, more.shape, strict=False)
    for axis, (a, b) in enumerate(sizes if len(few.shape) == len(more.shape) else ()):
        if not a or a % FEW or a * MORE != b * FEW:
            continue
        order = _order(few, more, axis, a // FEW, drawn)
        if order is None:
            unsure = unsure or (_WHOSE if a > FEW else _ANOTHER_ORDER)
        found += [order] if order else []
    # In tables of samples by samples, for instance, several axes follow the number of samples.
    found.sort(key=lambda candidate: candidate[0] > few.tolerance)
    if found:
        return Shown(tuple(axis for _, axis in found)), found[0][0] <= few.tolerance
    return Shown(
        why_not=unsure
        or LeftOutError(
            f"its rows are no fixed number a sample: its output is {few.shape} for {FEW} samples, "
            f"and {more.shape} for {MORE}"
        )
    ), True


def _order(
    few: _Output, more: _Output, axis: int, k: int, drawn: bool
) -> tuple[float, SampleAxis] | None:
    """How an axis numbers k entries of each sample, and how far the shared samples are apart."""
    x, y = few.values.movedim(axis, 0), more.values.movedim(axis, 0)
    if x.shape[0] != FEW * k or y.shape[0] != MORE * k:  # so long an axis is not kept whole
        return (0.0, SampleAxis(axis)) if k == 1 else None
    others = tuple(slice(min(sizes)) for sizes in zip(x.shape[1:], y.shape[1:], strict=True))
    shared = (slice(None), *others)

    def apart(outer: int) -> float:
        one, other = (
            t[shared].reshape(outer, n, k // outer, -1)[:, :FEW].flatten(0, 2)
            for t, n in ((x, FEW), (y, MORE))
        )
        return few.distance(one, other)

    if k == 1 and not drawn and few.elsewhere(x[shared], y[shared]):
        return None
    # The sample outermost is the rule, innermost the next; all others are rare.
    distances = {1: apart(1)}
    if k > 1 and distances[1] > few.tolerance:
        for outer in (k, *(i for i in range(2, k) if k % i == 0)):
            distances[outer] = apart(outer)
    best = min(distances, key=distances.__getitem__)
    least, *following = sorted(distances.values())
    # Tokens that are sorted by the expert that they go to are in the order of samples in part.
    most = following[0] / 2 if drawn and following else _NEAR
    if following and least > max(few.tolerance, most):
        return None
    return least, SampleAxis(axis, best, k // best)
