"""The explorer's widgets and where they stand. No behaviour: the explorer joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import traitlets as t

from cka_widget.layer_tree import LayerTree
from cka_widget.widgets.drilldown.drilldown import DrillDown
from cka_widget.widgets.elements.export_menu import ExportMenu
from cka_widget.widgets.elements.header import Header
from cka_widget.widgets.elements.heatmap import Heatmap
from cka_widget.widgets.elements.kernel_pulse import Pulse
from cka_widget.widgets.elements.picker import LayerPicker
from cka_widget.widgets.elements.status import StatusLine
from cka_widget.widgets.elements.toolbar import Toolbar
from cka_widget.widgets.look.style import stylesheet
from cka_widget.widgets.notebook.widget_lock import family, serialise

UNSURE = 0.03
"""Cells with a larger standard error are drawn unsure while the run goes on."""
SHOWN = ("children", "marks", "axes", "scales")
"""Traits in which a view holds other widgets that are written while a run goes on."""


class Views:
    """Header, state line, pickers, heatmap with its toolbar, and drill-down."""

    def __init__(
        self,
        trees: Mapping[str, LayerTree],
        particles: Mapping[str, int],
        measures: Mapping[str, str],
        kinds: Mapping[str, tuple[str, Callable[[], bytes]]],
        theme: str,
        lock: Any,
        style: str,
        threaded: bool,
    ) -> None:
        self._particles, self._lock = particles, lock
        self.pickers = {
            name: LayerPicker(
                nodes=tree.to_nodes(),
                title=name,
                particles=particles[name],
                note=tree.error or "",
                theme=theme,
            )
            for name, tree in trees.items()
        }
        self.heatmap = Heatmap(uncertain_above=UNSURE, settled=False, theme=theme)
        self.toolbar = Toolbar(list(trees), max(particles.values()) > 1, measures)
        for control, trait in (("best", "best_match"), ("colormap",) * 2, ("origin",) * 2):
            t.link((getattr(self.toolbar, control), "value"), (self.heatmap, trait))
        self.legend = widgets.HTML()
        self.result = widgets.VBox([self.toolbar, self.heatmap, self.legend])
        self.plan = widgets.HTML()
        self.plan_run = widgets.Button(description="Run", tooltip="Start the comparison")
        self.plan_run.add_class("cka-primary")
        self.empty = widgets.VBox([self.plan, self.plan_run])
        self.empty.add_class("cka-start")
        middle = widgets.VBox([self.empty, self.result])
        middle.add_class("cka-middle")
        self._column = widgets.VBox([])
        self._column.add_class("cka-pickers")
        self.drill = DrillDown(theme)
        self.pulse = Pulse(lock, lambda: family(self.everything(), SHOWN))
        self.header, self.line = Header(), StatusLine(self.pulse)
        self.menu = ExportMenu(kinds, lock, threaded)
        for button in self.header.steering:
            button.on_click(lambda _: self.pulse.hear())
        body = widgets.Box([self._column, middle, self.drill])
        body.add_class("cka-body")
        self.children = [stylesheet(style), self.header, self.menu, self.line, body]

    def everything(self) -> list[widgets.Widget]:
        """All top widgets, those that are not on screen too."""
        bar = self.toolbar
        return [*self.children, *self.pickers.values(), bar.measure, bar.pair, bar.rows, bar.cols]

    def show_pair(self, row: str, col: str, slots: Mapping[str, str], shown: Sequence[str]) -> None:
        """Put the models' names, colours and pickers where they belong; `shown` are the pickers."""
        chips = [(self._chip(name), slots[name]) for name in dict.fromkeys((row, col))]
        self.header.show_models(chips)
        for name, picker in self.pickers.items():
            picker.color = slots.get(name, "a")
        column = [self.pickers[name] for name in shown]
        if list(self._column.children) != column:
            self._column.children = column

    def prepare(self, row: str, col: str) -> None:
        """Get the drill-down ready for a first click on a cell of two models."""
        many = [name for name in dict.fromkeys((row, col)) if self._particles[name] > 1]
        lanes = 1 + (len(many) if row != col else 0) if many else 0
        for figure in self.drill.prepare(lanes):
            serialise(figure, self._lock)

    def _chip(self, name: str) -> str:
        number = self._particles[name]
        return f"{name} ×{number}" if number > 1 else name

    def show_empty(self, empty: bool, working: bool) -> None:
        """Before the first result its place says what will be computed, with a Run button."""
        (self.plan_run.add_class if working else self.plan_run.remove_class)("cka-hidden")
        hidden, seen = (self.result, self.empty) if empty else (self.empty, self.result)
        hidden.add_class("cka-hidden")
        seen.remove_class("cka-hidden")
