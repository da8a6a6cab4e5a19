"""Threads that use one explorer at the same time, in any order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cka_widget.widgets.run.runner import ENDED
from faults.errors import explorer_of
from faults.scene import BATCHES, SIZE, Loader, Scene, Violation


class Slow(Loader):
    """Takes a moment for each batch."""

    def __init__(self, fuse: Any, seconds: float) -> None:
        super().__init__(fuse)
        self._seconds = seconds

    def _batches(self) -> Any:
        for batch in super()._batches():
            time.sleep(self._seconds)
            yield batch


def race(rng: random.Random) -> str:
    scene = Scene(rng)
    adds = rng.random() < 0.3
    explorer = explorer_of(scene)
    slow = Slow(scene.fuse, rng.choice([0.0, 0.001, 0.005]))
    names = list(scene.models)
    rows = explorer.layers[names[0]]
    deeds: list[Callable[[], Any]] = [
        explorer.run,
        explorer.run,
        explorer.pause,
        explorer.resume,
        explorer.cancel,
        explorer.finish,
        lambda: explorer.wait(0.01),
        lambda: setattr(explorer, "pair", (names[-1], names[0])),
        lambda: setattr(explorer, "pair", (names[0], names[0])),
        lambda: setattr(explorer, "statistic", "spread"),
        lambda: setattr(explorer, "stop_at_stderr", 0.2),
        lambda: setattr(explorer, "stop_at_stderr", None),
        lambda: setattr(explorer, "layers", {**explorer.layers, names[0]: rows[:1]}),
        lambda: setattr(explorer, "layers", {**explorer.layers, names[0]: rows}),
        lambda: setattr(explorer, "selection", None),
    ]
    if adds:
        deeds += [lambda: explorer.add_data(slow)] * 3
    orders = [
        [(rng.choice(deeds), rng.choice([0.0, 0.0, 0.001, 0.01])) for _ in range(12)]
        for _ in range(rng.randint(2, 4))
    ]
    if rng.random() < 0.3:
        orders[0][rng.randrange(12)] = explorer.close, 0.0
    threads = [threading.Thread(target=_do, args=(order,), daemon=True) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            raise Violation("two of the threads wait for each other")
    explorer.resume()
    if explorer.wait(30) not in (*ENDED, "idle"):
        raise Violation(f"the explorer is {explorer.state} for ever")
    state, result = explorer.state, explorer.result
    if result is not None and not adds:
        scene.check_result(result, tolerance=1e-6)  # of fewer rows it is rounded otherwise
    if result is not None and result.samples != result.batches * SIZE:
        raise Violation(f"{result.samples} samples of {result.batches} batches")
    explorer.close()
    if state == "done" and result is not None and result.batches > BATCHES and not adds:
        raise Violation("a result of two runs")
    scene.check(None)
    return state


def _do(order: list[tuple[Callable[[], Any], float]]) -> None:
    for deed, seconds in order:
        with suppress(ValueError, RuntimeError):  # a run is under way, no data, closed
            deed()
        time.sleep(seconds)
