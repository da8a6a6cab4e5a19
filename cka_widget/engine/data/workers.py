"""A loader that was started, its worker processes, and what is said of those that fail.

torch keeps the processes in private attributes of its iterators, by the same names since 2.0.
"""

from __future__ import annotations

import gc
import re
import signal
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from cka_widget.engine.errors import CompareError, message, summary

END: Final = object()
"""What a loader gives after its last batch."""
PATIENCE = 1.0
"""Seconds after which nothing comes from a dead worker any more. torch looks for the dead too, when
nothing came for five; what the others send, or a batch that was cut off, keeps it from looking."""


class Opened:
    """An iterator of a loader, started in the thread that makes it.

    Workers that are forked in another thread than the main one hang for ever where the main thread
    holds a lock of torch's, as for a random number, at that moment.

    Args:
        loader: batches.
        keep: leave workers that a loader keeps for its next pass.

    Raises:
        CompareError: the loader cannot start.
    """

    def __init__(self, loader: Any, keep: bool = True) -> None:
        self._loader = loader
        self._first: list[Any] = []
        self._lost_since: float | None = None
        self._spent = not keep
        try:
            self._iterator: Iterator[Any] = iter(loader)
        except Exception as error:
            raise CompareError(f"the loader could not start: {_unsent(loader, error)}") from error
        self._ours = self._iterator is not loader
        self._torch = self._find()

    def _find(self) -> list[Any]:
        """The iterators of torch's loaders that start worker processes for this one."""
        found = [one for one in _sources(self._iterator) if hasattr(one, "_workers")]
        for one in found:
            _do_not_interrupt(one)
        return found

    @property
    def workers(self) -> list[Any]:
        """The worker processes."""
        return [worker for one in self._torch for worker in one._workers]

    def prime(self) -> None:
        """Draw the first batch of an iterator that may start a loader of its own with it.

        A generator does nothing before: of `for batch in DataLoader(...): yield batch` the workers
        start with the first batch. What it raises comes when that batch is asked for.
        """
        if not isinstance(self._iterator, _BaseDataLoaderIter):
            try:
                self._first = [next(self._iterator, END)]
            except Exception as error:
                self._first = [error]
            self._torch = self._find()

    def draw(self, step: int) -> Any:
        """The next batch, or `END`.

        Raises:
            CompareError: the loader failed at this step, counted from 0.
        """
        self._lost_since = None
        try:
            if not self._first:
                return next(self._iterator, END)
            first = self._first.pop()
            if isinstance(first, Exception):
                raise first
            return first
        except Exception as error:
            failed = f"the loader failed at batch {step + 1}"
            if where := _caught(error):
                raise CompareError(f"{failed}{where}: {last_words(error)}") from error
            # Of a worker that died there may be no more than a connection that was cut.
            self._spent = True
            raise CompareError(f"{failed}: {self._dead() or last_words(error)}") from error

    def watch(self, step: int) -> None:
        """To be called while a batch is waited for.

        Raises:
            CompareError: a worker has died and nothing came since.
        """
        if not any(map(_lost, self._torch)):
            return
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        if now - self._lost_since > PATIENCE:
            self._spent = True
            raise CompareError(f"the loader failed at batch {step + 1}: {self._dead()}")

    def close(self) -> None:
        """End the iterator and its workers; those that the loader keeps stay for its next pass."""
        if not self._ours:
            return  # whoever made it may go on with it
        if callable(end := getattr(self._iterator, "close", None)):
            end()
        for one in self._torch:
            if self._spent or not one._persistent_workers:
                one._shutdown_workers()
        if self._spent:
            self._forget()

    def kill(self) -> None:
        """End the workers at once, of an iterator that is still asked for a batch."""
        if not self._ours:
            return
        workers, self._spent = self.workers, True
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(1.0)
        self._forget()

    def _forget(self) -> None:
        """A loader with persistent workers shall start new ones."""
        if getattr(self._loader, "_iterator", None) is self._iterator:
            self._loader._iterator = None

    def _dead(self) -> str:
        """What happened to the workers that are no more, and what helps; "" where none died."""
        workers = self.workers
        ended = wait([worker.sentinel for worker in workers], timeout=1.0) if workers else []
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(1.0)  # its exit code comes a little later
        codes = [worker.exitcode for worker in workers]
        code = next(filter(None, codes), 0 if 0 in codes else None)
        if code is None:
            return ""
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = {
                "SIGKILL": ", as the system does where memory runs out",
                "SIGBUS": ", as the system does where shared memory (/dev/shm) runs out",
            }.get(name, "")
            return f"a worker process was killed by {name}{why}; use fewer, or num_workers=0"
        if (method := _start_method(self._loader)) != "fork" and code == 1:
            return (
                f'a worker process that was started by "{method}" ended by itself (exit code 1, '
                "its own message is in the output): it cannot load what is defined in a notebook"
                f"{_at_home(self._loader)}; put that into a module file, or use num_workers=0"
            )
        return (
            f"a worker process ended by itself (exit code {code}); num_workers=0 loads in this "
            "process and shows why"
        )


