"""Explorers and comparisons for minutes on end: what grows?

    python benchmarks/soak.py [--minutes 10] [--explorers 200]

First so many explorers are opened, run and closed, and the memory and the widgets that stay are
told. Then one long run goes on all the time, while beside it others come and go: explorers that are
paused, cancelled and closed, comparisons that fail, loaders with worker processes. A row a minute:

- memory: resident, after a collection;
- threads, processes, widgets, models: how many there are;
- backlog: batches that the long run has drawn and not yet shown, the most in that minute;
- runs: comparisons so far.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import random
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress

import ipywidgets
import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cka_widget as cw
from cka_widget.engine.errors import CKAWarning, CompareError

PROCESS = psutil.Process(os.getpid())


def net(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 4))


def models() -> dict[str, object]:
    return {"a": net(), "b": [net() for _ in range(3)], "c": net(12)}


def batches(count: int) -> list[torch.Tensor]:
    return [torch.randn(32, 6) for _ in range(count)]


def megabytes() -> float:
    gc.collect()
    return PROCESS.memory_info().rss / 1e6


def widgets() -> int:
    known = getattr(ipywidgets.widgets.widget, "_instances", None)
    return len(ipywidgets.Widget.widgets if known is None else known)


def one_after_the_other(count: int) -> None:
    """Open, run, look at and close explorers; what is made once is made by the first thirty."""
    data, before, start = batches(6), 0.0, 0
    for number in range(count + 30):
        if number == 30:
            before, start = megabytes(), widgets()
        explorer = cw.CKAExplorer(models(), data, device="cpu")
        explorer.run()
        explorer.wait()
        explorer.selection = (("a", "0"), ("b", "0"))
        explorer.pair = ("b", "c")
        explorer.close()
        del explorer
    grown = megabytes() - before
    print(f"{count} explorers opened, run and closed: {grown:+.1f} MB, {widgets() - start} widgets")


class Endless:
    """Batches as fast as they are asked for."""

    def __init__(self) -> None:
        self.drawn, self._data, self.stop = 0, batches(16), False

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in itertools.cycle(self._data):
            if self.stop:
                return
            self.drawn += 1
            time.sleep(0.002)
            yield batch


def an_explorer(rng: random.Random) -> None:
    explorer = cw.CKAExplorer(models(), batches(30), device="cpu")
    explorer.run()
    for deed in rng.choices(["pause", "resume", "cancel", "finish"], k=4):
        time.sleep(rng.choice([0.0, 0.01]))
        getattr(explorer, deed)()
    explorer.resume()
    explorer.wait(30)
    with suppress(ValueError):  # nothing was computed yet
        explorer.add_data(batches(3))
        explorer.wait(30)
    explorer.close()


def a_comparison(rng: random.Random) -> None:
    workers = 2 if rng.random() < 0.05 else 0
    loader = DataLoader(TensorDataset(torch.randn(320, 6)), 32, num_workers=workers)
    cw.compare(models(), loader, progress=False, hsic_batch_size=rng.choice([None, 8]))


def a_failure(rng: random.Random) -> None:
    given, at = models(), rng.randint(2, 12)
    passes = itertools.count()

    def fail(*_: object) -> None:
        if next(passes) == at:
            raise ValueError("on purpose")

    given["a"].register_forward_hook(fail)  # type: ignore[attr-defined]
    with suppress(CompareError):
        cw.compare(given, batches(20), progress=False)


def soak(minutes: float) -> None:
    rng, loader, runs = random.Random(0), Endless(), 0
    long = cw.CKAExplorer({"a": net(), "b": net()}, loader, device="cpu")
    backlog = [0]

    def shown(_: object) -> None:
        backlog[0] = max(backlog[0], loader.drawn - long.result.batches)

    long.observe(shown, "result")
    long.run()
    print("| minute | memory | threads | processes | widgets | models | backlog | runs |")
    print("|---|---|---|---|---|---|---|---|")
    start, row = time.monotonic(), 0
    while row <= minutes:
        if time.monotonic() >= start + 60 * row:
            memory = megabytes()
            alive = sum(type(one) is nn.Sequential for one in gc.get_objects())
            processes = len(multiprocessing.active_children())
            counts = f"{threading.active_count()} | {processes} | {widgets()} | {alive}"
            print(f"| {row} | {memory:.0f} MB | {counts} | {backlog[0]} | {runs} |", flush=True)
            row, backlog[0] = row + 1, 0
        rng.choice([an_explorer, a_comparison, a_comparison, a_failure])(rng)
        runs += 1
    loader.stop = True
    state = long.wait(30)
    print(f"The long run is {state} after {long.result.batches:,} batches.")
    long.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--explorers", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CKAWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    if given.explorers:
        one_after_the_other(given.explorers)
    if given.minutes:
        soak(given.minutes)


if __name__ == "__main__":
    main()
