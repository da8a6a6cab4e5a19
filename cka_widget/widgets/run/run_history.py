"""What has been computed so far, run by run: every cell is shown from one run alone."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cka_widget.engine.compare import Snapshot
from cka_widget.engine.errors import CompareError
from cka_widget.engine.models.layers import split_call
from cka_widget.result.keys import Cell, LayerKey

CHANGED = (
    "the models have changed since the run that this would add to: its scores and the new ones "
    "do not belong together, so run again"
)


@dataclass
class Run:
    """One run: what was asked for, the weights it saw, and its result so far.

    `rate` are its samples a second, None while they are not known.
    """

    asked: Mapping[str, Any]
    weights: Any
    adds: bool
    result: Any = None
    rate: float | None = None
    _places: dict[str, dict[str, int]] = field(default_factory=dict)
    _calls: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    _of: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def of(self, measure: str) -> Any:
        """The result so far with this measure as its first; "" leaves it as it is."""
        # What it has worked out stays with it: it is made anew where the result is another one.
        whole, shown = self._of.get(measure, (None, None))
        if whole is not self.result:
            whole, shown = self.result, self.result.of(measure or None)
            self._of[measure] = whole, shown
        return shown

    def places(self, model: str) -> dict[str, int]:
        """Label -> position among the model's layers; they stay as the first batch found them."""
        if model not in self._places:
            labels = self.result.layers(model) if model in self.result.models else []
            self._places[model] = {label: at for at, label in enumerate(labels)}
            calls = self._calls.setdefault(model, {})
            for label in labels:
                calls.setdefault(split_call(label)[0], []).append(label)
        return self._places[model]

    def __contains__(self, key: LayerKey) -> bool:
        return key.layer in self.places(key.model)

    def labels(self, model: str, name: str, alias: str | None) -> list[str]:
        """Rows of a module (one a call), or of one with the same output; [] for none."""
        places = self.places(model)
        if not places:
            return []
        if name in places:
            return [name]
        calls = self._calls[model].get(name, [])
        same = self._rows(model).aliases.get(name, alias)
        return calls or ([same] if same in places else [])

    def skipped(self, model: str, name: str) -> str | None:
        """Why the run has no row for a module that it was asked for."""
        reason: str | None = self._rows(model).skipped.get(name) if self.places(model) else None
        return reason

    def rows(self, model: str) -> int:
        """Rows on screen of what was asked for: those there are, and those it gives none of."""
        asked = self.asked.get(model) or ()
        return len(self.places(model)) + sum(bool(self.skipped(model, name)) for name in asked)

    def covers(self, other: Run) -> bool:
        """Every row of the other run is one of this run's too."""
        return all(
            other.places(model).keys() <= self.places(model).keys() for model in other.result.models
        )

    def _rows(self, model: str) -> Any:
        return next(rows for rows in self.result.rows if rows.name == model)


