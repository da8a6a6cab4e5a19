"""A static picture of the heatmap, for files and for places without a front end."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from cka_widget.widgets.format import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"a": "#2563eb", "b": "#0f766e"}
MAX_LABELS = 40


def figure(
    values: np.ndarray,
    rows: tuple[str, list[str], str],
    cols: tuple[str, list[str], str],
    *,
    value_name: str = "CKA",
    colormap: str = "magma",
    limits: tuple[float, float] | None = (0.0, 1.0),
    origin: str = "top",
    note: str = "",
) -> Figure:
    """Draw a matrix as a publication would.

    Args:
        values: (rows, columns), NaN where undefined (hatched).
        rows: model name, layer names, palette slot.
        cols: the same for the columns.
        value_name: label of the colour bar.
        colormap: a matplotlib colour map.
        limits: ends of the colour range; None takes the data's.
        origin: "top" or "bottom": where the first layer is.
        note: small print under the picture.
    """
    # Imported here: matplotlib takes longer to load than the rest of the explorer to show.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = (min(max(0.22 * n + 1.6, 3.4), 10.0) for n in values.shape)
    drawing = Figure(figsize=(width + 1.6, height), dpi=110, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    axes.patch.set(hatch="////", edgecolor="#b4b9c0", facecolor="white")
    low, high = limits or (None, None)
    picture = axes.imshow(
        np.ma.masked_invalid(values), cmap=colormap, vmin=low, vmax=high, aspect="auto",
        interpolation="nearest", origin="upper" if origin == "top" else "lower",
    )  # fmt: skip
    for side, (name, labels, slot) in ((axes.yaxis, rows), (axes.xaxis, cols)):
        step = -(-len(labels) // MAX_LABELS)
        shown = range(0, len(labels), max(step, 1))
        side.set_ticks(list(shown), [shorten(labels[i], 22) for i in shown])
        side.set_label_text(name, color=COLORS[slot], fontsize=10)
    axes.tick_params(labelsize=7, length=2)
    axes.tick_params(axis="x", labelrotation=90)
    drawing.colorbar(picture, ax=axes, label=value_name, fraction=0.05, pad=0.02)
    if note:
        axes.set_title(note, fontsize=8, loc="left", color="#656d76")
    return drawing


def png(drawing: Figure) -> bytes:
    """The drawing as PNG."""
    return _saved(drawing, "png")


def svg(drawing: Figure) -> bytes:
    """The drawing as SVG."""
    return _saved(drawing, "svg")


def _saved(drawing: Figure, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    drawing.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
