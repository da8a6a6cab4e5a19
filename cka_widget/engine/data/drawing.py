"""Calls in a thread of their own, so that who waits for one can be told to leave."""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

T = TypeVar("T")

LOOK = 0.5
"""Seconds between two looks at what is waited for."""
GRACE = 1.5
"""Seconds that a call under way may take after it is no longer waited for."""


class Stopped(Exception):
    """The wait for a call was ended from elsewhere."""


class Drawing(Generic[T]):
    """Makes one call after the other, none before it is asked for.

    A loader that hangs cannot be interrupted, but left: its thread ends when the call does.

    Args:
        close: called in the thread after the last call.
        kill: called where a call does not end, to bring that about if it can.
        settings: gives the context that the calls are made in.
    """

    def __init__(
        self,
        close: Callable[[], None],
        kill: Callable[[], None],
        settings: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self._asked: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._kill, self._grace = kill, GRACE
        # The thread knows its queues alone, so that who forgets to close this is still collected.
        self._thread = threading.Thread(
            target=_work,
            args=(self._asked, self._answers, close, settings or nullcontext),
            name="cka-loader",
            daemon=True,
        )
        self._thread.start()

    def __call__(self, call: Callable[[], T], watch: Callable[[], None]) -> T:
        """What the call gives or raises; `watch` is called meanwhile and may raise.

        Raises:
            Stopped: `stop` was called.
        """
        self._asked.put(call)
        while True:
            try:
                kind, answer = self._answers.get(timeout=LOOK)
            except queue.Empty:
                self._grace = 0.0  # where the watch raises, it is in vain to wait for the call
                watch()
                self._grace = GRACE
                continue
            try:
                if kind == "given":
                    return answer  # type: ignore[no-any-return]
                raise answer
            finally:
                del answer  # an error holds this frame, which must not hold the error

    def stop(self) -> None:
        """End the wait; from any thread."""
        self._answers.put(("raised", Stopped()))

    def close(self) -> None:
        """Let the thread end, and leave it where its call does not."""
        self._asked.put(None)
        self._thread.join(self._grace)
        if self._thread.is_alive():
            self._kill()
            self._thread.join(self._grace / 3)
        if self._thread.is_alive():
            _left.add(self._thread)


def _work(
    asked: queue.SimpleQueue[Any],
    answers: queue.SimpleQueue[tuple[str, Any]],
    close: Callable[[], None],
    settings: Callable[[], AbstractContextManager[Any]],
) -> None:
    with settings():
        while (call := asked.get()) is not None:
            try:
                answers.put(("given", call()))
            except BaseException as error:
                answers.put(("raised", error))
            del call
        close()


_left: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _wait_a_little() -> None:
    # A thread that is inside torch when the interpreter ends would abort it.
    end = time.monotonic() + GRACE
    for thread in list(_left):
        thread.join(max(end - time.monotonic(), 0))
