"""One cell of the heatmap under every measure that ran."""

from __future__ import annotations

from typing import NamedTuple

from cka_widget.result.cell.cell_scores import Tables
from cka_widget.result.keys import Cell


class CellMeasure(NamedTuple):
    """A cell's score under one measure."""

    title: str
    value: float
    error: float
    chance: float
    """What unrelated features give; 0 too where that is not known, and where both are the same."""


def cell_measures(cell: Cell, tables: Tables) -> list[CellMeasure]:
    """The cell under every measure of the tables' result, first the one that is shown.

    Raises:
        KeyError: the result has no such layer.
    """
    at = tables.at(cell)
    alone = cell.row == cell.col and tables.result.n_particles(cell.row.model) == 1
    return [
        CellMeasure(
            one.result.measure.title,
            float(one.mean[at]),
            float(one.error[at]),
            0.0 if alone else one.result.measure.chance or 0.0,
        )
        for one in tables.of_measures
    ]
