"""Tells the page what the kernel has heard, and answers it when it hears nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets as t

from cka_widget.widgets.look.assets import script


class Pulse(anywidget.AnyWidget):
    """Shows, under the state line, why a pressed button has not acted yet.

    Hosts such as Colab show nothing that a thread sends. There the page asks once a second, with
    the last beat that it has seen; where that is an old one, every widget's state is sent again
    by the thread that takes the message.

    Args:
        lock: held by whoever writes the explorer's widgets.
        everybody: gives the widgets to send again.
    """

    _esm = script("pulse.js")

    state = t.Unicode("idle").tag(sync=True)
    beat = t.Int(0).tag(sync=True)
    heard = t.Int(0).tag(sync=True)

    def __init__(self, lock: Any, everybody: Callable[[], Iterable[widgets.Widget]]) -> None:
        super().__init__()
        self._lock, self._everybody = lock, everybody
        self.on_msg(self._asked)
        self.add_class("cka-pulse")

    def tick(self, state: str) -> None:
        """Say that all views were written; the last write of a publication."""
        self.beat += 1
        self.state = state

    def hear(self) -> None:
        """Say that a click arrived."""
        with self._lock:
            self.heard += 1

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        with self._lock:
            if content.get("beat") != self.beat:
                for widget in self._everybody():
                    widget.send_state()
            self.send({"beat": self.beat})
