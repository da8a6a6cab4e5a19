"""The state of one run: hooks, Grams and sums, from the first batch to the result."""

from __future__ import annotations

import copy
import platform
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cka_widget.engine.calls.call_words import left_out_sentence, second_is_input
from cka_widget.engine.calls.calls import AsUsual, Call, Forwards, as_call, forward_of
from cka_widget.engine.calls.masks import masks_of, unread_sentence
from cka_widget.engine.classes import Classes
from cka_widget.engine.cuda_graph.replay import Replay
from cka_widget.engine.data.batches import divisible
from cka_widget.engine.data.data_warnings import Diagnostics
from cka_widget.engine.data.prefetch import Loaded
from cka_widget.engine.devices import pick_device
from cka_widget.engine.errors import CompareError
from cka_widget.engine.grams import accelerator, allocator
from cka_widget.engine.grams.forming import Needs
from cka_widget.engine.grams.groups import Arrangement, Grouping, Groups
from cka_widget.engine.grams.memory import check
from cka_widget.engine.grams.stack import GramStack
from cka_widget.engine.interrupts import Shield
from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.measures.measure import Measure
from cka_widget.engine.models.failures import failing
from cka_widget.engine.models.input_guard import Copies
from cka_widget.engine.models.layers import Layers, choose, layers_of
from cka_widget.engine.models.particles import Pass, as_passes, bound
from cka_widget.engine.models.placement import Placement
from cka_widget.engine.models.weight_watch import WeightWatch
from cka_widget.engine.outputs.capture import Capture
from cka_widget.engine.outputs.features import Reduce
from cka_widget.engine.outputs.row_table import RowTable
from cka_widget.engine.outputs.samples import CountSamples, Samples, StepsFirst
from cka_widget.engine.outputs.short_passes import ShortPasses
from cka_widget.engine.pieces import Pieces, free_memory, lacked_memory
from cka_widget.engine.restoring.evaluating import eager
from cka_widget.engine.sample_facts import SampleFacts
from cka_widget.engine.summing.accumulator import Accumulator, MeasureSums
from cka_widget.engine.summing.neighbours import Neighbours
from cka_widget.engine.summing.products import is_plain
from cka_widget.result.measure_facts import Measured, MeasureFacts
from cka_widget.result.result import CKAResult
from cka_widget.result.sums import MIN_BLOCKS