def last_words(error: BaseException) -> str:
    """Name and first line of an error; of one from a worker process, those of the worker's own.

    torch puts the worker's traceback into the message, and the error itself at its end.
    """
    lines = message(error).splitlines()
    frames = [at for at, line in enumerate(lines) if re.match(r'\s*File ".*", line \d+', line)]
    if "Original Traceback" in message(error) and frames:
        own = [line for line in lines[frames[-1] + 1 :] if line.strip() and not line[0].isspace()]
        if own:
            return own[0]
    return summary(error)


def _caught(error: BaseException) -> str:
    """Which worker sent the error; "" where none did."""
    found = re.match(r"Caught \w+ in DataLoader worker process (\d+)", message(error))
    return f" in worker process {found[1]}" if found else ""


def _do_not_interrupt(iterator: Any) -> None:
    """Keep torch from raising in the main thread, wherever that is, when a worker dies.

    It could be in the middle of a sum, in another cell, or in the kernel's own loop. The batch that
    does not come tells as well, a few seconds later.
    """
    if getattr(iterator, "_worker_pids_set", False):
        torch._C._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def _lost(iterator: Any) -> bool:
    """A worker is gone that has not given all it has."""
    alive = zip(iterator._workers, iterator._workers_status, strict=False)
    return any(expected and not worker.is_alive() for worker, expected in alive)


def _sources(iterator: Any) -> Iterator[Any]:
    """An iterator and those that it draws from: of a generator, a `zip`, a progress bar."""
    todo, seen = [iterator], {id(iterator)}
    for one in todo:
        yield one
        for inner in gc.get_referents(one):
            if isinstance(inner, (Iterator, FrameType)) and id(inner) not in seen:
                seen.add(id(inner))
                todo.append(inner)


def _start_method(loader: Any) -> str:
    context = getattr(loader, "multiprocessing_context", None) or torch.multiprocessing
    return str(context.get_start_method())


def _unsent(loader: Any, error: Exception) -> str:
    """Why a loader does not start; most often, as its data set cannot be pickled."""
    words = last_words(error)
    if not getattr(loader, "num_workers", 0) or (method := _start_method(loader)) == "fork":
        return words
    return (
        f'{words}; workers that are started by "{method}" need a data set and functions that can '
        f"be pickled: define them at the top of a module file{_at_home(loader)}, or use "
        "num_workers=0"
    )


def _at_home(loader: Any) -> str:
    """Names of what a loader has from the notebook, as far as a look at its parts shows."""
    dataset = getattr(loader, "dataset", None)
    parts: Iterable[Any] = (dataset, *getattr(dataset, "__dict__", {}).values())
    parts = (*parts, *(getattr(loader, name, None) for name in ("collate_fn", "worker_init_fn")))
    kinds = [part if hasattr(part, "__qualname__") else type(part) for part in parts]
    names = dict.fromkeys(k.__qualname__ for k in kinds if k.__module__ == "__main__")
    return f" ({', '.join(names)})" if names else ""
