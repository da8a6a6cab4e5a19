"""Which widgets a notebook's cell shows: executed again, it shows others."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from weakref import WeakSet

from IPython import get_ipython


class Cells:
    """What every cell has shown since it was last executed."""

    def __init__(self) -> None:
        self._shown: dict[Hashable, tuple[Hashable, WeakSet[Any]]] = {}

    def show(self, widget: Any, cell: Hashable, execution: Hashable) -> list[Any]:
        """Note that a cell shows the widget.

        Returns:
            What it showed in earlier executions, and no cell shows any more.
        """
        before, held = self._shown.get(cell, (execution, WeakSet()))
        if before == execution:
            held.add(widget)
            self._shown[cell] = execution, held
            return []
        self._shown[cell] = execution, WeakSet([widget])
        still = [other for _, shown in self._shown.values() for other in shown]
        return [old for old in held if not any(old is other for other in still)]


_CELLS = Cells()


def left_by(widget: Any) -> list[Any]:
    """Widgets that the cell being executed has shown before, and shows no more with this one.

    None where the front end does not tell its cells.
    """
    parent = getattr(get_ipython(), "parent_header", None) or {}
    cell = parent.get("metadata", {}).get("cellId")
    execution = parent.get("header", {}).get("msg_id")
    return _CELLS.show(widget, cell, execution) if cell and execution else []


def named(widget: Any) -> bool:
    """Whether a variable of the notebook holds the widget, itself or in a list or mapping.

    The variables of IPython's own history, which begin with a line, do not count.
    """
    variables = getattr(get_ipython(), "user_ns", None) or {}
    for name, value in list(variables.items()):
        if name.startswith("_") or name in ("In", "Out"):
            continue
        held = value.values() if isinstance(value, dict) else value
        several = isinstance(value, (list, tuple, set, dict))
        if value is widget or (several and any(one is widget for one in list(held))):
            return True
    return False
