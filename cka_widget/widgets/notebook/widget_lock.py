"""One lock for everybody who writes explorers' widgets."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import ipywidgets as widgets

# One for all explorers: traits of several may be linked, and with a lock each, two threads that
# move two of them at once would wait for each other.
LOCK = threading.RLock()


def serialise(root: widgets.Widget, lock: Any) -> None:
    """Let `root` and its descendants take messages from the page only while `lock` is free.

    ipywidgets holds a widget's notifications while it applies such a message; a publisher that
    writes the same widget from another thread in that moment loses or delays its update. All of
    the explorer's own writes hold the same lock, so that there is one writer at a time, whichever
    thread (main, subshell or publisher) it is. The lock is re-entrant: callbacks run inside.
    """
    for widget in family([root]):
        widget.set_state = _locked(widget.set_state, lock)


def family(
    roots: Iterable[widgets.Widget], ways: Iterable[str] = ("children",)
) -> Iterator[widgets.Widget]:
    """The widgets and all that they hold in the named traits, each once."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        widget = waiting.pop()
        if widget.model_id in seen:
            continue
        seen.add(widget.model_id)
        yield widget
        for way in ways:
            held = getattr(widget, way, ())
            waiting.extend(held.values() if isinstance(held, dict) else held)


def close_all(roots: Iterable[widgets.Widget]) -> None:
    """Close the widgets and every one that any trait of theirs holds, layouts and scales too.

    ipywidgets keeps each widget until it is closed, and closing one closes no other.
    """
    found: dict[int, widgets.Widget] = {}
    waiting = list(roots)
    while waiting:
        widget = waiting.pop()
        if id(widget) not in found:
            found[id(widget)] = widget
            # A trait without a value yet would make one when asked.
            named = filter(widget.trait_has_value, widget.trait_names())
            waiting.extend(one for name in named for one in _widgets_in(getattr(widget, name)))
    for widget in found.values():
        widgets.Widget.close(widget)


def _widgets_in(value: Any) -> Iterator[widgets.Widget]:
    if isinstance(value, widgets.Widget):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _widgets_in(one)


def _locked(method: Any, lock: Any) -> Any:
    def set_state(state: dict[str, Any]) -> None:
        with lock:
            method(state)

    return set_state
