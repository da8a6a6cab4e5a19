"""Title, models in their colours, and the buttons of the run."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from cka_widget.widgets.look.format import tag
from cka_widget.widgets.run.more_data import MoreData


class Header(widgets.HBox):
    """Title and buttons; the explorer listens to the buttons and tells the state."""

    def __init__(self) -> None:
        self.title = widgets.HTML()
        self.title.add_class("cka-headline")
        self.run = _button("Run", "Stream the data once through every model")
        self.run.add_class("cka-primary")
        self.more = _button("Add data", "")
        self.pause = _button("Pause", "Stop before the next batch; nothing is lost")
        self.cancel = _button("Cancel", "End now and keep what was computed")
        self.enough = _button("Good enough", "End now and call the result done")
        self.steering = (self.pause, self.cancel, self.enough)
        for button in self.steering:
            button.add_class("cka-steer")
        self.goal = widgets.Dropdown(description="run until", options=[("the end", 0.0)])
        self.offer_goal(None)
        self.export = _button("Export ▾", "Save the picture, the numbers or the page")
        self.cost = widgets.HTML()
        self.cost.add_class("cka-cost")
        buttons = widgets.HBox(
            [self.goal, self.cost, self.run, self.more, *self.steering, self.export]
        )
        buttons.add_class("cka-buttons")
        super().__init__([self.title, buttons])
        self.add_class("cka-header")

    def offer_goal(self, goal: float | None) -> None:
        """Let the run end by itself at some standard error; `goal` is always among them."""
        goals = sorted({0.05, 0.02, 0.01} | ({goal} if goal else set()), reverse=True)
        options = [("the end", 0.0), *((f"± {one:g}", one) for one in goals)]
        if list(self.goal.options) != options:
            chosen = self.goal.value
            self.goal.options = options
            self.goal.value = chosen if chosen in [one for _, one in options] else 0.0

    def show_models(self, chips: Sequence[tuple[str, str]]) -> None:
        """`chips` are (text, palette slot), one or two."""
        parts = [
            f'<span class="cka-model cka-{slot}">{tag("span", text)}</span>' for text, slot in chips
        ]
        rest = parts[1] if len(parts) > 1 else '<span class="cka-muted">itself</span>'
        self.title.value = (
            f'<div class="cka-heading"><b>CKA explorer</b>{parts[0]}<span class="cka-versus">'
            f'<span class="cka-muted">against</span>{rest}</span></div>'
        )

    def show_state(self, state: str, has_result: bool, more: MoreData) -> None:
        """Offer the buttons that do something in this state."""
        working = state in ("running", "paused")
        _visible(self.run, not working)
        _visible(self.more, has_result and more.left and not working)
        self.more.tooltip = more.words
        _visible(self.pause, working)
        _visible(self.cancel, working)
        _visible(self.enough, working)
        _visible(self.export, has_result)
        self.run.description = "Run" if state == "idle" else "Run again"
        self.pause.description = "Resume" if state == "paused" else "Pause"
        self.pause.tooltip = (
            "Go on with the next batch"
            if state == "paused"
            else "Stop before the next batch; nothing is lost"
        )


def _button(text: str, tooltip: str) -> widgets.Button:
    return widgets.Button(description=text, tooltip=tooltip)


def _visible(widget: widgets.Widget, visible: bool) -> None:
    (widget.remove_class if visible else widget.add_class)("cka-hidden")
