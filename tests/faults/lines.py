"""The k-th line of the package that a thread comes to, as a place to strike at."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.utils.hooks

import cka_widget

PACKAGE = str(Path(cka_widget.__file__).parent)
# What cleans up for it is watched too.
WATCHED = (PACKAGE, contextlib.__file__, torch.utils.hooks.__file__)

Place = tuple[str, int]  # of a line: file and number


class Lines:
    """While entered, counts the lines that this thread comes to, and acts before one of them.

    Attributes:
        seen: how often each was.
    """

    def __init__(self, at: tuple[Place, int] | None = None, act: Callable[[], None] = list) -> None:
        self.seen: Counter[Place] = Counter()
        self.acted = False
        self._at, self._act = at, act

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def trace(self, frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event == "line":
            place = frame.f_code.co_filename, frame.f_lineno
            self.seen[place] += 1
            if self._at == (place, self.seen[place]):
                self.acted = True
                self._act()
        return self.trace

    def draw(self, rng: random.Random) -> tuple[Place, int]:
        """One of them: any line as likely as any other, or any time at which one came."""
        places = sorted(self.seen)
        weights = None if rng.random() < 0.6 else [self.seen[place] for place in places]
        (place,) = rng.choices(places, weights)
        return place, rng.randint(1, self.seen[place])


class Soon:
    """Once started, acts at the k-th call, return or line's end in what is watched."""

    def __init__(self, after: int, act: Callable[[], None]) -> None:
        self._left, self._act = after, act

    def start(self) -> None:
        sys.setprofile(self._profile)

    def stop(self) -> None:
        sys.setprofile(None)

    def _profile(self, frame: Any, event: str, arg: Any) -> None:
        if frame.f_code.co_filename.startswith(WATCHED):
            self._left -= 1
            if not self._left:
                self._act()


def short(place: Place) -> str:
    return f"{Path(place[0]).name}:{place[1]}"
