"""Ctrl-C that comes through while others' code runs, and waits while ours does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any

# From the fourth press on Ctrl-C comes through wherever the run is: cleaning up may hang too.
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
        self._entered = False

    def __enter__(self) -> Shield:
        self._entered = True
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
        if not isinstance(error, KeyboardInterrupt):  # the user need not see two
            self._raise_what_waits()

    def leave(self) -> None:
        """Have Ctrl-C as it was found, whatever waits; called again it does nothing."""
        self._entered = False
        self._give_back()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Interrupts come through until the block ends."""
        self._raise_what_waits()
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def lifted(self) -> AbstractContextManager[None]:
        """Ctrl-C is as it was found until the block ends: a generator may wait there for ever.

        Several of them may go on and end in any order.
        """
        return _Lifted(self)

    def _take(self) -> None:
        found = signal.getsignal(signal.SIGINT)
        if self._entered and _in_main_thread() and callable(found) and found != self._arrived:
            self._handler = found
            signal.signal(signal.SIGINT, self._arrived)

    def _give_back(self) -> None:
        # Others may have set a handler of their own since, which is theirs to take back.
        ours = signal.getsignal(signal.SIGINT) == self._arrived
        if ours and _in_main_thread():
            signal.signal(signal.SIGINT, self._handler)

    def _arrived(self, number: int, frame: Any) -> None:
        through, self._open = self._open, False
        if not through:
            self._caught.append((number, frame))
        if self._handler is not None and (through or len(self._caught) >= _PATIENCE):
            self._handler(number, frame)

    def _raise_what_waits(self) -> None:
        if self._caught and self._handler is not None:
            caught, self._caught = self._caught, []
            self._handler(*caught[0])


class _Lifted(AbstractContextManager[None]):
    """No generator: that would take Ctrl-C once more when it is collected, whenever that is."""

    def __init__(self, shield: Shield) -> None:
        self._shield = shield

    def __enter__(self) -> None:
        self._shield._give_back()
        try:
            self._shield._raise_what_waits()
        except BaseException:
            self._shield._take()
            raise

    def __exit__(self, *_: object) -> None:
        self._shield._take()


class AtLast:
    """Calls for the end of a generator, made once more when its frame is gone.

    What a profiler or a debugger raises as a generator goes on ends its frame past its handlers.
    """

    def __init__(self, *calls: Callable[[], object]) -> None:
        self._calls = calls

    def __call__(self) -> None:
        """Make them in order, each whatever became of those before it."""
        with ExitStack() as stack:
            for call in reversed(self._calls):
                stack.callback(call)
        self._calls = ()

    __del__ = __call__


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
