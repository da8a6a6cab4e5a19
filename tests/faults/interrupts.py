"""Ctrl-C, once or twice, and exceptions that another thread sends, at any line of the package."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any
from unittest import mock

from cka_widget import introspect
from cka_widget.engine.compare import iter_compare
from cka_widget.torch_cka import CKA
from cka_widget.widgets.run.runner import ENDED
from faults.errors import bars, explorer_of, quietly, runs_again
from faults.lines import Lines, Soon, short
from faults.scene import BATCHES, Scene, Violation, data

Run = Callable[[], Any]


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def struck(rng: random.Random, run: Run, *, twice: bool = False) -> tuple[str, Any, Any]:
    """Run with Ctrl-C at some line: where that was, what was raised, and what was returned."""
    with Lines() as lines:
        run()
    at = lines.draw(rng)
    soon = Soon(rng.choice([1, 2, 3, 5, 8, 13, 21, 34, 55, 150]), press)

    def act() -> None:
        if twice:
            soon.start()
        press()

    error = result = None
    lines = Lines(at, act)
    try:
        with lines:
            result = run()
    except KeyboardInterrupt as found:
        error = found
    finally:
        soon.stop()
    where = short(at[0])
    if not lines.acted:
        where += " (not reached)"
    elif error is None and not twice:
        raise Violation(f"Ctrl-C at {where} was lost")
    return where, error, result


def in_compare(rng: random.Random, twice: bool) -> str:
    scene = Scene(rng, workers=0.04)
    show = rng.random() < 0.5

    def run() -> Any:
        scene.fuse.clear()
        return scene.run(progress=show)

    with bars(scene):
        where, error, result = struck(rng, run, twice=twice)
    least = scene.fuse.whole
    if error is not None:
        # Outside of the run, as when its result is returned, there is nobody to carry one.
        result = getattr(error, "result", None)
        least = 0 if twice or result is None else least
    scene.check(result, least=BATCHES if error is None else least)
    return where


def in_iter_compare(rng: random.Random, twice: bool) -> str:
    scene, last = Scene(rng), [None]

    def run() -> None:
        with closing(iter_compare(scene.models, scene.loader(), **scene.options)) as steps:
            for snapshot in steps:
                last[0] = snapshot.result

    where = struck(rng, run, twice=twice)[0]
    gc.collect()  # a second Ctrl-C may tear the user's own closing before it has begun
    scene.check(last[0])
    return where


def in_torch_cka(rng: random.Random, twice: bool) -> str:
    scene = Scene(rng, plain=True)
    cka = CKA(scene.roots()[0], scene.roots()[-1], "first", "second", device="cpu")
    with bars(scene):
        where, _, _ = struck(rng, lambda: quietly(cka.compare, scene.loader()), twice=twice)
    scene.check(None)
    return where


def in_introspect(rng: random.Random, twice: bool) -> str:
    scene = Scene(rng)
    where, _, _ = struck(rng, lambda: introspect(scene.roots()[0], data()[0]), twice=twice)
    scene.check(None)
    return where


def in_an_explorer(rng: random.Random, twice: bool) -> str:
    """While it runs in the main thread, or is started there."""
    scene, block = Scene(rng), rng.random() < 0.6
    explorer = explorer_of(scene)

    def run() -> None:
        explorer.run(block=block)
        explorer.wait(30)

    where, _, _ = struck(rng, run, twice=twice)
    ended(explorer, scene, where)
    return where


def ended(explorer: Any, scene: Scene, where: str) -> None:
    if explorer.wait(20) not in (*ENDED, "idle"):
        raise Violation(f"struck at {where}, the explorer is {explorer.state} for ever")
    if explorer.result is not None:
        scene.check_result(explorer.result)
    runs_again(scene, explorer)


# exceptions from another thread -------------------------------------------------------------------
class Sent(BaseException):
    """What only another thread can raise."""


def send(kind: type[BaseException]) -> None:
    """Raise in this thread what another thread would, between any two steps."""
    thread = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(kind))


def sent_to_compare(rng: random.Random) -> str:
    """A thread that runs `compare` gets an exception."""
    scene, found = Scene(rng), []

    def run(lines: Lines) -> None:
        try:
            with lines:
                scene.run()
        except BaseException as error:
            found.append(getattr(error, "result", None))

    def thread(lines: Lines) -> None:
        one = threading.Thread(target=run, args=(lines,), daemon=True)
        one.start()
        one.join(30)
        if one.is_alive():
            raise Violation("the thread hangs")

    calm = Lines()
    thread(calm)
    at = calm.draw(rng)
    kind = rng.choice([Sent, KeyboardInterrupt, SystemExit, ValueError])
    thread(Lines(at, partial(send, kind)))
    scene.check(found[-1] if found else None)
    return short(at[0])


def sent_to_an_explorer(rng: random.Random) -> str:
    """The thread of an explorer's run gets an exception."""
    scene = Scene(rng)
    explorer = explorer_of(scene)

    def run(lines: Lines) -> None:
        def trace(frame: Any, event: str, arg: Any) -> Any:
            mine = threading.current_thread().name == "cka-run"
            return lines.trace(frame, event, arg) if mine else None

        threading.settrace(trace)
        try:
            explorer.run(block=False)
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
        explorer.wait(20)

    calm = Lines()
    run(calm)
    at = calm.draw(rng)
    kind = rng.choice([Sent, KeyboardInterrupt, SystemExit, ValueError])
    with mock.patch("threading.excepthook"):
        run(Lines(at, partial(send, kind)))
        ended(explorer, scene, short(at[0]))
    return short(at[0])
