"""What passes on a few samples of the first batch showed of every model, for all its particles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from cka_widget.engine.calls.masks import masks_of, shortened, two_sided
from cka_widget.engine.data.batches import divisible
from cka_widget.engine.outputs.capture import Capture
from cka_widget.engine.outputs.features import Reduce
from cka_widget.engine.outputs.glimpse import MORE
from cka_widget.engine.outputs.probe import probe, random_from, resized_calls
from cka_widget.engine.outputs.probed import Call, Presumed, Probe

# By a mask's name, the calls of modules whose tokens it marks.
Masked = dict[str, set[Call]]


class ShortPasses:
    """Runs each model's first particle on a few samples, and tells the captures what that showed.

    Args:
        reduce: how outputs become features; means and last tokens need to know the masks' tokens.
    """

    def __init__(self, reduce: Reduce) -> None:
        self._needs_masks = reduce in ("mean", "last")
        self._found: dict[str, tuple[Probe | None, Masked]] = {}
        self._disproved: set[str] = set()  # models of which nothing is to be presumed

    def inform(
        self,
        model: str,
        capture: Capture,
        root: nn.Module,
        run: Callable[[Any], Any],
        batch: Any,
        n: int,
    ) -> None:
        """Tell a capture where samples are; the model runs if none of its particles has.

        Args:
            model: its name.
            capture: of one of its particles.
            root: whose modules are hooked.
            run: runs the particle on a batch.
            batch: the first one.
            n: number of samples in it.
        """
        if model not in self._found:
            found: tuple[Probe | None, Masked] = None, {}
            if n >= MORE and divisible(batch, n):
                presume = capture.confirms and model not in self._disproved
                found = self._look(capture, root, run, batch, n, presume=presume)
                capture.detach()  # and behind the hooks that the model's first pass registers
                capture.attach()
            self._found[model] = found
        capture.probe, capture.masked = self._found[model]

    def confirm(
        self,
        model: str,
        capture: Capture,
        root: nn.Module,
        run: Callable[[Any], Any],
        batch: Any,
        n: int,
    ) -> bool:
        """Has the first batch shown what was presumed of a model? Arguments as for `inform`.

        If not, what the capture holds may be no samples, and `inform` is to look at the model anew.
        """
        found, masked = self._found[model]
        if not isinstance(found, Presumed):
            return True
        calls = {name: capture.calls[name] for name in capture.choice.modules}
        if not found.holds(calls, n):
            self._disproved.add(model)
            del self._found[model]
            return False
        parted = None if found.agrees else random_from(root, run, batch, capture.look, n)
        self._found[model] = Probe(found.shown, found.shapes, parted, {}), masked
        return True

    def _look(
        self,
        capture: Capture,
        root: nn.Module,
        run: Callable[[Any], Any],
        batch: Any,
        n: int,
        *,
        presume: bool,
    ) -> tuple[Probe | None, Masked]:
        found = probe(root, run, batch, capture.look, n, presume=presume)
        masked: Masked = {}
        for name in masks_of(batch) if self._needs_masks else ():
            other = shortened(batch, name)
            calls = None
            if found is not None and other is not None:
                calls = resized_calls(root, run, other, found.shapes, capture.look, n)
            if calls is not None or two_sided(batch):
                masked[name] = calls or set()
        return found, masked

    def forget(self) -> None:
        """Let every model run again: the number of samples was another one."""
        self._found.clear()

    def warnings(self) -> Iterator[str]:
        """A sentence for every model that gives other outputs when it runs again."""
        for model, (found, _) in self._found.items():
            if found is not None and found.random_from is not None:
                yield (
                    f'Model "{model}" is random in evaluation mode: two passes over the same '
                    f'samples differ from layer "{found.random_from}" on, so that its scores are '
                    "those of one draw; switch its dropout, sampling or layer drop off."
                )
