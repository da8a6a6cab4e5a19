"""Ctrl-C that comes through while others' code runs, and waits while ours does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

# So many presses of Ctrl-C come through wherever they find the run: cleaning up may hang too.
_PATIENCE = 4


class Shield:
    """While entered, Ctrl-C of the main thread waits, but within `opened`.

    Half of the sums that hold a batch, half of the hooks removed: an exception may come between
    any two steps of Python's. An interrupt that waits is raised by the next `opened`, or when the
    shield is left. One that comes through closes the shield until the next `opened`, so that a
    second one finds nothing half cleaned up. In other threads, where none arrives, it does
    nothing.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, Any], Any] | None = None
        self._caught: list[tuple[int, Any]] = []
        self._open = False
        self._left = False

    def __enter__(self) -> Shield:
        found = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(found):
            self._handler = found
            signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left = True
        handler = self._before()
        # Others may have set a handler of their own since, which is theirs to take back.
        if handler is not None and signal.getsignal(signal.SIGINT) == self._arrived:
            signal.signal(signal.SIGINT, handler)
        if not isinstance(error, KeyboardInterrupt):  # one is enough
            self._raise_what_waits()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Interrupts come through until the block ends."""
        self._raise_what_waits()
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def _arrived(self, number: int, frame: Any) -> None:
        through, self._open = self._open, False
        if not through:
            self._caught.append((number, frame))
        handler = self._before()
        if handler is not None and (through or len(self._caught) >= _PATIENCE):
            handler(number, frame)

    def _raise_what_waits(self) -> None:
        handler = self._before()
        if self._caught and handler is not None:
            caught, self._caught = self._caught, []
            handler(*caught[0])

    def _before(self) -> Callable[[int, Any], Any] | None:
        """The handler that was found; of a shield that was left meanwhile, the one before that."""
        found = self._handler
        shield = getattr(found, "__self__", None)
        return shield._before() if isinstance(shield, Shield) and shield._left else found
