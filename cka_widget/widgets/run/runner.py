"""One comparison in a background thread: started, paused, resumed, cancelled, and published."""

from __future__ import annotations

import atexit
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from cka_widget.engine.errors import message
from cka_widget.engine.interrupts import Shield
from cka_widget.widgets.run import torch_settings
from cka_widget.widgets.run.throttle import Coalescer

RUNNING = ("running", "paused")
ENDED = ("done", "cancelled", "failed")
STATES = ("idle", *RUNNING, *ENDED)


@dataclass(frozen=True)
class Failure:
    """Why a run stopped: one sentence for the reader, the traceback for who asks."""

    sentence: str
    traceback: str
    model: str | None = None
    layer: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a run has come; what the progress bar and the state line show."""

    samples: int = 0
    total_samples: int | None = None
    batches: int = 0
    total_batches: int | None = None
    seconds: float = 0.0
    """Time at work, pauses left out."""
    device: str = ""
    before: int = 0
    """Samples of the result that this run adds to."""

    @property
    def fraction(self) -> float | None:
        """Share done (0 to 1); None when the loader does not tell its length."""
        if self.total_samples:
            return min(self.samples / self.total_samples, 1.0)
        return min(self.batches / self.total_batches, 1.0) if self.total_batches else None

    @property
    def rate(self) -> float | None:
        """Samples a second."""
        return self.samples / self.seconds if self.seconds > 0 and self.samples else None

    @property
    def seconds_left(self) -> float | None:
        """Expected time to the end, by the rate so far."""
        done = self.fraction
        return self.seconds * (1 - done) / done if done else None


class Source(Protocol):
    """What a run draws from; see `engine.data.streams.Stream`."""

    def start(self, settings: Callable[[], AbstractContextManager[Any]]) -> None:
        """Begin, in the thread that calls."""

    def stop(self) -> None:
        """End the wait for a batch, from any thread."""

    def close(self) -> None:
        """Let go what was begun."""


@dataclass
class _Job:
    """The events of one run; a new run gets new ones, so that no late thread can touch it."""

    apply_settings: Callable[[], Any]
    stream: Source | None = None
    go: threading.Event = field(default_factory=threading.Event)
    stop: str | None = None
    thread: threading.Thread | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    paused_for: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Runner:
    """Drains a generator of snapshots in a thread and publishes the newest one.

    The worker is the only one to touch the generator, and asks a snapshot for its result while
    the generator is suspended. `pause`, `resume` and `cancel` only set events: they may be called
    from any thread, and act before the next batch, or while the loader is waited for.

    Args:
        publish: gets (progress, result), from one thread at a time; always once at the end.
        changed: called after every change of `state`, from the thread that made it. Two changes may
            overtake each other on their way there: read `state`.
        interval: least time between two publications, in seconds.
    """

    def __init__(
        self,
        publish: Callable[[Progress, Any], None],
        changed: Callable[[], None],
        interval: float = 0.05,
    ):
        self._publish, self._changed, self._interval = publish, changed, interval
        self._lock = threading.Lock()
        self._job: _Job | None = None
        self._state = "idle"
        self.failure: Failure | None = None
        _alive.add(self)

    @property
    def state(self) -> str:
        """One of idle, running, paused, done, cancelled, failed."""
        return self._state

    def start(
        self,
        iterate: Callable[[], Iterator[Any]],
        *,
        stream: Source | None = None,
        block: bool = False,
    ) -> None:
        """Run `iterate()` to its end; in this thread when `block`.

        Args:
            iterate: gives the snapshots.
            stream: what they are drawn from. It is started in this thread once the state says
                "running", and closed however the run ends.
            block: stay here until the end.

        Raises:
            RuntimeError: a run is under way.
        """
        job = _Job(nullcontext if block else torch_settings.capture(), stream)
        job.go.set()
        try:
            with Shield() as shield:
                try:
                    self._begin(job, iterate, shield, block)
                except BaseException:
                    if job.thread is None and self._job is job:
                        try:
                            self._end(job, "cancelled", None)
                        finally:
                            job.ended.set()
                    raise
        except BaseException as error:
            if job.thread is not None and not isinstance(error, Exception):
                self._stop("cancelled", job)
            raise

    def _begin(
        self, job: _Job, iterate: Callable[[], Iterator[Any]], shield: Shield, block: bool
    ) -> None:
        with self._lock:
            if self._state in RUNNING:
                raise RuntimeError("a run is under way: wait for it, or cancel it first")
            self._job, self._state, self.failure = job, "running", None
        try:
            self._changed()
        finally:  # a run that is told of comes to an end, whatever became of the telling
            if block:
                self._drain(job, iterate, shield)
            else:
                self._begin_thread(job, iterate, shield)

    def _begin_thread(
        self, job: _Job, iterate: Callable[[], Iterator[Any]], shield: Shield
    ) -> None:
        if job.stream is not None:
            try:
                with shield.opened():  # worker processes may take seconds to start
                    job.stream.start(job.apply_settings)
            except BaseException:
                job.stream.close()
                raise
        job.thread = threading.Thread(
            target=self._drain, args=(job, iterate), name="cka-run", daemon=True
        )
        job.thread.start()

    def pause(self) -> None:
        """Stop before the next batch; the generator stays where it is."""
        self._move("running", "paused", lambda job: job.go.clear())

    def resume(self) -> None:
        """Go on with the next batch."""
        self._move("paused", "running", lambda job: job.go.set())

    def cancel(self) -> None:
        """End before the next batch and keep the partial result."""
        self._stop("cancelled")

    def finish(self) -> None:
        """End before the next batch as done: the result is good enough."""
        self._stop("done")

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the run has ended, its last state is published and its thread is gone.

        An interpreter that ends while a thread frees its last tensors would abort.

        Returns:
            False when `timeout` (seconds) passed first, or in the run's own thread.
        """
        job = self._job
        if job is None:
            return True
        if job.thread is threading.current_thread():
            return job.ended.is_set()
        if not job.ended.wait(timeout):
            return False
        if job.thread is not None:
            job.thread.join(timeout)
        return True

    def _move(self, before: str, after: str, act: Callable[[_Job], None]) -> None:
        with self._lock:
            if self._state != before or self._job is None or self._job.stop:
                return
            self._state = after
            act(self._job)
        self._changed()

    def _stop(self, how: str, job: _Job | None = None) -> None:
        with self._lock:
            if self._state in RUNNING and self._job is not None and job in (None, self._job):
                self._job.stop = self._job.stop or how
                self._job.go.set()
                if self._job.stream is not None:
                    self._job.stream.stop()

    def _drain(
        self, job: _Job, iterate: Callable[[], Iterator[Any]], shield: Shield | None = None
    ) -> None:
        try:
            buffer: Coalescer[Any] = Coalescer(
                lambda item: self._publish(*item), self._interval, threaded=shield is None
            )
            try:
                self._publish_all(job, iterate, buffer, shield or Shield())
            finally:
                buffer.end()
        finally:  # once more: an exception that another thread sent may have cut cleaning up short
            try:
                if job.stream is not None:
                    job.stream.close()
                self._end(job, "cancelled", None)
            finally:
                job.ended.set()

    def _publish_all(
        self,
        job: _Job,
        iterate: Callable[[], Iterator[Any]],
        buffer: Coalescer[Any],
        shield: Shield,
    ) -> None:
        progress, made = Progress(), _Made()
        failure: Failure | None = None
        interrupt: BaseException | None = None
        how = "done"
        try:
            with job.apply_settings():
                snapshots = iterate()
                try:
                    while True:
                        with shield.opened():
                            snapshot = next(snapshots, None)
                        if snapshot is None:
                            break
                        progress = _progress(snapshot, job)
                        with shield.opened():
                            self._wait_while_paused(job, buffer, snapshot)
                        # A run that is ended before its first batch has no result to be asked for.
                        none = job.stop and not snapshot.samples
                        if not none and (job.stop or snapshot.done or made.old):
                            made.make(snapshot)
                        if job.stop:
                            how = job.stop
                            break
                        buffer.put((progress, made.result))
                finally:
                    if hasattr(snapshots, "close"):
                        snapshots.close()
        except Exception as error:
            how, failure = "failed", _failure(error)
            partial = getattr(error, "result", None)
            made.result = partial if partial is not None else made.result
        except BaseException as error:  # Ctrl-C in a blocking run: publish, then let it through
            how, interrupt = "cancelled", error
        finally:
            if job.stream is not None:
                job.stream.close()
        buffer.close((progress, made.result))
        self._end(job, how, failure)
        if interrupt is not None:
            raise interrupt

    def _end(self, job: _Job, how: str, failure: Failure | None) -> None:
        with self._lock:
            if job.ended.is_set():
                return
            if self._job is job and self._state in RUNNING:
                self._state, self.failure = how, failure
            job.stream = None  # a closed explorer that is held keeps no data
        self._changed()
        job.ended.set()

    def _wait_while_paused(self, job: _Job, buffer: Coalescer[Any], snapshot: Any) -> None:
        if job.go.is_set():
            return
        # What is on screen while paused should be all that was computed.
        buffer.put((_progress(snapshot, job), snapshot.result))
        start = time.monotonic()
        job.go.wait()
        job.paused_for += time.monotonic() - start


