"""What lies behind the selected cell: its particles, their scores, the run along the depth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np

from cka_widget.result.cell.cell_measures import CellMeasure, cell_measures
from cka_widget.result.cell.cell_scores import (
    CellScores,
    Profile,
    Tables,
    cell_scores,
    particle_map,
    profiles,
    within,
)
from cka_widget.result.cell.mds import similarity_order
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.result.particle_stats import OddOne
from cka_widget.widgets.drilldown.measure_table import measure_table, row
from cka_widget.widgets.elements.heatmap import Heatmap
from cka_widget.widgets.look.format import distinct, plural, plus_minus, score, shorten, tag

MAX_TABLE = 400
FEWEST = 3
"""Particles of one side from which an order says something."""
NOTHING = (
    '<div class="cka-nothing"><b>No cell selected</b><span>Click a cell of the heatmap, or '
    "move with the arrow keys, to see what lies behind its score.</span></div>"
)
WAITING = (
    '<div class="cka-nothing"><b>Nothing to show yet</b><span>Once the run has begun, a click on a '
    "cell of the heatmap shows the particles behind its score.</span></div>"
)
UNKNOWN = (
    '<div class="cka-nothing"><b>Not computed yet</b><span>No run has compared these two layers. '
    "Run again to compute what is ticked.</span></div>"
)
ASKED_FOR = '<div class="cka-muted">Waits for the kernel.</div>'


class DrillDown(widgets.VBox):
    """The panel of one cell. Its views are made once; `show` writes their data.

    The charts are many small widgets. `prepare` makes them when a run starts, so that neither the
    explorer's first sight nor the first click has to wait for them.
    """

    def __init__(self, theme: str = "auto") -> None:
        self._shown: tuple[CellScores, Cell, tuple[str, str]] | None = None
        self._tables: Tables | None = None
        self.header = widgets.HTML(WAITING)
        self.matrix = Heatmap(compact=True, annotate=True, brackets=False, theme=theme)
        self.sort = widgets.Checkbox(value=False, description="ordered by similarity", indent=False)
        self.sort.observe(lambda _: self._draw_matrix(), "value")
        self.odd = widgets.HTML()
        self.charts: dict[str, Any] = {}
        self.titles = {name: widgets.HTML() for name in ("pairs", "col", "row", "plane")}
        self.table = widgets.HTML()
        self.folded = widgets.Accordion(children=[self.table], selected_index=None)
        self.folded.set_title(0, "table of pairs")
        self.folded.observe(lambda _: self._write_table(), "selected_index")
        self._panels = {
            "matrix": _panel(self.matrix, self.sort, self.odd),
            **{name: _panel(title) for name, title in self.titles.items()},
            "table": _panel(self.folded),
        }
        panels = widgets.VBox(list(self._panels.values()))
        panels.add_class("cka-panels")
        super().__init__([self.header, panels])
        self.add_class("cka-drill")
        self._show_panels()

    def prepare(self, lanes: int) -> list[widgets.Widget]:
        """Make the charts that a pair of models needs and does not have yet.

        Args:
            lanes: rows of the chart of pair scores; 0 for two single models, which have none.

        Returns:
            The new figures.
        """
        from cka_widget.widgets.drilldown import charts  # bqplot, which takes a while

        made = []
        for name, make in charts.CHARTS.items():
            if name not in self.charts and (lanes or name in ("col", "row")):
                self.charts[name] = chart = make()
                self._panels[name].children = [self.titles[name], chart.figure]
                made.append(chart.figure)
        if lanes:
            self.charts["pairs"].stretch(lanes)
        return made

    @property
    def theme(self) -> str:
        """Theme of the matrix; the charts follow it by the style sheet."""
        return self.matrix.theme

    @theme.setter
    def theme(self, theme: str) -> None:
        self.matrix.theme = theme

    def clear(self, words: str = NOTHING) -> None:
        """Say that no cell is selected, or why there is nothing to show of it."""
        self._shown = None
        self.header.value = words
        self._show_panels()

    def show(self, result: Any, cell: Cell, slots: tuple[str, str] = ("a", "b")) -> None:
        """Draw `cell` of `result`; `slots` are the palette slots of its row and column model."""
        if self._tables is None or not self._tables.serve(result, cell):
            self._tables = Tables(result, cell.row.model, cell.col.model)
        data = cell_scores(result, cell, self._tables)
        inner = within(data)
        self.prepare(0 if data.single else 1 + len(inner))
        self._shown = (data, cell, slots)
        odd_rows, odd_cols = _odd(data)
        shown = set() if data.single else {"matrix", "pairs", "table"}
        if not data.single:
            self._draw_matrix()
            self.odd.value = _odd_sentence(data)
            self.titles["pairs"].value = _title("pair scores")
            self.charts["pairs"].update(data, inner, slots)
        along_col, along_row = profiles(result, cell, self._tables)
        measures = cell_measures(cell, self._tables)
        self.header.value = _header(data, slots, measures) + _in_words(data, along_col, along_row)
        if np.isfinite(along_col.mean).any():
            shown.add("col")
        if cell.row != cell.col and np.isfinite(along_row.mean).any():
            shown.add("row")
        self.titles["col"].value = _title(f"along {along_col.model}'s depth")
        self.titles["row"].value = _title(
            f"along {along_row.model}'s depth" + (", the other way" if data.one_ensemble else "")
        )
        row, col = _short_names(cell)
        self.charts["col"].update(along_col, odd_cols, slots[1], col)
        self.charts["row"].update(along_row, odd_rows, slots[0], row)
        plane = None if data.single else particle_map(result, data)
        if plane is not None:
            shown.add("plane")
            self.titles["plane"].value = _title("map of the particles", _map_note(data))
            others = odd_cols if cell.row != cell.col else []
            self.charts["plane"].update(plane, (odd_rows, others), slots)
        self._write_table()
        self._show_panels(shown)

    def _write_table(self) -> None:
        """A folded table is not worked out; what it says of another cell is taken away."""
        if self._shown is not None and self._tables is not None:
            is_open = self.folded.selected_index is not None
            self.table.value = _table(self._shown[0], self._tables) if is_open else ASKED_FOR

    def _draw_matrix(self) -> None:
        if self._shown is None or self._tables is None:
            return
        data, cell, slots = self._shown
        rows, cols = data.scores.shape
        order = (list(range(rows)), list(range(cols)))
        orders = max(rows, cols) >= FEWEST
        (self.sort.remove_class if orders else self.sort.add_class)("cka-hidden")
        if self.sort.value and orders:
            same = data.one_ensemble
            judged = (data.scores + data.scores.T) / 2 if same else data.scores
            order = similarity_order(judged, same=same)
        values = data.scores.copy()
        if data.one_ensemble and cell.row == cell.col:
            np.fill_diagonal(values, np.nan)
        odd_rows, odd_cols = _odd(data)
        pick = np.ix_(*order)
        with self.matrix.hold_sync():
            self.matrix.set_labels([f"#{i}" for i in order[0]], [f"#{i}" for i in order[1]])
            self.matrix.value_name = self._tables.result.measure.title
            self.matrix.row_name, self.matrix.col_name = _short_names(cell)
            self.matrix.row_color, self.matrix.col_color = slots
            self.matrix.flag_rows = [k for k, i in enumerate(order[0]) if i in odd_rows]
            self.matrix.flag_cols = [k for k, i in enumerate(order[1]) if i in odd_cols]
            self.matrix.reason = "a particle against itself" if data.one_ensemble else ""
            self.matrix.set_data(values[pick], data.errors[pick])

    def _show_panels(self, shown: set[str] | None = None) -> None:
        for name, panel in self._panels.items():
            (panel.remove_class if name in (shown or ()) else panel.add_class)("cka-folded")


def _panel(*children: widgets.Widget) -> widgets.VBox:
    panel = widgets.VBox(list(children))
    panel.add_class("cka-panel")
    return panel


def _title(text: str, note: str = "") -> str:
    return f"<h4>{escape(text)}{' ' + tag('span', note, class_='cka-muted') if note else ''}</h4>"


def _in_words(data: CellScores, *profiles: Profile) -> str:
    """What the charts show, for a screen reader: bqplot's have no text but that of their axes."""
    parts = []
    if not data.single and len(scores := data.pair_scores):
        ends = f"from {score(scores.min())} to {score(scores.max())}"
        parts.append(f"{plural(len(scores), 'pair score')} {ends}, mean {score(scores.mean())}")
    for along in profiles:
        if np.isfinite(along.mean).any():
            best = int(np.nanargmax(along.mean))
            where = f"{along.layers[best]} with {score(along.mean[best])}"
            parts.append(f"along {along.model}'s depth highest at {where}")
    return tag("div", "; ".join(parts), class_="cka-live-text") if parts else ""


