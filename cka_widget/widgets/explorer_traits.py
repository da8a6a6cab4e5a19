"""What can be read, set, observed and linked of an explorer, and what it accepts."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import traitlets as t

from cka_widget.result.keys import Cell
from cka_widget.widgets.comparison.axes import VALUE_NAMES
from cka_widget.widgets.comparison.comparison import Comparison
from cka_widget.widgets.explorer_views import Views
from cka_widget.widgets.renamed import Renamed, Renaming
from cka_widget.widgets.run.run_history import RunHistory
from cka_widget.widgets.run.runner import STATES


class Traits(Renaming, widgets.VBox):
    """The public traits of `CKAExplorer`.

    Attributes:
        selection: the pinned `Cell`, by names; None for none. Set it, observe it, link it.
        hover: the `Cell` under the pointer, or None.
        layers: model name -> names of the ticked modules. Fewer cut the heatmap at once; more
            are hatched until a run has computed them, and the cells known by then stay.
        pair: (row model, column model) on screen.
        statistic: what is shown of a score: "mean", "spread" or "stderr".
        measure: name of the measure that is shown, of those of the option `measures`; ""
            stands for the first.
        metric: the old name of `statistic`, with a FutureWarning.
        state: "idle", "running", "paused", "done", "cancelled" or "failed".
        progress: share of the data that is through, 0 to 1.
        result: the `CKAResult` of the latest run, live; None before the first batch.
    """

    _study: Comparison
    _known: RunHistory
    _views: Views
    _closed = False  # from then on traits take what they are linked to, and nothing follows

    selection = t.Any(None, allow_none=True)
    hover = t.Any(None, allow_none=True)
    layers = t.Dict()
    pair = t.Tuple(t.Unicode(), t.Unicode())
    statistic = t.Enum(tuple(VALUE_NAMES), "mean")
    measure = t.Unicode("")
    metric = Renamed("statistic")
    theme = t.Enum(("auto", "light", "dark"), "auto")
    stop_at_stderr = t.Float(None, allow_none=True)
    state = t.Enum(STATES, "idle", read_only=True)
    progress = t.Float(0.0, read_only=True)
    result = t.Any(None, allow_none=True, read_only=True)

    @t.validate("selection", "hover")
    def _valid_cell(self, proposal: Any) -> Cell | None:
        value = proposal["value"]
        return value if self._closed else self._study.cell(value, self._known)

    @t.validate("layers")
    def _valid_layers(self, proposal: Any) -> dict[str, list[str]]:
        value = proposal["value"]
        return value if self._closed else self._study.choice(value, getattr(self, "layers", {}))

    @t.validate("pair")
    def _valid_pair(self, proposal: Any) -> tuple[str, str]:
        value = proposal["value"]
        return value if self._closed else self._study.pair(value)

    @t.validate("statistic")
    def _valid_statistic(self, proposal: Any) -> str:
        value = proposal["value"]
        return value if self._closed else self._study.statistic(value)

    @t.validate("measure")
    def _valid_measure(self, proposal: Any) -> str:
        value = proposal["value"]
        return value if self._closed else self._study.measure(value)

    @t.validate("stop_at_stderr")
    def _valid_goal(self, proposal: Any) -> float | None:
        goal = proposal["value"]
        if goal is not None and not goal > 0:
            raise t.TraitError(f"stop_at_stderr={goal} must be above 0, or None")
        if not self._closed:
            self._views.header.offer_goal(goal)
        return goal
