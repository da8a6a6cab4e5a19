"""The matrix as a static picture, the way the field draws it; matplotlib only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cka_widget.names import writable
from cka_widget.result.export.brackets import ROOM, draw_brackets, take_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cka_widget.result.result import CKAResult

_FONT = 8.0  # points, of the tick labels
_INCH = 72.0  # points
_LONGEST = 28  # characters of a tick label
_PAGE = 9.0  # inches of the longer side of a large matrix
_SMALLEST = 2.6  # and of a small one


def plot(
    result: CKAResult,
    row_model: str | None = None,
    col_model: str | None = None,
    *,
    measure: str | None = None,
    **options: Any,
) -> Axes:
    """Draw `result.matrix(row_model, col_model, measure=measure)`.

    Args:
        result: of a run.
        row_model: model of the rows; the first one where None.
        col_model: model of the columns; the last one where None.
        measure: one of `result.measures`; the first where None. Its title stands at the colour
            bar, with its value by chance where that is known and above 0.
        options: of `draw`.

    Returns:
        The axes; `.figure.savefig("cka.png")` keeps the picture.

    Raises:
        KeyError: no such model or measure.
    """
    result = result.of(measure)
    row_model = result.models[0] if row_model is None else row_model
    col_model = result.models[-1] if col_model is None else col_model
    matrix = result.matrix(row_model, col_model)
    names = (_axis_name(result, row_model), _axis_name(result, col_model))
    options = {"value_name": result.measure.title, "chance": result.measure.chance} | options
    return draw(matrix.to_numpy(), list(matrix.index), list(matrix.columns), *names, **options)


def draw(
    values: npt.ArrayLike,
    row_labels: Sequence[str],
    col_labels: Sequence[str],
    row_name: str = "",
    col_name: str = "",
    *,
    ax: Axes | None = None,
    origin: Literal["upper", "lower"] = "upper",
    cmap: str = "magma",
    vmin: float = 0.0,
    vmax: float = 1.0,
    annotate: bool = False,
    colorbar: bool = True,
    brackets: bool = True,
    value_name: str = "CKA",
    chance: float | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a matrix of CKA values, or of something else.

    Args:
        values: (rows, columns); NaN is hatched. What lies outside vmin ... vmax takes the end's
            colour, and the colour bar gets a pointed end there.
        row_labels: layers of the rows.
        col_labels: layers of the columns.
        row_name: name of the vertical axis.
        col_name: name of the horizontal axis.
        ax: where to draw; a new figure where None.
        origin: "upper" puts the first layer on top, "lower" at the bottom, as many papers do.
        cmap: any of matplotlib's colour maps.
        vmin: value of the lowest colour.
        vmax: value of the highest colour.
        annotate: write the values into the cells.
        colorbar: draw a colour bar.
        brackets: gather neighbouring layers under one module by a bracket with its name, and
            write only what is left of theirs; what all names begin with goes to the axis' name.
        value_name: label of the colour bar.
        chance: the value by chance alone; above 0 it is told at the colour bar, and marked there.
        title: above the picture.

    Returns:
        The axes drawn on.

    Raises:
        ValueError: labels that do not fit the values, or an unknown origin.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.shape != (len(row_labels), len(col_labels)):
        raise ValueError(
            f"values {table.shape} do not fit {len(row_labels)} and {len(col_labels)} labels"
        )
    if origin not in ("upper", "lower"):
        raise ValueError(f"origin={origin!r} is not known; choose 'upper' or 'lower'")
    ax = _new_axes(*table.shape, annotate) if ax is None else ax
    # Undefined cells are left out of the image: what shows there is the hatched background.
    ax.patch.set(facecolor="0.93", edgecolor="0.65", hatch="////")
    image = ax.imshow(
        np.ma.masked_invalid(table),
        origin=origin,
        cmap=cmap,
        vmin=vmin,
        vmax=vmax,
        interpolation="nearest",
    )
    _label(ax, "y", row_labels, row_name, brackets)
    _label(ax, "x", col_labels, col_name, brackets)
    if title is not None:
        ax.set_title(_plain(title))
    if annotate:
        _annotate(ax, table, image)
    if colorbar:
        below, above = np.nanmin(table, initial=vmin) < vmin, np.nanmax(table, initial=vmax) > vmax
        ends = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
        # In the axes' own coordinates the bar keeps to the matrix, whatever its proportions.
        width, _ = _inches(ax)
        beside = ax.inset_axes((1 + 0.1 / width, 0, 0.15 / width, 1))
        extend = ends[int(below), int(above)]
        bar = ax.figure.colorbar(image, cax=beside, extend=extend)
        told = f" (by chance {f'{chance:.2g}'.removeprefix('0')})" if chance and chance > 0 else ""
        bar.set_label(_plain(value_name + told))
        if chance and chance > 0 and vmin < chance < vmax:
            beside.axhline(chance, color=_ink(image, chance), linewidth=1.2)
    return ax


def _axis_name(result: CKAResult, model: str) -> str:
    particles = result.n_particles(model)
    return f"{model} ({particles} particles)" if particles > 1 else model


def _new_axes(rows: int, cols: int, annotate: bool) -> Axes:
    from matplotlib import pyplot as plt

    size = figure_size(rows, cols, annotate=annotate)
    return plt.subplots(figsize=size, layout="constrained")[1]


def figure_size(rows: int, cols: int, *, annotate: bool = False) -> tuple[float, float]:
    """Width and height (inches) that suit a matrix with its labels."""
    # Room for one label a cell until the figure would outgrow a page.
    legible = 0.36 if annotate else 1.4 * _FONT / _INCH
    cell = max(min(legible, _PAGE / max(rows, cols)), _SMALLEST / max(rows, cols))
    return cols * cell + 2.4, rows * cell + 1.8


def _label(
    ax: Axes, which: Literal["x", "y"], labels: Sequence[str], name: str, brackets: bool
) -> None:
    stem, groups, texts = take_apart(labels) if brackets else ("", [], list(labels))
    inches = _inches(ax)[which == "y"]
    kept, axis = thinned(len(texts), inches), ax.xaxis if which == "x" else ax.yaxis
    axis.set_ticks(kept, [_short(texts[i]) for i in kept], fontsize=_FONT)
    axis.set_tick_params(length=2, labelrotation=90 if which == "x" else 0)
    axis.set_label_text(_plain(" · ".join(filter(None, (name, stem)))))
    if groups:
        draw_brackets(ax, which, groups, inches * _INCH / len(labels), _FONT)
        axis.labelpad = ROOM


def _inches(ax: Axes) -> tuple[float, float]:
    ax.apply_aspect()
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    return box.width, box.height


def thinned(count: int, inches: float) -> list[int]:
    """Indices of the labels that fit: every k-th, k as small as legible."""
    fit = max(1, int(inches * _INCH / (1.15 * _FONT)))
    step = max(1, -(-count // fit))
    return list(range(0, count, step))


def _short(label: str) -> str:
    # A dotted name tells most at its end.
    return _plain(label if len(label) <= _LONGEST else "…" + label[1 - _LONGEST :])


def _plain(text: str) -> str:
    return writable(text).replace("$", r"\$")  # a dollar sign would start a formula


def _annotate(ax: Axes, table: npt.NDArray[np.float64], image: Any) -> None:
    for (i, j), value in np.ndenumerate(table):
        if np.isnan(value):
            continue
        ink = _ink(image, value)
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)


def _ink(image: Any, value: float) -> str:
    """Black or white, whichever shows on a value's colour."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return "w" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "k"
