"""The heatmap on screen as a static picture, for files and for places without a front end."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from cka_widget.result.export.plotting import draw, figure_size
from cka_widget.widgets.look.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW, PRINT = 110, 300
"""Dots per inch of the picture in a cell's output, and of the one for a publication."""


def figure(
    values: np.ndarray,
    rows: tuple[str, list[str], str],
    cols: tuple[str, list[str], str],
    *,
    value_name: str = "CKA",
    chance: float | None = None,
    colormap: str = "magma",
    limits: tuple[float, float] | None = (0.0, 1.0),
    origin: str = "top",
    note: str = "",
) -> Figure:
    """Draw a matrix as `CKAResult.plot` does, the models' names in their colours.

    Args:
        values: (rows, columns), NaN where undefined (hatched).
        rows: model name, layer names, palette slot.
        cols: the same for the columns.
        value_name: label of the colour bar.
        chance: the value by chance, told at the colour bar where it is not 0.
        colormap: a matplotlib colour map.
        limits: ends of the colour range; None takes the data's.
        origin: "top" or "bottom": where the first layer is.
        note: small print over the picture.
    """
    # Imported here: matplotlib takes longer to load than the rest of the explorer to show.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if limits is None:
        known = values[np.isfinite(values)]
        limits = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    # Not by pyplot, whose figures a notebook shows by itself, and which threads may not share.
    drawing = Figure(figure_size(*values.shape), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = draw(
        values, rows[1], cols[1], rows[0], cols[0],
        ax=drawing.add_subplot(), origin="upper" if origin == "top" else "lower",
        cmap=colormap, vmin=limits[0], vmax=limits[1], value_name=value_name, chance=chance,
    )  # fmt: skip
    for side, (_, _, slot) in ((axes.yaxis, rows), (axes.xaxis, cols)):
        side.label.set_color(LIGHT[slot])
    if note:
        axes.set_title(note, fontsize=8, loc="left", color=LIGHT["muted"])
    return drawing


def png(drawing: Figure, dpi: int = PREVIEW) -> bytes:
    """The drawing as PNG."""
    return _saved(drawing, "png", dpi=dpi)


def svg(drawing: Figure) -> bytes:
    """The drawing as SVG."""
    return _saved(drawing, "svg")


def _saved(drawing: Figure, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    drawing.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
