"""Neighbouring layers under one module, and the brackets that gather them along an axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cka_widget.names import writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOM = 25.0
"""Points that a bracket takes with its name."""
_INCH = 72.0  # points


class Bracket(NamedTuple):
    """A run of layers: the name of their module, the first and the last place."""

    name: str
    first: int
    last: int


class Names(NamedTuple):
    """Dotted names, taken apart.

    Attributes:
        stem: what all of them begin with.
        brackets: runs of two or more under one module below the stem.
        texts: what is left of each name.
    """

    stem: str
    brackets: list[Bracket]
    texts: list[str]


def take_apart(labels: Sequence[str]) -> Names:
    """Stem, brackets and what is left of dotted names in the order of an axis."""
    parts = [label.split(".") for label in labels]
    if len(parts) < 2:
        return Names("", [], list(labels))
    start = _shared(parts)
    brackets, ends = [], [start] * len(parts)
    for run in _runs(parts, start):
        # A module whose only child holds the layers (encoder.layer) makes one bracket with it.
        end = start + max(1, _shared([parts[at][start:] for at in run]))
        brackets.append(Bracket(".".join(parts[run[0]][start:end]), run[0], run[-1]))
        ends[run[0] : run[-1] + 1] = [end] * len(run)
    texts = [".".join(p[end:]) or p[-1] for p, end in zip(parts, ends, strict=True)]
    return Names(".".join(parts[0][:start]), brackets, texts)


def _runs(parts: Sequence[Sequence[str]], depth: int) -> Iterator[list[int]]:
    for _, run in groupby(range(len(parts)), key=lambda at: parts[at][depth]):
        places = list(run)
        if len(places) > 1:
            yield places


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """Number of first components that all have in common; each keeps its last one."""
    most = min(map(len, parts)) - 1
    return next((n for n in range(most) if len({p[n] for p in parts}) > 1), most)


def draw_brackets(
    ax: Axes, which: Literal["x", "y"], brackets: Sequence[Bracket], cell: float, font: float
) -> None:
    """Draw brackets outside of the labels of an axis, with their names as far as they fit.

    Args:
        ax: with its labels.
        which: axis.
        brackets: by places on it.
        cell: points that one place takes.
        font: points of the names.
    """
    from matplotlib.lines import Line2D
    from matplotlib.markers import TICKRIGHT, TICKUP
    from matplotlib.transforms import ScaledTranslation

    rows = which == "y"
    labels = ax.get_yticklabels() if rows else ax.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    room = max(box.width if rows else box.height for box in boxes) * _INCH / ax.figure.dpi
    # Along the axis in its own data, across it in points from the edge of the matrix.
    edge = ax.get_yaxis_transform() if rows else ax.get_xaxis_transform()
    shifts = [-(room + gap) / _INCH for gap in (11, 14)]
    line, text = (
        edge + ScaledTranslation(x * rows, x * (not rows), ax.figure.dpi_scale_trans)
        for x in shifts
    )
    style: dict[str, Any] = {"color": "0.4", "linewidth": 0.8, "markersize": 3, "clip_on": False}
    style |= {"marker": TICKRIGHT if rows else TICKUP, "transform": line}
    turned: dict[str, Any] = (
        {"rotation": 90, "ha": "right", "va": "center"} if rows else {"ha": "center", "va": "top"}
    )
    for name, first, last in brackets:
        ends, middle = (first - 0.4, last + 0.4), (first + last) / 2
        ax.add_line(Line2D((0, 0), ends, **style) if rows else Line2D(ends, (0, 0), **style))
        x, y = (0, middle) if rows else (middle, 0)
        said = _fit(name, int(cell * (last - first + 1) / (0.6 * font)))
        ax.text(x, y, writable(said), transform=text, fontsize=font, parse_math=False, **turned)


def _fit(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    return f"{name[: most - 1]}…" if most > 2 else ""