class Session:
    """Entered, it holds the hooks and the models' evaluation mode; `step` takes one batch."""

    def __init__(
        self,
        models: Mapping[str, Any],
        *,
        layers: Layers | Mapping[str, Layers],
        forward: Forwards,
        samples: CountSamples | Mapping[str, CountSamples] | None,
        reduce: Reduce,
        measures: Sequence[Measure],
        hsic_batch_size: int | None,
        groups: Groups | None,
        precision: str | None,
        device: str | torch.device | None,
        particle_axis: int | Mapping[str, int | None] | None,
        vmap: bool,
        cuda_graph: bool,
    ) -> None:
        passes = bound(as_passes(models, particle_axis, vmap))
        self.models = list(passes)
        self._ensembles = {name for name, runs in passes.items() if len(runs) > 1}
        self.device = pick_device(device)
        self.batches = 0
        self.samples = 0
        self._forwards = {name: forward_of(forward, name) for name in self.models}
        self._as_usual = {
            name for name, own in self._forwards.items() if own is None or isinstance(own, AsUsual)
        }
        self._unlabelled: set[str] = set()  # models whose batches hold inputs in the labels' place
        self._samples_of = {name: self._counter(name, samples) for name in self.models}
        self._measures = list(measures)
        self._needs = Needs(
            min_samples=max(one.min_samples for one in measures),
            max_rho=min(one.max_rho for one in measures),
            raw=any(one.needs_raw for one in measures),
        )
        self._classes = Classes(measures, hsic_batch_size)
        self._precision = accelerator.resolve(precision, self.device)
        self.provenance: dict[str, Any] = {
            **_cka_options(measures),
            "hsic_batch_size": hsic_batch_size,
            "groups": groups is not None,
            "reduce": reduce if isinstance(reduce, str) else getattr(reduce, "__name__", "custom"),
            "device": str(self.device),
            "dtype": "float32",
            "precision": self._precision,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "run_ids": [uuid.uuid4().hex],
        }
        choices = {
            name: choose([p.root for p in runs], layers_of(layers, name), name)
            for name, runs in passes.items()
        }
        self._passes = [
            (run, choice)
            for name, runs in passes.items()
            for run, choice in zip(runs, choices[name], strict=True)
        ]
        self._reduce = reduce
        self._hsic_batch_size = hsic_batch_size
        self._grouping: Grouping | None = None
        if groups is not None:
            self._grouping = Grouping(groups, hsic_batch_size, self._needs.min_samples)
        self._placement = Placement([run for run, _ in self._passes], self.device)
        self._diagnostics = Diagnostics(self._needs.min_samples)
        self._table: RowTable | None = None
        self._sums: Accumulator | None = None
        self._pieces = Pieces(self.device, self._needs.min_samples)
        self._short_passes = ShortPasses(reduce)
        self._meanwhile: Callable[[], None] | None = None
        self._copies = Copies()
        self._weights: WeightWatch | None = None
        self.notes: list[str] = []  # what the result is to say of the run
        self.later_notes: Callable[[], list[str]] = list  # more, for the result
        self._cuda_graph = cuda_graph
        self.shield = Shield()  # Ctrl-C finds nothing half done between enter and exit
        self._prepare()

    def _counter(self, name: str, samples: Any) -> Samples:
        return Samples(
            forward_of(samples, name), None if name in self._as_usual else self._forwards[name]
        )

    def _prepare(self) -> None:
        """Empty captures, before the first batch or after one that did not fit."""
        self._stack = GramStack(
            self._needs,
            self._hsic_batch_size,
            self.device,
            precision=self._precision,
            capacity=self._likely_rows(),
        )
        self._captures = [
            (run, Capture(run, choice, self._stack, self._reduce)) for run, choice in self._passes
        ]
        self._replay = Replay(self._stack, self.device, self._placement)
        if self._grouping is not None:
            self._replay.refuse("groups= puts the samples of every batch in an order of its own")
        self._stack.formed.steady = self._cuda_graph and self._replay.refused is None

    def _likely_rows(self) -> int:
        """As far as can be told before a pass: every chosen module once, of every particle."""
        return sum(len(choice.modules) * (run.mapped or 1) for run, choice in self._passes)

    def __enter__(self) -> Session:
        if self.device.type == "cpu":
            allocator.keep_freed_memory()
        with ExitStack() as cleanup:
            cleanup.enter_context(self.shield)
            cleanup.callback(self.leave)
            self._placement.enter()
            if not self._placement.one_at_a_time:  # else weights come and go all the time
                self._weights = WeightWatch(run for run, _ in self._passes)
            self._attach()
            cleanup.pop_all()
        return self

    def _attach(self) -> None:
        for _, capture in self._captures:
            capture.attach()
        if self._placement.one_at_a_time:
            self._replay.refuse(f"they do not fit the memory of {self.device} together")

    def _detach(self) -> None:
        self._replay.forget()
        for _, capture in self._captures:
            capture.detach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.leave()
        finally:
            self.shield.__exit__(kind, error, traceback)

    def leave(self) -> None:
        """Remove the hooks and leave the models as found.

        Called again it ends what an exception that another thread sent has torn.
        """
        with ExitStack() as stack:
            stack.callback(self._placement.leave)
            if self._weights is not None:
                stack.callback(self._weights.end)
            self._detach()

    def step(self, loaded: Loaded, meanwhile: Callable[[], None] | None = None) -> None:
        """Run every particle once on its batch and add the blocks to the sums.

        Args:
            loaded: a batch for every model.
            meanwhile: called once while the device works on the batch.

        Raises:
            CompareError: a model failed; the sums hold all batches before this one.
        """
        given = list({id(batch): batch for batch in loaded.given.values()}.values())
        n = self._count(loaded)
        if self._table is None:
            self._note_left_out(loaded.given)
            self._check_memory(n, given)
        self._meanwhile = meanwhile
        before = copy.copy(self._sums), self.samples, self.batches
        try:
            try:
                self._take(loaded.placed, n, self._facts(given, n))
            except _Recounted as found:
                n = found.n
                for name, batch in loaded.given.items():
                    self._samples_of[name].learn(batch, n)
                self._short_passes.forget()
                self._begin_again()
                self._take(loaded.placed, n, self._facts(given, n))
            self.batches += 1
        except BaseException:  # of a batch that ran in pieces none counts without all others
            self._sums, self.samples, self.batches = before
            raise
        labelled = {id(b): b for m, b in loaded.given.items() if m not in self._unlabelled}
        order = None
        if self._grouping is not None:
            values = self._group_values(given[0], n)
            order = self._grouping.arrange(values, self.batches).order
            self._grouping.drawn(n)
        self._diagnostics.observe(list(labelled.values()), n, order)

    def _facts(self, given: list[Any], n: int) -> SampleFacts:
        groups = self._group_values(given[0], n)
        return SampleFacts(groups, self._classes.values(given, n, self.batches + 1))

    def _group_values(self, batch: Any, n: int) -> list[Hashable]:
        """The samples' groups, none where there is no `groups=`."""
        if self._grouping is None:
            return []
        return self._grouping.values(batch, n, self.batches + 1)

    def _check_memory(self, n: int, given: list[Any]) -> None:
        """Bound the Grams of large batches; raise where the rows cannot fit, before any pass."""
        rows = self._likely_rows()
        if self._grouping is None and all(divisible(batch, n) for batch in given):
            self._pieces.bound(rows, self._hsic_batch_size)
        size = self._hsic_batch_size
        if self._grouping is not None:
            size = min(size or n, len(set(self._group_values(given[0], n))))
        several = len(self._measures) > 1 or not is_plain(self._measures[0])
        check(
            rows,
            n,
            size,
            self._needs.min_samples,
            self.device,
            measures=len(self._measures),
            stacks=2 if several else 1,  # the Grams, and a measure's vectors
        )

    def _take(self, batches: Mapping[str, Any], n: int, facts: SampleFacts) -> None:
        """Run the batch, in near-equal pieces where it does not fit the device's memory."""
        for piece in self._pieces.of(batches, n, facts):
            self._take_piece(*piece)

    def _take_piece(self, batches: Mapping[str, Any], n: int, facts: SampleFacts) -> None:
        try:
            self._run_all(batches, n, facts)
        except _Disproved:
            self._begin_again()
            self._take_piece(batches, n, facts)
            return
        except Exception as error:
            if not lacked_memory(error):
                raise
            if not self._replay.holds and not self._pieces.can_halve(batches, n):
                raise
        else:
            return
        if self._replay.holds:
            self._replay.refuse(f"{self.device} has no memory for a recording beside the models")
        else:
            self._pieces.halve(n)
        if self._table is None:
            self._begin_again()
        free_memory(self.device)
        self._take(batches, n, facts)

    def _begin_again(self) -> None:
        """Forget what a first batch gave that did not end."""
        self._detach()
        self._prepare()
        self._attach()

    def _run_all(self, batches: Mapping[str, Any], n: int, facts: SampleFacts) -> None:
        arranged = None
        if self._grouping is not None:
            arranged = self._grouping.arrange(facts.groups, self.batches + 1)
        if self._table is not None and n < self._needs.min_samples:
            self._note(facts, arranged)
            return  # it adds nothing, and some models cannot run on so few
        with _modes():
            labels = self._classes.numbers(facts.classes)
            blocks = self._stack.begin(n, arranged, labels)
            if self._cuda_graph:
                self._replay.fill(self._calls(batches), lambda given: self._fill(given, n))
            else:
                self._fill(batches, n)
        self._note(facts, arranged)
        self._classes.note(
            labels, self._stack.segments, None if arranged is None else arranged.order
        )
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        with _modes():
            if self._table is None or self._sums is None:
                self._refuse_nothing()
                self._table = RowTable(self._captures)
                table = self._table
                self._sums = Accumulator(
                    self._measures, table.groups, table.owners, table.n_groups, self.device
                )
            if blocks:
                self._table.note_missing(self._stack.missing())
                self._sums.update(self._stack, lambda again: self._run_again(batches, n, again))
                self.samples += n if arranged is None else len(arranged.order)

    def _note(self, facts: SampleFacts, arranged: Arrangement | None) -> None:
        """Once for all that went in: what is begun again must not seem to cross batches."""
        if self._grouping is not None and arranged is not None:
            self._grouping.note(facts.groups, arranged)

    def _fill(self, batches: Mapping[str, Any], n: int) -> None:
        for run, capture in self._captures:
            self._run(run, capture, batches[run.model], n)

    def _calls(self, batches: Mapping[str, Any]) -> dict[str, Any]:
        """The batches without what is left out; models of one call share it."""
        made: dict[tuple[int, str], Call] = {}
        found = dict(batches)
        for run, _ in self._passes:
            if self._forwards[run.model] is None:
                call = as_call(batches[run.model], run.root)._replace(left_out=())
                key = id(batches[run.model]), f"{call.written} {list(call.kwargs)}"
                found[run.model] = made.setdefault(key, call)
        return found

    def _refuse_nothing(self) -> None:
        """Raises CompareError where no output of the first batch gave a row."""
        if self._stack.n_rows:
            return
        entries = [entry for _, capture in self._captures for entry in capture.entries.values()]
        reason = next((entry.reason for entry in entries if entry.reason), "none of them ran")
        raise CompareError(
            f"no layer gives a row of features for each sample: {reason}; choose other layers, or "
            "look at forward=, samples=, reduce= and particle_axis="
        )

    def _run_again(self, batches: Mapping[str, Any], n: int, again: set[int]) -> None:
        """Passes in which a layer's mean has jumped since its first batch; rare."""
        for run, capture in self._captures:
            if again & {row for entry in capture.entries.values() for row in entry.rows}:
                self._run(run, capture, batches[run.model], n)

    def _count(self, loaded: Loaded) -> int:
        """The number of samples of a batch, which all models must agree on."""
        found: dict[str, int] = {}
        for run, _ in self._passes:
            name = run.model
            if name in found:
                continue
            look = partial(self._look, run, loaded.placed[name])
            try:
                found[name] = self._samples_of[name].count(loaded.given[name], run.root, look)
            except TypeError as error:
                raise TypeError(f'model "{name}": {error}') from error
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{n} for {name}" for name, n in found.items())
            raise CompareError(
                f"batch {self.batches + 1} has different numbers of samples: {listed}; "
                "loaders of one comparison must give the same samples"
            )
        return found[self.models[0]]

    def _note_left_out(self, batches: Mapping[str, Any]) -> None:
        """Let the result say which inputs the models were perhaps not given."""
        roots = {run.model: run.root for run, _ in self._passes}
        for name in self.models:
            if name not in self._as_usual:
                continue
            call = as_call(batches[name], roots[name])
            if second_is_input(call):
                self._unlabelled.add(name)
            sentences = [left_out_sentence(name, call)]
            if self._reduce in ("mean", "last"):
                sentences.append(unread_sentence(name, call, roots[name], self._reduce))
            self.notes += [s for s in sentences if s is not None and s not in self.notes]

    def _look(self, run: Pass, batch: Any) -> Any:
        """The model's output, and nothing captured."""
        with (
            _modes(),
            self._failing(run, batch),
            self._placement.on_device(run) as placed,
            self._copies.given(run, batch) as mine,
            self._interruptible(run),
        ):
            return placed(mine, self._forwards[run.model])

    def _interruptible(self, run: Pass) -> AbstractContextManager[None]:
        """Around a model's pass; torch.vmap does not survive an interrupt between its own steps."""
        return self.shield.opened() if run.mapped is None else nullcontext()

    def _shortly(self, placed: Pass) -> tuple[nn.Module, Callable[[Any], None]]:
        """What short passes run: a model's first particle, which shows where all have samples."""
        first, forward = placed.alone(), self._forwards[placed.model]

        def run(given: Any) -> None:
            with self.shield.opened():
                first(given, forward)

        return first.root, run

    def _run(self, run: Pass, capture: Capture, batch: Any, n: int) -> None:
        first, steps, confirmed = self._table is None, None, True
        with (
            self._failing(run, batch),
            self._placement.on_device(run) as placed,
            self._copies.given(run, batch) as mine,
            ExitStack() as around,
        ):
            if first:
                short = placed.model, capture, *self._shortly(placed), batch, n
                self._short_passes.inform(*short)
                if self._samples_of[run.model].guess:
                    steps = around.enter_context(StepsFirst(run.root, n, mine))
            with capture.recording(n, masks_of(batch)), self._interruptible(run):
                output = placed(mine, self._forwards[run.model])
            if first:
                confirmed = self._short_passes.confirm(*short)
        if steps is not None:
            steps.refuse(run.model, output)
            if (found := self._samples_of[run.model].check(n, batch, output)) != n:
                raise _Recounted(found)
        if not confirmed:
            raise _Disproved

    def _failing(self, run: Pass, batch: Any) -> AbstractContextManager[None]:
        return failing(
            run,
            batch,
            self.batches + 1,
            one_of_many=run.model in self._ensembles,
            as_usual=run.model in self._as_usual,
        )

    def result(self, seconds: float) -> CKAResult:
        """What the finished batches give.

        Raises:
            CompareError: no batch came.
        """
        if self._table is None or self._sums is None:
            raise CompareError("the loader gave no batches")
        order = np.array(self._table.order, dtype=np.int64)
        first, *others = (self._measured(one, order) for one in self._sums.each)
        reasons = zip(self._table.reasons(), self._table.order, first.sums.d.tolist(), strict=True)
        return CKAResult(
            rows=self._table.models,
            sums=first.sums,
            pooled=first.pooled,
            measure=first.facts,
            others=tuple(others),
            row_reasons=tuple(
                why or (self._stack.formed.why(row, own) if row >= 0 else None)
                for why, row, own in reasons
            ),
            samples=self.samples,
            batches=self.batches,
            warnings=tuple(self._warnings()),
            provenance={
                **self.provenance,
                "sigma": _sigma([first.facts, *(one.facts for one in others)]),
                "classes": self._diagnostics.classes,
                "seconds": seconds,
            },
        )

    def _measured(self, one: MeasureSums, order: npt.NDArray[np.int64]) -> Measured:
        """One measure's sums, in the order of the result's rows."""
        sums = one.rows.on_host().take(order)
        pooled = None if one.pooled is None else one.pooled.on_host()
        if self._grouping is not None and self._grouping.crossed:
            sums, pooled = sums.without_errors(), pooled and pooled.without_errors()
        return Measured(one.facts(order), sums, pooled)

    def _warnings(self) -> Iterator[str]:
        repeats = self.later_notes()
        # Samples that come again vote again, so that votes are no longer independent.
        neighbours = self._sums.neighbours if self._sums and not repeats else Neighbours()
        yield from self.notes
        yield from repeats
        yield from self._grouping.warnings() if self._grouping else ()
        yield from self._diagnostics.warnings(neighbours.alike)
        yield from self._weights.warnings() if self._weights else ()
        yield from self._short_passes.warnings()
        yield from self._table.warnings() if self._table else ()
        if self._cuda_graph:
            yield from self._replay.warnings()
        yield from self._pieces.warnings()
        yield from self._classes.warnings()

    def good_enough(self, stderr: float) -> bool:
        """No cell's standard error is above this."""
        if self._sums is None or self._sums.each[0].rows.blocks < MIN_BLOCKS:
            return False
        return self.result(0.0).worst_stderr() <= stderr


class _Disproved(Exception):
    """The first batch did not show what a short pass had let one presume of a model."""


def _cka_options(measures: Sequence[Measure]) -> dict[str, Any]:
    """Kernel and estimator of the first measure that is a CKA."""
    cka = next((one for one in measures if isinstance(one, CKA)), None)
    if cka is None:
        return {}
    rbf = cka.kernel == "rbf"
    bandwidth = cka.bandwidth if rbf else None
    return {"kernel": cka.kernel, "unbiased": cka.unbiased, "bandwidth": bandwidth}


def _sigma(measures: list[MeasureFacts]) -> list[float | None] | None:
    """Bandwidth of the first RBF kernel for every row of the result."""
    found = next((one.row_options["sigma"] for one in measures if one.row_options), None)
    return None if found is None else list(found)


class _Recounted(Exception):
    """The first output showed another number of samples."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n = n


@contextmanager
def _modes() -> Iterator[None]:
    """The thread's modes while models run and Grams are summed, never across a yield.

    Tensors of inference mode have no version, so that aliases could not be told from in-place
    operations.
    """
    with torch.inference_mode(False), torch.no_grad(), eager():
        yield
