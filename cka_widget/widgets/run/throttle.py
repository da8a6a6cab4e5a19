"""A buffer of one: the newest value wins, and is written at most so many times a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_DUTY = 0.25
"""Largest share of the time that writing may take; slow views are written less often."""


class Coalescer(Generic[T]):
    """Hands the newest value to `write`, from one thread, no oftener than every `interval` seconds.

    Args:
        write: gets a value; an exception in it is logged and does not stop the run.
        interval: least time between two writes, in seconds.
        threaded: write from an own thread; otherwise within `put`, when it is due.
    """

    def __init__(self, write: Callable[[T], None], interval: float = 0.05, threaded: bool = True):
        self._write, self._interval = write, interval
        self._slot: list[T] = []
        self._due = 0.0
        self._closing = False
        self._condition = threading.Condition()
        self._threaded = threaded
        self._thread: threading.Thread | None = None

    def put(self, value: T) -> None:
        """Replace the waiting value by a newer one."""
        if not self._threaded:
            if time.monotonic() >= self._due:
                self._flush(value)
            return
        with self._condition:
            self._slot[:] = [value]
            self._condition.notify()
        if self._thread is None:  # not before: who has made a buffer may not hold it yet
            self._thread = threading.Thread(target=self._loop, name="cka-publisher", daemon=True)
            self._thread.start()

    def close(self, last: T) -> None:
        """Stop, drop what waits, and write `last` from the calling thread."""
        self.end()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._flush(last)

    def end(self) -> None:
        """Stop, and drop what waits."""
        with self._condition:
            self._closing = True
            self._slot.clear()
            self._condition.notify()

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._closing and not self._slot:
                    self._condition.wait()
                while not self._closing and (rest := self._due - time.monotonic()) > 0:
                    self._condition.wait(rest)
                if self._closing:
                    return
                value = self._slot.pop()
            self._flush(value)

    def _flush(self, value: T) -> None:
        start = time.monotonic()
        try:
            self._write(value)
        except Exception:
            log.exception("a view could not show the update")
        cost = time.monotonic() - start
        self._due = start + max(self._interval, cost / MAX_DUTY)
