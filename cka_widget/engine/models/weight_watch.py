"""Whether somebody trains a model while a run goes over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.nn.parameter import is_lazy

from cka_widget.engine.models.particles import Pass

# A weight's version, which in-place operations count, and where its numbers lie.
_Mark = tuple[int, int] | None


class WeightWatch:
    """Notes the models whose weights are no more what they were when it was made.

    It looks at versions and places, never at numbers: what is written through `.data` into the
    same memory goes unseen.
    """

    def __init__(self, passes: Iterable[Pass]) -> None:
        self._passes = list(passes)
        self._before = [_marks(run) for run in self._passes]
        self._changed: dict[str, None] = {}
        self._ended = False

    def end(self) -> None:
        """Look a last time: from now on the weights may move, and be trained."""
        self._look()
        self._ended = True

    def _look(self) -> None:
        if self._ended:
            return
        for run, before in zip(self._passes, self._before, strict=True):
            pairs = zip(before, _marks(run), strict=False)
            if any(old is not None and old != new for old, new in pairs):
                self._changed[run.model] = None

    def warnings(self) -> Iterator[str]:
        """A sentence for every model that changed."""
        self._look()
        for name in self._changed:
            yield (
                f'The weights of model "{name}" changed while the run went over the data: its '
                "scores mix what it was before and after. Compare a copy (copy.deepcopy) of a "
                "model that is being trained."
            )


def _marks(run: Pass) -> list[_Mark]:
    names = dict(run.root.named_parameters())
    if run.state is None:
        return [_mark(weight) for weight in names.values()]
    return [_mark(tensor) for name, tensor in run.state.items() if name in names]


def _mark(weight: Tensor) -> _Mark:
    # Weights that are not there yet, or come for their own pass alone, have no place to keep.
    if is_lazy(weight) or weight.is_meta or weight.is_inference():
        return None
    try:
        return weight._version, weight.data_ptr()
    except RuntimeError:  # a tensor of a class of its own, without memory of its own
        return None
