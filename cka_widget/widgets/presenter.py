"""Draws a result into the views: what is shown where, given the explorer's traits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from cka_widget.result.keys import Cell
from cka_widget.widgets.comparison.axes import (
    LACKS,
    VALUE_NAMES,
    Axis,
    axis,
    cell_at,
    matrices,
    pair_at,
)
from cka_widget.widgets.comparison.comparison import Comparison
from cka_widget.widgets.comparison.cost import cost_html, plan_html
from cka_widget.widgets.drilldown.drilldown import UNKNOWN, WAITING
from cka_widget.widgets.elements.legend import APART, apart, legend_html
from cka_widget.widgets.explorer_views import Views
from cka_widget.widgets.look.assets import SLOTS
from cka_widget.widgets.look.format import by_chance
from cka_widget.widgets.notebook import static_picture
from cka_widget.widgets.run.run_history import RunHistory
from cka_widget.widgets.run.runner import RUNNING


class Screen:
    """Holds what is on screen now, so that unchanged labels are not sent again.

    Not safe by itself: the explorer calls it under its lock.

    Attributes:
        placing: true while the heatmap's own selection is being set from here.
    """

    def __init__(self, views: Views, study: Comparison) -> None:
        self._views, self._study = views, study
        self._axes: tuple[Axis, Axis] | None = None
        self._values = np.zeros((0, 0))
        self.placing = False

    @property
    def slots(self) -> dict[str, str]:
        """Palette slot of each model, the same whichever pair is on screen."""
        return dict(zip(self._study.names, cycle(SLOTS), strict=False))

    def draw(
        self,
        known: RunHistory,
        pair: tuple[str, str],
        layers: Mapping[str, list[str]],
        statistic: str,
        measure: str,
        state: str,
        selection: Cell | None,
    ) -> None:
        """Draw everything but the state line."""
        views, (row, col), slots = self._views, pair, self.slots
        views.show_pair(row, col, slots, self._study.on_screen(pair))
        views.show_empty(not known, state in RUNNING)
        if state != "idle":
            views.prepare(row, col)
        # A run that publishes has no use for it.
        plan = None if known and state in RUNNING else self._study.plan(layers, known)
        views.header.cost.value = cost_html(plan, row, col) if plan and known else ""
        if plan and not known:
            views.plan.value = plan_html(plan, row, col, state)
            views.drill.clear(WAITING)
            return
        axes = self._axis(known, row, layers[row]), self._axis(known, col, layers[col])
        self._values, errors = matrices(known, *axes, statistic, measure)
        sources = known.sources(row, axes[0].layers, col, axes[1].layers)
        heatmap = views.heatmap
        with heatmap.hold_sync():
            if axes != self._axes:
                self._axes = axes
                heatmap.set_labels(
                    axes[0].layers, axes[1].layers,
                    row_info=axes[0].info, col_info=axes[1].info,
                    row_reasons=axes[0].reasons, col_reasons=axes[1].reasons,
                )  # fmt: skip
                heatmap.row_name, heatmap.col_name = row, col
                heatmap.row_color, heatmap.col_color = slots[row], slots[col]
                heatmap.height = _comfortable(len(axes[0].layers))
            parted = APART if apart(known, sources, *axes).any() else ""
            bare = next(
                (f'No layer of "{side.model}" is ticked' for side in axes if not side.layers), ""
            )
            heatmap.reason = bare or ", or ".join(filter(None, (parted, LACKS[statistic])))
            facts = known.runs[0].of(measure).measure
            chance = facts.chance if statistic == "mean" else None
            heatmap.value_name = VALUE_NAMES[statistic].format(facts.title)
            heatmap.chance = chance or None
            heatmap.bar_title = self._bar_title(heatmap.value_name, chance)
            heatmap.auto_range = statistic != "mean" or views.toolbar.range.value
            heatmap.set_data(self._values, errors)
            self.pin(selection)
        views.legend.value = legend_html(known, self._values, sources, *axes, state in RUNNING)
        self.draw_cell(known, pair, measure, selection)

    def _bar_title(self, value_name: str, chance: float | None) -> str:
        """What runs along the colour bar: CKA alone, as the field knows it, goes without saying."""
        if value_name == "CKA" and len(self._study.measures) == 1:
            return ""
        return f"{value_name} ({by_chance(chance)})" if chance else value_name

    def draw_cell(
        self, known: RunHistory, pair: Sequence[str], measure: str, cell: Cell | None
    ) -> None:
        """Draw the drill-down of the selected cell, or say why there is none."""
        if not known:
            return
        if cell is not None and tuple(key.model for key in cell) != tuple(pair):
            cell = None  # it comes back with its pair
        run = known.run_of(cell) if cell is not None else None
        if cell is None or run is None:
            self._views.drill.clear(*([UNKNOWN] if cell is not None else []))
            return
        slots = self.slots
        self._views.drill.show(
            run.of(measure), cell, (slots[cell.row.model], slots[cell.col.model])
        )

    def pin(self, selection: Cell | None) -> None:
        """Mark the selected cell in the heatmap, where it is shown."""
        if self._axes is None:
            return
        self.placing = True
        try:
            self._views.heatmap.selected = self.place(selection)
        finally:
            self.placing = False

    def place(self, cell: Cell | None) -> list[int]:
        """The heatmap's [row, column] of a cell; [] where it is not shown."""
        return [] if self._axes is None else pair_at(*self._axes, cell)

    def cell_at(self, pair: Sequence[int]) -> Cell | None:
        """Names of the heatmap's [row, column]."""
        return None if self._axes is None else cell_at(*self._axes, pair)

    def picture(self, known: RunHistory, pair: Sequence[str]) -> Callable[[], Any]:
        """What draws the heatmap on screen as a static figure, without the lock and at any time.

        Raises:
            ValueError: nothing was drawn yet.
        """
        if self._axes is None:
            raise ValueError("there is no result to draw yet")
        heatmap, (rows, cols), slots = self._views.heatmap, self._axes, self.slots
        samples = sorted({run.result.samples for run in known.shown(*self._axes)})
        return partial(
            static_picture.figure,
            self._values,
            (rows.model, rows.layers, slots[rows.model]),
            (cols.model, cols.layers, slots[cols.model]),
            value_name=heatmap.value_name,
            chance=heatmap.chance,
            colormap=heatmap.colormap,
            limits=None if heatmap.auto_range else (heatmap.vmin, heatmap.vmax),
            origin=heatmap.origin,
            note=f"{' and '.join(f'{number:,}' for number in samples)} samples" if samples else "",
        )

    def layers(self, known: RunHistory, ticked: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Labels of the layers on screen, and of those that would be with another pair."""
        return {model: self._axis(known, model, names).layers for model, names in ticked.items()}

    def _axis(self, known: RunHistory, model: str, chosen: list[str]) -> Axis:
        everything = chosen == self._study.defaults[model]
        return axis(known, self._study.trees[model], model, chosen, everything)


def _comfortable(rows: int) -> int:
    """Height (pixels) that gives few rows room and many rows a screenful; axes included."""
    return min(max(50 * rows + 130, 360), 690)
