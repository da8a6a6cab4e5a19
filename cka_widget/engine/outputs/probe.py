"""Passes of a model on 2 and on 3 samples: which axis of each output follows the number."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cka_widget.engine.data.batches import head, map_tensors
from cka_widget.engine.errors import LeftOutError, NoFeaturesError
from cka_widget.engine.models.layers import named_layers
from cka_widget.engine.outputs.features import values_of
from cka_widget.engine.outputs.glimpse import FEW, MORE, Glimpse
from cka_widget.engine.outputs.probed import (
    ANOTHER_ORDER,
    NEAR,
    WHOSE,
    Call,
    Presumed,
    Probe,
    same_size,
)
from cka_widget.engine.outputs.sample_axis import ProbedAxes, SampleAxis
from cka_widget.engine.restoring.hooks import Hooks
from cka_widget.engine.restoring.random_state import RandomState
from cka_widget.engine.restoring.rewind import Before

Look = Callable[[Any], Tensor]

# A model that draws random numbers runs up to so many times more: its outputs may differ.
_TRIES = 8
_IN_A_LOOP = ProbedAxes(why_not=LeftOutError("it runs anew for each sample, and not once for all"))


def probe(
    root: nn.Module,
    run: Callable[[Any], Any],
    batch: Any,
    look: Look = lambda output: values_of(output)[0],
    n: int | None = None,
    *,
    presume: bool = False,
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
        presume: leave out the 3 samples where the model draws nothing and all outputs have 2
            entries: its first batch will show as well as they whether these are the samples.

    Returns:
        Probe; `Presumed` where the batch is to confirm it; None where the model cannot run on so
        few samples, or nothing follows their number.
    """
    passes, chance = _Passes(root, run, look), RandomState()
    try:
        few = passes(head(batch, FEW, n))
        if passes.first:  # what it has registered came after our hooks, and may change outputs
            few = passes(head(batch, FEW, n))
        elif presume and _plain(few) and chance == RandomState():
            return Presumed(few, passes.calls)
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


def _plain(few: Mapping[Call, Glimpse]) -> bool:
    """Can the first axis of all outputs on 2 samples be the samples'?"""
    return bool(few) and all(output.shape[:1] == (FEW,) for output in few.values())


def random_from(
    root: nn.Module, run: Callable[[Any], Any], batch: Any, look: Look, n: int | None = None
) -> str | None:
    """The first layer in which two passes on 2 samples differ, if any; arguments of `probe`."""
    passes = _Passes(root, run, look)
    try:
        few = passes(head(batch, FEW, n))
        return next(_parted(few, passes(head(batch, FEW, n), like=few)), None)
    except Exception:
        return None


def _parted(one: Mapping[Call, Glimpse], other: Mapping[Call, Glimpse]) -> Iterator[str]:
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


class _Passes:
    """Runs the model with hooks of its own, which act in this thread only.

    Attributes:
        first: has the last pass changed the model for good, as the first of some models does?
        calls: how often it called each module.
    """

    def __init__(self, root: nn.Module, run: Callable[[Any], Any], look: Look) -> None:
        self._root, self._run, self._look = root, run, look
        self._modules, self._before = named_layers(root), Before(root)
        self.first = False
        self.calls: Counter[str] = Counter()

    def __call__(self, batch: Any, like: Mapping[Call, Glimpse] | None = None) -> dict[Call, Any]:
        found: dict[Call, Glimpse] = {}
        calls = self.calls = Counter()
        thread = threading.get_ident()

        def hook(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
            if threading.get_ident() != thread:
                return
            calls[name] += 1
            call = name, calls[name]
            try:
                x = self._look(output)
            except NoFeaturesError:
                return
            found[call] = Glimpse(x, like.get(call) if like else None)

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


def _compare(few: Glimpse, more: Glimpse, drawn: bool) -> tuple[ProbedAxes, bool]:
    """What two outputs show, and whether they agree about the samples that they share.

    `drawn`: the model drew random numbers.
    """
    if few.shape == more.shape:
        return same_size(few.shape, MORE), True
    found: list[tuple[float, SampleAxis]] = []
    unsure: LeftOutError | None = None
    sizes = zip(few.shape, more.shape, strict=False)
    for axis, (a, b) in enumerate(sizes if len(few.shape) == len(more.shape) else ()):
        if not a or a % FEW or a * MORE != b * FEW:
            continue
        order = _order(few, more, axis, a // FEW, drawn)
        if order is None:
            unsure = unsure or (WHOSE if a > FEW else ANOTHER_ORDER)
        found += [order] if order else []
    # In tables of samples by samples, for instance, several axes follow the number of samples.
    found.sort(key=lambda candidate: candidate[0] > few.tolerance)
    if found:
        return ProbedAxes(tuple(axis for _, axis in found)), found[0][0] <= few.tolerance
    return ProbedAxes(
        why_not=unsure
        or LeftOutError(
            f"its entries are no fixed number a sample: its output is {few.shape} for {FEW} "
            f"samples, and {more.shape} for {MORE}"
        )
    ), True


def _order(
    few: Glimpse, more: Glimpse, axis: int, k: int, drawn: bool
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

    # The sample outermost is the rule, innermost the next; all others are rare.
    distances = {1: apart(1)}
    disagree = distances[1] > few.tolerance
    if k == 1 and not drawn and disagree and few.elsewhere(x[shared], y[shared]):
        return None
    if k > 1 and disagree:
        for outer in (k, *(i for i in range(2, k) if k % i == 0)):
            distances[outer] = apart(outer)
    best = min(distances, key=distances.__getitem__)
    least, *following = sorted(distances.values())
    # Tokens that are sorted by the expert that they go to are in the order of samples in part.
    most = following[0] / 2 if drawn and following else NEAR
    if following and least > max(few.tolerance, most):
        return None
    return least, SampleAxis(axis, best, k // best)