def _short_names(cell: Cell) -> tuple[str, str]:
    short = distinct(list(dict.fromkeys(key.model for key in cell)))
    return short[cell.row.model], short[cell.col.model]


def _odd(data: CellScores) -> tuple[list[int], list[int]]:
    rows = [odd.particle for odd in data.odd if odd.axis == "row"]
    cols = [odd.particle for odd in data.odd if odd.axis == "col"]
    return (rows, rows) if data.one_ensemble else (rows, cols)


def _header(data: CellScores, slots: tuple[str, str], measures: Sequence[CellMeasure]) -> str:
    first, second = (
        tag("b", _title_of(key), class_=f"cka-{slot}", title=key.model)
        for key, slot in zip(data.cell, slots, strict=True)
    )
    title = (
        f'<div class="cka-cell-title">{first} <span class="cka-muted">against</span> {second}</div>'
    )
    parts = [tag("strong", score(data.value, data.error))]
    sure = np.isfinite(data.error)
    if np.isfinite(data.value):
        parts.append(tag("span", plus_minus(data.error) if sure else "no error bar yet"))
    if not data.single:
        parts.append(tag("span", plural(int(data.pairs.sum()), "particle pair")))
    number = f'<div class="cka-score{"" if sure else " cka-unsettled"}">{"".join(parts)}</div>'
    help_ = {"title": data.chance.caveat} if data.chance and data.chance.caveat else {}
    several = len(measures) > 1  # their table then tells what chance gives
    chance = _chance(data) or ("" if several else row(measures[0]).chance)
    said = tag("div", data.reason or chance, class_="cka-muted", **help_)
    return title + number + said + (measure_table(measures) if several else "")


