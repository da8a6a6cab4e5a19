"""What the heatmap shows and how: statistic, measure, pair of models, range, colours, direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from cka_widget.widgets.look.format import distinct, shorten

STATISTICS = {"mean": "mean", "spread": "spread", "stderr": "± error"}
_TOOLTIPS = [
    "the score, averaged over particle pairs",
    "standard deviation of the score over particle pairs",
    "standard error of the mean, from the number of samples",
]


class Toolbar(widgets.HBox):
    """Controls only; the explorer reads and writes their values."""

    def __init__(self, models: Sequence[str], ensembles: bool, measures: Mapping[str, str]) -> None:
        shown = [s for s in STATISTICS if ensembles or s != "spread"]
        self.statistic = widgets.ToggleButtons(
            options=[(STATISTICS[s], s) for s in shown],
            tooltips=[_TOOLTIPS[list(STATISTICS).index(s)] for s in shown],
        )
        self.measure = widgets.Dropdown(
            description="measure",
            options=[(title, name) for name, title in measures.items()],
        )
        self.measure.add_class("cka-measure")
        self.pair = widgets.ToggleButtons(options=[("", ("", ""))])
        self.rows = widgets.Dropdown(description="rows", options=[(shorten(m), m) for m in models])
        self.cols = widgets.Dropdown(
            description="columns", options=[(shorten(m), m) for m in models]
        )
        self.best = widgets.Checkbox(value=False, description="best match per row", indent=False)
        self.range = widgets.Dropdown(
            description="range", options=[("0–1", False), ("of the data", True)]
        )
        self.colormap = widgets.Dropdown(
            description="colours", options=["magma", "cividis", "viridis"]
        )
        self.origin = widgets.Dropdown(
            description="first layer", options=[("on top", "top"), ("at the bottom", "bottom")]
        )
        choice = [self.rows, self.cols] if len(models) > 2 else []
        if len(models) == 2:
            first, second = models
            short = {m: shorten(name, 13) for m, name in distinct(models).items()}
            self.pair.options = [
                (f"{short[a]} × {short[b]}", (a, b))
                for a, b in ((first, second), (first, first), (second, second))
            ]
            choice = [self.pair]
        looks = widgets.HBox([self.best, self.range, self.colormap, self.origin])
        if len(measures) > 1:
            choice.insert(0, self.measure)
        what = widgets.HBox([self.statistic, *choice])
        for box in (what, looks):
            box.add_class("cka-controls")
        super().__init__([what, looks])
        self.add_class("cka-toolbar")
        self._wanted = False
        self.statistic.observe(self._turned, "value")

    @property
    def chosen_pair(self) -> tuple[str, str]:
        """Row and column model of the two lists."""
        return self.rows.value, self.cols.value

    def _turned(self, change: Any) -> None:
        """Best matches and the range 0 to 1 are those of the mean alone."""
        if change["old"] == "mean":
            self._wanted = self.best.value
        mean = change["new"] == "mean"
        self.best.value = self._wanted and mean
        self.best.disabled = self.range.disabled = not mean

    def show_pair(self, pair: tuple[str, str]) -> None:
        """Let the controls say which models are on screen; a turned pair has no button."""
        self.pair.value = pair if pair in [value for _, value in self.pair.options] else None
        # Both lists first, then the word that one has changed: half a pair means another one.
        with self.rows.hold_trait_notifications(), self.cols.hold_trait_notifications():
            self.rows.value, self.cols.value = pair