class RunHistory:
    """The latest run, and of the runs before it what the latest does not have.

    Two layers can only be compared on the same batches, so a run for more layers computes all
    that are ticked. Until it has seen as many samples as an earlier run, the cells of that run
    stay on screen as they are; then its own take their place. A run of layers that were all
    computed already starts afresh. No cell ever mixes the sums of two runs, and where the models'
    weights have changed nothing of before is kept.

    Not safe by itself: the explorer calls it under its lock.

    Attributes:
        runs: the runs with a result; a cell is taken from the first that has both its layers.
        latest: the run that came last, None before the first result.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.latest: Run | None = None
        self._coming: Run | None = None
        self._base: Any = None

    def begin(self, asked: Mapping[str, Any], adds: bool, weights: Any) -> None:
        """A new run is under way; `adds` when no run has all its layers together."""
        self._coming, self._base = Run(asked, weights, adds), None

    def go_on(self, weights: Any) -> None:
        """More data come, to be added to the latest run.

        Raises:
            CompareError: the weights are not those of that run.
        """
        assert self.latest is not None
        if self.latest.weights != weights:
            raise CompareError(CHANGED)
        self._coming, self._base = None, self.latest.result

    def addable(self, snapshots: Generator[Snapshot, None, None]) -> Iterator[Snapshot]:
        """The snapshots of the run under way, if they can be added to what it adds to.

        Raises:
            CompareError: they cannot, as the first of them shows.
        """
        base = self._base
        with closing(snapshots):
            for snapshot in snapshots:
                if base is not None and snapshot.samples:
                    try:
                        base.merge(snapshot.result)
                    except ValueError as error:
                        raise CompareError(f"these data cannot be added: {error}") from error
                    base = None
                yield snapshot

    def take(self, result: Any, rate: float | None = None) -> Any:
        """The result so far of the run under way; returns it with what it was added to."""
        if self._coming is not None:
            if self.latest is not None and self.latest.weights != self._coming.weights:
                self.runs = []
            self.latest, self._coming = self._coming, None
        run = self.latest
        assert run is not None
        run.rate = rate or run.rate
        run.result = result = result if self._base is None else self._base.merge(result)
        others = [one for one in self.runs if one is not run]
        at = 0
        while run.adds and at < len(others) and others[at].result.samples > result.samples:
            at += 1
        ahead, behind = others[:at], [one for one in others[at:] if not run.covers(one)]
        self.runs = [*ahead, run, *behind]
        return result

    @property
    def before(self) -> int:
        """Samples that the run under way, or the last one, adds to."""
        return 0 if self._base is None else int(self._base.samples)

    def brings(self, model: str, labels: Iterable[str]) -> list[bool]:
        """Whether the run under way, or the last one, was asked for each of the rows."""
        run = self._coming or self.latest
        asked = () if run is None else run.asked.get(model, ())
        wanted = None if asked is None else set(asked)
        return [wanted is None or split_call(label)[0] in wanted for label in labels]

    # what there is ---------------------------------------------------------------------------
    def __bool__(self) -> bool:
        return bool(self.runs)

    @property
    def models(self) -> list[str]:
        """Models that any run has."""
        return list(dict.fromkeys(model for run in self.runs for model in run.result.models))

    def layers(self, model: str) -> list[str]:
        """Labels that any run has."""
        return list(dict.fromkeys(label for run in self.runs for label in run.places(model)))

    def run_of(self, cell: Cell) -> Run | None:
        """The run that a cell is taken from; None where its layers never ran together."""
        return next((run for run in self.runs if all(key in run for key in cell)), None)

    def labels(self, model: str, name: str, alias: str | None) -> list[str]:
        """Rows of a module (or of its alias) in the first run that has it; [] for none."""
        return next(filter(None, (run.labels(model, name, alias) for run in self.runs)), [])

    def skipped(self, model: str, name: str) -> str | None:
        """Why a module that was asked for has no row."""
        return next(filter(None, (run.skipped(model, name) for run in self.runs)), None)

    def reasons(self, model: str, labels: Iterable[str]) -> dict[str, str | None]:
        """Why a layer is undefined, or None, for the labels that any run has."""
        found: dict[str, str | None] = {}
        for run in reversed(self.runs):
            if run.places(model):
                found.update(zip(run.places(model), run.result.reasons(model), strict=True))
        return {label: found.get(label) for label in labels}

    def sources(
        self, row_model: str, rows: Sequence[str], col_model: str, cols: Sequence[str]
    ) -> np.ndarray:
        """Number of the run that each cell is taken from, (rows, cols); -1 for none."""
        found = np.full((len(rows), len(cols)), -1, np.int16)
        for number in reversed(range(len(self.runs))):
            places = [self.runs[number].places(model) for model in (row_model, col_model)]
            here = [
                [name in at for name in names]
                for at, names in zip(places, (rows, cols), strict=True)
            ]
            found[np.ix_(*here)] = number
        return found

    def table(
        self,
        what: str,
        row_model: str,
        rows: Sequence[str],
        col_model: str,
        cols: Sequence[str],
        measure: str = "",
    ) -> np.ndarray:
        """`matrix`, `stderr` or `spread`, each cell from its own run; (rows, cols)."""
        values = np.full((len(rows), len(cols)), np.nan)
        for run in reversed(self.runs):
            here = [
                [(at, places[name]) for at, name in enumerate(names) if name in places]
                for places, names in ((run.places(row_model), rows), (run.places(col_model), cols))
            ]
            if not all(here):
                continue
            frame = getattr(run.of(measure), what)(row_model, col_model).to_numpy(float)
            (to_rows, from_rows), (to_cols, from_cols) = (zip(*side, strict=True) for side in here)
            values[np.ix_(to_rows, to_cols)] = frame[np.ix_(from_rows, from_cols)]
        return values

    def shown(self, rows: Any, cols: Any) -> list[Run]:
        """The runs that any cell of two axes is taken from."""
        sources = self.sources(rows.model, rows.layers, cols.model, cols.layers)
        return [self.runs[number] for number in np.unique(sources[sources >= 0])]

    def worst_error(self, row_model: str, col_model: str, measure: str = "") -> float:
        """Largest standard error of the pair; NaN where there is none yet."""
        rows, cols = self.layers(row_model), self.layers(col_model)
        errors = self.table("stderr", row_model, rows, col_model, cols, measure)
        return float(np.nanmax(errors)) if np.isfinite(errors).any() else float("nan")
