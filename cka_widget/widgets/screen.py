"""Draws a result into the views: what is shown where, given the explorer's traits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cka_widget.engine.keys import Cell, LayerKey
from cka_widget.widgets import picture
from cka_widget.widgets.plan import plan_html
from cka_widget.widgets.runner import RUNNING
from cka_widget.widgets.shown import (
    VALUE_NAMES,
    Axis,
    axis,
    cell_at,
    matrices,
    not_computed,
    pair_at,
)
from cka_widget.widgets.study import Study
from cka_widget.widgets.views import Views


class Screen:
    """Holds what is on screen now, so that unchanged labels are not sent again.

    Not safe by itself: the explorer calls it under its lock.

    Attributes:
        placing: true while the heatmap's own selection is being set from here.
    """

    def __init__(self, views: Views, study: Study) -> None:
        self._views, self._study = views, study
        self._axes: tuple[Axis, Axis] | None = None
        self._values = np.zeros((0, 0))
        self.placing = False

    def slots(self, pair: Sequence[str]) -> dict[str, str]:
        """Palette slot of each model: of two, each keeps its own; of more, the row's is "a"."""
        names = self._study.names
        first = names[0] if len(names) < 3 else pair[0]
        return {name: "a" if name == first else "b" for name in names}

    def draw(
        self,
        result: Any,
        pair: tuple[str, str],
        layers: Mapping[str, list[str]],
        metric: str,
        state: str,
        selection: Cell | None,
    ) -> None:
        """Draw everything but the state line."""
        views, (row, col), slots = self._views, pair, self.slots(pair)
        views.show_pair(row, col, slots, self._study.on_screen(pair))
        views.show_empty(result is None, state in RUNNING)
        if result is None:
            views.plan.value = plan_html(self._study.plan(layers), row, col, state)
            views.drill.clear(waiting=True)
            return
        axes = self._axis(result, row, layers[row]), self._axis(result, col, layers[col])
        self._values, errors = matrices(result, *axes, metric)
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
            heatmap.value_name = VALUE_NAMES[metric]
            heatmap.auto_range = metric != "mean" or views.toolbar.range.value
            heatmap.set_data(self._values, errors)
            self.pin(selection)
        views.show_legend(self._values, *axes, self._missing(result, pair, layers))
        self.draw_cell(result, pair, selection)

    def draw_cell(self, result: Any, pair: Sequence[str], cell: Cell | None) -> None:
        """Draw the drill-down of the selected cell, or say that there is none."""
        if result is None:
            return
        if cell is None or not all(_has(result, key) for key in cell):
            self._views.drill.clear()
            return
        slots = self.slots(pair)
        self._views.drill.show(result, cell, (slots[cell.row.model], slots[cell.col.model]))

    def pin(self, selection: Cell | None) -> None:
        """Mark the selected cell in the heatmap, where it is shown."""
        if self._axes is None:
            return
        self.placing = True
        try:
            self._views.heatmap.selected = pair_at(*self._axes, selection)
        finally:
            self.placing = False

    def cell_at(self, pair: Sequence[int]) -> Cell | None:
        """Names of the heatmap's [row, column]."""
        return None if self._axes is None else cell_at(*self._axes, pair)

    def picture(self, samples: int, pair: Sequence[str]) -> Any:
        """The heatmap on screen as a static figure.

        Raises:
            ValueError: nothing was drawn yet.
        """
        if self._axes is None:
            raise ValueError("there is no result to draw yet")
        heatmap, (rows, cols), slots = self._views.heatmap, self._axes, self.slots(pair)
        return picture.figure(
            self._values,
            (rows.model, rows.layers, slots[rows.model]),
            (cols.model, cols.layers, slots[cols.model]),
            value_name=heatmap.value_name,
            colormap=heatmap.colormap,
            limits=None if heatmap.auto_range else (heatmap.vmin, heatmap.vmax),
            origin=heatmap.origin,
            note=f"{samples:,} samples",
        )

    def _axis(self, result: Any, model: str, chosen: list[str]) -> Axis:
        everything = chosen == self._study.defaults[model]
        return axis(result, self._study.trees[model], model, chosen, everything)

    def _missing(
        self, result: Any, pair: Sequence[str], layers: Mapping[str, list[str]]
    ) -> list[str]:
        aliases = self._study.aliases
        return [
            f"{model} {name}"
            for model in dict.fromkeys(pair)
            for name in not_computed(result.layers(model), layers[model], aliases[model])
        ]


def worst_error(result: Any, pair: Sequence[str]) -> float:
    """Largest standard error on screen; NaN where there is none yet."""
    if result is None:
        return float("nan")
    errors = result.stderr(*pair).to_numpy(float)
    known = errors[np.isfinite(errors)]
    return float(known.max()) if known.size else float("nan")


def _has(result: Any, key: LayerKey) -> bool:
    return key.model in result.models and key.layer in result.layers(key.model)


def _comfortable(rows: int) -> int:
    """Height (pixels) that gives few rows room and many rows a screenful; axes included."""
    return min(max(34 * rows + 130, 360), 640)