def _title_of(key: LayerKey) -> str:
    """The layer; with its model where it is a number, as in an `nn.Sequential`."""
    return f"{key.model} {key.layer}" if key.layer.isdigit() else key.layer


def _chance(data: CellScores) -> str:
    if data.chance is None:
        return ""
    words = "above chance" if data.chance.above else "not above chance"
    return f"{words} (null {score(0.0, data.chance.deviation)} {plus_minus(data.chance.deviation)})"


def _odd_sentence(data: CellScores) -> str:
    if data.odd:
        names = [tag("b", data.name(odd.axis, odd.particle)) for odd in data.odd[:3]]
        if len(data.odd) > 3:
            names.append(f"{len(data.odd) - 3} more")
        text = f"{names[0]} is the odd one out"
        if len(names) > 1:
            text = f"{', '.join(names[:-1])} and {names[-1]} stand out"
        own, others = data.odd_and_others()
        return (
            f'<div class="cka-callout cka-alarm">{text}: {score(own)} where the others '
            f"have {score(others)}</div>"
        )
    if data.verdict.unsure:
        return tag(
            "div",
            " ".join(_last(data, one) for one in data.verdict.unsure),
            class_="cka-callout",
        )
    scores = data.pair_scores
    if len(scores) < 3:
        return ""
    low, high = score(scores.min()), score(scores.max())
    between = f"all pairs have {low}" if low == high else f"pairs lie between {low} and {high}"
    return tag("div", f"No single particle stands out: {between}.", class_="cka-callout")


def _last(data: CellScores, one: OddOne) -> str:
    """What can be seen of the last particle of a side where it is not surely odd."""
    other = data.cell.col if one.axis == "row" else data.cell.row
    name = data.name(one.axis, one.particle)
    if len(data.scores if one.axis == "row" else data.scores.T) > 3:
        seen = f"{name} agrees least, {score(one.score)} where the others have {score(one.others)}"
        return f"{seen}; the others differ too much to call it odd."
    first, second = (i for i in range(3) if i != one.particle)
    seen = f"{name} agrees less with {other.model} than #{first} and #{second} do"
    if data.one_ensemble:
        seen = f"#{first} and #{second} agree more with each other than with #{one.particle}"
    return f"{seen}; three particles are too few to call one odd."


def _map_note(data: CellScores) -> str:
    row, col = data.cell
    if row == col:
        return "near is alike"
    return f"● {shorten(row.layer, 14)}  ◆ {shorten(col.layer, 14)}"


def _table(data: CellScores, tables: Tables) -> str:
    rows = []
    found = np.argwhere(data.pairs)
    for i, j in found[:MAX_TABLE]:
        value, error = data.scores[i, j], data.errors[i, j]
        mark = ' class="cka-odd-row"' if data.is_odd(i, j) else ""
        text = f"{score(value, error)} {plus_minus(error)}".strip()
        rows.append(f"<tr{mark}><td>#{i}</td><td>#{j}</td><td>{escape(text)}</td></tr>")
    (row, col), facts = data.cell, tables.result.measure
    head = "".join(tag("th", text) for text in (row.model, col.model, facts.title))
    measure = f", measure={facts.name!r}" if len(tables.result.measures) > 1 else ""
    call = (
        f"explorer.result.particles({row.model!r}, {col.model!r}, "
        f"row={row.layer!r}, col={col.layer!r}{measure})"
    )
    rest = len(found) - MAX_TABLE
    more = tag("div", f"and {plural(rest, 'more pair')}", class_="cka-muted") if rest > 0 else ""
    return (
        f'<div class="cka-table" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{more}{tag('code', call, class_='cka-code')}"
    )
