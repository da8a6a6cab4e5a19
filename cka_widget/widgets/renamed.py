"""A trait's old name, which goes on working for one version with a warning."""

from __future__ import annotations

import warnings
from typing import Any

import traitlets as t


class Renamed(t.TraitType[Any, Any]):
    """Reads and writes the trait that has another name now; `Renaming` tells its observers."""

    def __init__(self, now: str) -> None:
        super().__init__()
        self.now = now

    def get(self, obj: Any, cls: Any = None) -> Any:
        """The other trait's value."""
        self.warn(4)
        return getattr(obj, self.now)

    def set(self, obj: Any, value: Any) -> None:
        """Sets the other trait; raises what that raises."""
        self.warn(4)
        setattr(obj, self.now, value)

    def warn(self, stacklevel: int) -> None:
        """One FutureWarning, at the line of whoever used the old name."""
        text = f'"{self.name}" is called "{self.now}" now; the old name goes with the next version'
        warnings.warn(text, FutureWarning, stacklevel=stacklevel)


class Renaming(t.HasTraits):
    """Has traits with old names: who observes or links one is told of the new one's changes."""

    def observe(self, handler: Any, names: Any = t.All, type: Any = "change") -> None:
        """As of traitlets, with a warning where a name is an old one."""
        for name in [names] if isinstance(names, str) else names if isinstance(names, list) else []:
            if isinstance(old := self.traits().get(name), Renamed):
                old.warn(3)
        super().observe(handler, names, type)

    def notify_change(self, change: Any) -> None:
        """Tell observers of the old name too."""
        super().notify_change(change)
        for name, trait in self.traits().items():
            if isinstance(trait, Renamed) and trait.now == change["name"]:
                super().notify_change(t.Bunch(change, name=name))
