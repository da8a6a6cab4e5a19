"""Forward hooks that turn every chosen output into a Gram before the next module can run."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cka_widget.engine.errors import LeftOutError, NoFeaturesError
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.models.layers import Choice
from cka_widget.engine.models.particles import Pass
from cka_widget.engine.models.vmap import unmapped
from cka_widget.engine.outputs.features import Reduce, Samples, by_sample, features, values_of
from cka_widget.engine.outputs.layer_warnings import Notes
from cka_widget.engine.outputs.output_types import tensor_of
from cka_widget.engine.outputs.probed import Probe
from cka_widget.engine.outputs.reductions import needs_mask, tokens
from cka_widget.engine.outputs.sample_axis import ProbedAxes, SampleAxis, SampleFinder
from cka_widget.engine.restoring.hooks import Hooks


@dataclass
class Entry:
    """One output of a forward pass: the rows it fills (one a particle), or why it fills none."""

    name: str
    call: int
    samples: SampleFinder  # where the output has them
    rows: list[int] = field(default_factory=list)
    reason: str | None = None
    aliases: list[tuple[str, int]] = field(default_factory=list)  # other outputs, same tensor

    def shown(self) -> tuple[str, int]:
        """Name and call it is labelled by: the outermost container that returned it."""
        outer = [alias for alias in self.aliases if self.name.startswith(f"{alias[0]}.")]
        return outer[-1] if outer else (self.name, self.call)


class Capture:
    """The outputs of one forward pass: found on the first batch, refilled on all later ones.

    Attributes:
        probe: what is known before the first batch of where samples are, if anything.
        masked: for masks by name the calls whose tokens they mark, as far as that is known.
        confirms: can outputs be held against those of short passes? Not where vmap shows them.
    """

    def __init__(
        self,
        run: Pass,
        choice: Choice,
        stack: GramStack,
        reduce: Reduce = "flatten",
    ) -> None:
        self.choice = choice
        self.entries: dict[tuple[str, int], Entry] = {}
        self.notes = Notes()
        self.calls: Counter[str] = Counter()
        self.found = False
        self.probe: Probe | None = None
        self.masked: Mapping[str, set[tuple[str, int]]] = {}
        self.confirms = run.mapped is None
        self._stack = stack
        self._reduce = reduce
        self._axis = run.particle_axis
        self._mapped = run.mapped
        self._dropped: set[tuple[str, int]] = set()
        self._hooks = Hooks()
        self._thread: int | None = None
        self._n = 0
        self._masks: Mapping[str, Tensor] = {}
        self._seen: dict[int, tuple[weakref.ref[Tensor], int, Entry]] = {}

    def attach(self) -> None:
        """Register the hooks; they act only within `recording`."""
        for name, module in self.choice.modules.items():
            self._hooks.after(module, self._hook(name))

    def detach(self) -> None:
        """Remove the hooks."""
        self._hooks.remove()

    @contextmanager
    def recording(self, n: int, masks: Mapping[str, Tensor]) -> Iterator[None]:
        """Around one call of the model on a batch of n samples, in this thread only.

        `masks` (n, tokens) say which tokens count.
        """
        self.calls.clear()
        self._n, self._masks = n, masks
        # What a batch too small for a block shows must not become a layer's reason.
        useful = bool(self._stack.segments) or not self.found
        self._thread = threading.get_ident() if useful else None
        try:
            yield
        finally:
            self._thread, self._masks = None, {}
            self._seen.clear()
        self.found = True

    def unproved(self) -> list[str]:
        """Layers with rows that may not be samples, as far as batches have shown."""
        return [
            entry.name
            for entry in self.entries.values()
            if self._stack.segments
            and entry.rows
            and not entry.samples.proved
            and entry.reason is None
        ]

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._thread != threading.get_ident():
                return
            # Models that need gradients switch them on for themselves.
            with torch.no_grad() if torch.is_grad_enabled() else nullcontext():
                self._take(name, module, output)

        return hook

    def _take(self, name: str, module: nn.Module, output: Any) -> None:
        self.calls[name] += 1
        key = (name, self.calls[name])
        if not self.choice.wants(*key):
            return
        entry = self.entries.get(key)
        if self.found and entry is None and key not in self._dropped:
            self.notes.unknown_call(*key)
            return
        tensor = tensor_of(output)
        if self._mapped is not None and tensor is not None:
            tensor, _ = unmapped(tensor)  # in-place operations count their versions there
        source = self._source(tensor)
        if key in self._dropped:
            if source is None or key not in source.aliases:
                self.notes.own_tensor(name)
            return
        if source is not None and not self.found and self.choice.distinct:
            source.aliases.append(key)
            self._dropped.add(key)
            return
        if entry is None:
            entry = self.entries[key] = Entry(*key, SampleFinder(self._shown(key)))
        if self.found and not entry.rows:
            pass  # it has no row to fill, but its aliases are still known by it
        elif source is not None and source.rows and source.reason is None:
            self._copy(entry, source)
        else:
            self._fill(entry, module, output)
        self._remember(tensor, entry)

    def _shown(self, key: tuple[str, int]) -> ProbedAxes | None:
        if self.probe is None:
            return None
        # Calls that few samples do not need are like the module's first.
        return self.probe.shown.get(key) or self.probe.shown.get((key[0], 1))

    def look(self, output: Any) -> Tensor:
        """The tensor of an output, of one particle, whose axes tell where samples are.

        Raises:
            NoFeaturesError: there is none.
        """
        return values_of(self._particles(output)[0])[0]

    def _fill(self, entry: Entry, module: nn.Module, output: Any) -> None:
        try:
            found: Sequence[Tensor] | Tensor = [
                self._features(x, entry, module) for x in self._particles(output)
            ]
        except NoFeaturesError as error:
            entry.reason = str(error)
            if self.found:
                self.notes.disproved(entry.name)
            elif isinstance(error, LeftOutError):
                self.notes.left_out(entry.name, entry.reason)
            return
        if self._mapped is not None:
            found = self._of_all(found[0])
        if not entry.rows:
            entry.rows = [self._stack.add_row() for _ in found]
        self._stack.put_all(entry.rows, found)

    def _features(self, output: Any, entry: Entry, module: nn.Module) -> Tensor:
        if not self.found and self.probe is not None and self.confirms:
            self.probe.meet((entry.name, entry.call), values_of(output)[0], self._n)
        found = by_sample(output, self._n, entry.samples, self._reduce, module)
        if not self.found:
            self._check(entry, output)
            self._note_steps(entry, found, module)
        return features(found, self._reduce, self._mask(found, entry) if self._masks else None)

    def _check(self, entry: Entry, output: Any) -> None:
        if self.probe is not None and self.confirms:
            axis = entry.samples.axis or SampleAxis()  # packed and nested ones have no other
            x = values_of(output)[0]
            self.probe.check((entry.name, entry.call), axis, x, self._n)

    def _note_steps(self, entry: Entry, found: Samples, module: nn.Module) -> None:
        """A recurrent or attention layer may take the samples for its steps."""
        first = getattr(module, "batch_first", None)
        axis = entry.samples.axis
        if first is None or axis is None or found.values.dim() != 3 or found.kept is not None:
            return
        if axis.axis != (0 if first else 1):
            self.notes.steps(entry.name, batch_first=first)

    def _mask(self, found: Samples, entry: Entry) -> Tensor | None:
        """The mask of the output's tokens, where that matters and it does not know by itself."""
        if found.kept is not None or not needs_mask(self._reduce, found.values):
            return None
        shape = tokens(found.values, found.module).shape[:2]
        for name, mask in self._masks.items():
            marked = self.masked.get(name)
            if mask.shape == shape and (marked is None or (entry.name, entry.call) in marked):
                return mask
        self.notes.unmasked(entry.name)
        return None

    def _copy(self, entry: Entry, source: Entry) -> None:
        if not entry.rows:
            entry.rows = [self._stack.add_row() for _ in source.rows]
        for row, other in zip(entry.rows, source.rows, strict=True):
            self._stack.copy(row, other)

    def _of_all(self, x: Tensor) -> Tensor:
        """Features of all particles (P, n, d), where vmap shows those of one."""
        found, axis = unmapped(x)
        if axis is None:
            return found.expand(self._mapped or 1, *found.shape)
        return found.movedim(axis, 0)

    def _particles(self, output: Any) -> tuple[Any, ...]:
        if self._axis is None:
            return (output,)
        tensor = tensor_of(output)
        if tensor is None or tensor.is_nested or tensor.dim() < 3:
            raise NoFeaturesError("its output has no particle axis")
        return tensor.movedim(self._axis, 0).unbind(0)

    def _source(self, tensor: Tensor | None) -> Entry | None:
        known = self._seen.get(id(tensor))
        # An id may be used again after its tensor died, and in-place ops change a tensor.
        if known and known[0]() is tensor and known[1] == _version(tensor):
            return known[2]
        return None

    def _remember(self, tensor: Tensor | None, entry: Entry) -> None:
        if tensor is not None and not tensor.is_inference():
            self._seen[id(tensor)] = (weakref.ref(tensor), tensor._version, entry)


def _version(tensor: Tensor | None) -> int | None:
    return None if tensor is None or tensor.is_inference() else tensor._version
