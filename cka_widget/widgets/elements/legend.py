"""What stands under the heatmap: why cells are hatched, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from cka_widget.widgets.comparison.axes import Axis
from cka_widget.widgets.look.format import plural
from cka_widget.widgets.run.run_history import RunHistory

APART = "no run has compared these two layers"
COMES = "the run under way brings"


def legend_html(
    known: RunHistory,
    values: np.ndarray,
    sources: np.ndarray,
    rows: Axis,
    cols: Axis,
    running: bool,
) -> str:
    """A line for each kind of cell that needs a word; "" where none does.

    Args:
        known: the runs behind the cells.
        values: what is shown, (rows, columns), NaN where undefined.
        sources: number of the run that each cell is from, -1 for none, (rows, columns).
        rows: the rows' axis.
        cols: the columns' axis.
        running: whether a run is under way.
    """
    axes = (rows,) if rows.model == cols.model else (rows, cols)
    parted = apart(known, sources, rows, cols)
    missing = np.logical_or.outer(*(np.isin(one.layers, one.missing) for one in (rows, cols)))
    coming = [np.array(known.brings(one.model, one.layers), bool) & running for one in (rows, cols)]
    parts = [
        _undefined(int((np.isnan(values) & ~parted & ~missing).sum()), axes),
        _missing(axes, coming, parted & np.outer(*coming), COMES),
        _missing(
            axes,
            [~one for one in coming],
            parted & ~np.outer(*coming),
            "run again afterwards to add" if running else "Run again to add",
        ),
        _kept(known, sources),
    ]
    text = "<br>".join(escape(part) for part in parts if part)
    return f'<div class="cka-legend">{text}</div>' if text else ""


def apart(known: RunHistory, sources: np.ndarray, rows: Axis, cols: Axis) -> np.ndarray:
    """Cells of two computed layers that no run has together, booleans (rows, columns)."""
    there = [np.isin(one.layers, known.layers(one.model)) for one in (rows, cols)]
    cells: np.ndarray = np.outer(*there) & (sources < 0)
    return cells


def _undefined(number: int, axes: Sequence[Axis]) -> str:
    if not number:
        return ""
    named: dict[tuple[str, str], list[str]] = {}
    for one in axes:
        missing = set(one.missing)
        for layer, reason in zip(one.layers, one.reasons, strict=True):
            if reason and layer not in missing:
                named.setdefault((one.model, reason), []).append(layer)
    some = "; ".join(f"{model} {_few(x)}: {why}" for (model, why), x in named.items())
    whys = {why for _, why in named}
    if len(whys) == 1 and sum(map(len, named.values())) == sum(len(one.layers) for one in axes):
        some = f"all layers: {whys.pop()}"
    return f"hatched: {plural(number, 'undefined cell')}" + (f" ({some})" if some else "")


def _missing(axes: Sequence[Axis], meant: Sequence[np.ndarray], apart: np.ndarray, how: str) -> str:
    """What was not computed of the rows that are meant, and of the cells; how they will be."""
    names = [
        f"{one.model} {layer}"
        for one, marks in zip(axes, meant, strict=False)
        for layer in np.array(one.layers, object)[marks & np.isin(one.layers, one.missing)]
    ]
    cells = int(apart.sum())
    if not names and not cells:
        return ""
    what = f"not computed yet: {_few(names)}"
    if not names:
        what = f"{plural(cells, 'cell')} of layers that no run has together"
    return f"hatched: {what}. {how} {'it' if max(len(names), cells) == 1 else 'them'}"


def _kept(known: RunHistory, sources: np.ndarray) -> str:
    counted = [(run, int((sources == n).sum())) for n, run in enumerate(known.runs)]
    runs = [(run, cells) for run, cells in counted if cells]
    if all(run is known.latest for run, _ in runs):
        return ""
    parts = [
        f"{plural(cells, 'cell')} of {'the latest' if run is known.latest else 'an earlier'} run "
        f"over {plural(run.result.samples, 'sample')}"
        for run, cells in runs
    ]
    return f"{', '.join(parts)}. Saved numbers and pages hold the latest run alone"


def _few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