@dataclass
class _Made:
    """The newest result that was made.

    Making one for every batch could cost more than the batch. It may take a tenth of the time:
    what is on screen is then nearly all there is, also where a loader keeps the run waiting.
    """

    result: Any = None
    _due: float = 0.0

    @property
    def old(self) -> bool:
        return time.monotonic() >= self._due

    def make(self, snapshot: Any) -> None:
        start = time.monotonic()
        self.result = snapshot.result
        now = time.monotonic()
        self._due = now + 9 * (now - start)


def _progress(snapshot: Any, job: _Job) -> Progress:
    return Progress(
        snapshot.samples,
        snapshot.total_samples,
        snapshot.batches,
        snapshot.total_batches,
        time.monotonic() - job.started - job.paused_for,
        snapshot.device,
    )


def _failure(error: Exception) -> Failure:
    text = " ".join(message(error).split()) or "no further explanation was given"
    named = hasattr(error, "result")  # the engine's own errors are sentences already
    sentence = text if named else f"{type(error).__name__}: {text}"
    return Failure(
        sentence,
        "".join(traceback.format_exception(type(error), error, error.__traceback__)),
        getattr(error, "model", None),
        getattr(error, "layer", None),
    )


_alive: weakref.WeakSet[Runner] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    # Threads inside torch must not outlive the interpreter: let each finish its batch.
    for runner in list(_alive):
        runner.cancel()
    for runner in list(_alive):
        runner.wait(5.0)
