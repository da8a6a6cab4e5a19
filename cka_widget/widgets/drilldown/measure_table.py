"""The selected cell under every measure: a short table, each score on a track from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cka_widget.result.cell.cell_measures import CellMeasure
from cka_widget.widgets.look.format import by_chance, plus_minus, score, tag


class Row(NamedTuple):
    """A measure as it is written: the table of cases holds it to the exported page's."""

    title: str
    value: str
    chance: str
    """Empty where chance gives 0, or is not known."""
    at: float | None
    """Per cent of the track; None where there is no score."""
    tick: float | None
    """The same of chance."""


def row(measure: CellMeasure) -> Row:
    """The texts of a measure and its places on the track."""
    title, value, error, chance = measure
    known = math.isfinite(value)
    return Row(
        title,
        f"{score(value, error)} {plus_minus(error)}".strip() if known else "undefined",
        by_chance(chance) if chance > 0 else "",
        _percent(value) if known else None,
        _percent(chance) if chance > 0 else None,
    )


def measure_table(measures: Sequence[CellMeasure]) -> str:
    """HTML of the rows; the first, which is the one that is shown, stands out."""
    lines = "".join(_line(row(one), shown=k == 0) for k, one in enumerate(measures))
    return (
        '<table class="cka-measures" aria-label="under every measure">'
        f"<tbody>{lines}</tbody></table>"
    )


def _line(of: Row, *, shown: bool) -> str:
    marks = _mark("cka-tick", of.tick) + _mark("cka-at", of.at)
    chance = tag("div", of.chance, class_="cka-muted") if of.chance else ""
    kind = ' class="cka-shown"' if shown else ""
    return (
        f"<tr{kind}>{tag('th', of.title, scope='row')}"
        f'<td aria-hidden="true"><div class="cka-track">{marks}</div></td>'
        f"<td>{tag('span', of.value)}{chance}</td></tr>"
    )


def _mark(name: str, at: float | None) -> str:
    return "" if at is None else f'<i class="{name}" style="left: {at:g}%"></i>'


def _percent(value: float) -> float:
    return math.floor(1000 * min(max(value, 0.0), 1.0) + 0.5) / 10
