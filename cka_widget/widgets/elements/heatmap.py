"""A layers x layers matrix on a canvas: zoom, brackets, error bars, keyboard."""

from __future__ import annotations

import threading
from typing import Any

import anywidget
import numpy as np
import traitlets as t
from numpy.typing import ArrayLike

from cka_widget.widgets.look.assets import COLOR_MAPS, SLOTS, THEMES, known_keywords, script, styles


def _wire(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


class Heatmap(anywidget.AnyWidget):
    """A matrix of scores with the error of each, drawn on a canvas.

    The matrix travels as little-endian float32, row-major: the score at (r, c) belongs to
    `row_labels[r]` and `col_labels[c]`. NaN is a cell without a score: it is hatched, with the
    reason in its tooltip. `version` rises last with each write: observe it, not the parts.

    Args:
        values: scores, shape (rows, columns); None for an empty matrix.
        stderr: standard errors, same shape and unit, NaN where unknown; None where there are none.
        **traits: any trait by name, such as `row_labels`, `title`, `colormap`.

    Raises:
        TypeError: a keyword that is no trait, with the nearest name.
        ValueError: `values` is not two-dimensional, or `stderr` has another shape.
    """

    _esm = script("heatmap.js")
    _css = styles("heatmap.css")

    values = t.Bytes(b"").tag(sync=True)
    stderr = t.Bytes(b"").tag(sync=True)
    shape = t.List(t.Int(), [0, 0], minlen=2, maxlen=2).tag(sync=True)
    version = t.Int(0).tag(sync=True)

    row_labels = t.List(t.Unicode()).tag(sync=True)
    col_labels = t.List(t.Unicode()).tag(sync=True)
    row_info = t.List(t.Unicode()).tag(sync=True)
    col_info = t.List(t.Unicode()).tag(sync=True)
    row_name = t.Unicode("").tag(sync=True)
    col_name = t.Unicode("").tag(sync=True)
    row_color = t.Enum(SLOTS, "a").tag(sync=True)
    col_color = t.Enum(SLOTS, "b").tag(sync=True)

    vmin = t.Float(0.0).tag(sync=True)
    vmax = t.Float(1.0).tag(sync=True)
    auto_range = t.Bool(False).tag(sync=True)
    colormap = t.Enum(COLOR_MAPS, "magma").tag(sync=True)
    value_name = t.Unicode("CKA").tag(sync=True)
    bar_title = t.Unicode("").tag(sync=True)
    chance = t.Float(None, allow_none=True).tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    row_reasons = t.List(t.Unicode()).tag(sync=True)
    col_reasons = t.List(t.Unicode()).tag(sync=True)
    reason = t.Unicode("").tag(sync=True)

    origin = t.Enum(("top", "bottom"), "top").tag(sync=True)
    best_match = t.Bool(False).tag(sync=True)
    annotate = t.Bool(False).tag(sync=True)
    brackets = t.Bool(True).tag(sync=True)
    square = t.Bool(False).tag(sync=True)
    compact = t.Bool(False).tag(sync=True)
    flag_rows = t.List(t.Int()).tag(sync=True)
    flag_cols = t.List(t.Int()).tag(sync=True)
    uncertain_above = t.Float(0.03).tag(sync=True)
    settled = t.Bool(True).tag(sync=True)

    selected = t.List(t.Int()).tag(sync=True)
    hovered = t.List(t.Int()).tag(sync=True)
    theme = t.Enum(THEMES, "auto").tag(sync=True)
    height = t.Int(0, min=0).tag(sync=True)

    def __init__(
        self, values: ArrayLike | None = None, stderr: ArrayLike | None = None, **traits: Any
    ) -> None:
        known_keywords(type(self), traits)
        self._writing = threading.RLock()
        super().__init__(**traits)
        if values is not None:
            self.set_data(values, stderr)

    def set_data(self, values: ArrayLike, stderr: ArrayLike | None = None) -> None:
        """Show another matrix; the page hears of it in one message.

        Args:
            values: scores, shape (rows, columns), NaN where undefined.
            stderr: standard errors, same shape, or None.

        Raises:
            ValueError: `values` is not two-dimensional, or `stderr` has another shape.
        """
        scores = np.asarray(values, dtype=np.float32)
        if scores.ndim != 2:
            raise ValueError(f"values must have two dimensions (rows, columns), not {scores.ndim}")
        errors = None if stderr is None else np.asarray(stderr, dtype=np.float32)
        if errors is not None and errors.shape != scores.shape:
            raise ValueError(f"stderr has shape {errors.shape}, values have {scores.shape}")
        # ipywidgets loses or repeats changes when two threads hold the same widget's sync.
        with self._writing, self.hold_sync():
            self.shape = list(scores.shape)
            self.values = _wire(scores)
            self.stderr = b"" if errors is None else _wire(errors)
            self.version += 1

    def set_labels(
        self,
        rows: list[str],
        cols: list[str],
        *,
        row_info: list[str] | None = None,
        col_info: list[str] | None = None,
        row_reasons: list[str | None] | None = None,
        col_reasons: list[str | None] | None = None,
    ) -> None:
        """Name the rows and columns.

        Args:
            rows: full dotted layer names, top to bottom of the matrix.
            cols: the same, left to right.
            row_info: what the tooltip adds to a row's name, such as `"Conv2d 64×8×8"`.
            col_info: the same for columns.
            row_reasons: why a row's layer has no scores; None or `""` where it has.
            col_reasons: the same for columns.
        """
        with self._writing, self.hold_sync():
            self.row_labels, self.col_labels = list(rows), list(cols)
            self.row_info, self.col_info = list(row_info or []), list(col_info or [])
            self.row_reasons = [r or "" for r in row_reasons or []]
            self.col_reasons = [r or "" for r in col_reasons or []]

    def array(self) -> np.ndarray:
        """Return the matrix as float32, shape (rows, columns); a copy."""
        return np.frombuffer(self.values, dtype="<f4").reshape(self.shape).copy()

    def stderr_array(self) -> np.ndarray | None:
        """Return the standard errors, shape (rows, columns), or None where there are none."""
        if not self.stderr:
            return None
        return np.frombuffer(self.stderr, dtype="<f4").reshape(self.shape).copy()

    def value_at(self, row: int, col: int) -> float:
        """Return the score of one cell; NaN where it is undefined.

        Raises:
            IndexError: the cell lies outside the matrix.
        """
        rows, cols = self.shape
        if not (0 <= row < rows and 0 <= col < cols):
            raise IndexError(f"cell ({row}, {col}) lies outside a {rows} x {cols} matrix")
        at = 4 * (row * cols + col)
        return float(np.frombuffer(self.values[at : at + 4], dtype="<f4")[0])

    @t.validate("selected", "hovered")
    def _cell(self, proposal: dict[str, Any]) -> list[int]:
        pair: list[int] = proposal["value"]
        if len(pair) not in (0, 2):
            raise t.TraitError(f"{proposal['trait'].name} is [] or [row, column], not {pair}")
        return pair
