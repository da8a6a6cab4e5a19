"""Exceptions raised by the code of who uses the library, at the k-th time it runs."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest import mock

import torch
import tqdm.auto

from cka_widget import CKAExplorer
from cka_widget.engine.compare import Snapshot, iter_compare
from cka_widget.engine.errors import CKAWarning, CompareError
from cka_widget.torch_cka import CKA
from cka_widget.widgets.run.runner import ENDED
from faults.scene import BATCHES, SIZE, Loader, Scene, Violation


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no words")


KINDS: list[Callable[[], BaseException]] = [
    lambda: ValueError("mine"),
    RuntimeError,
    MemoryError,
    lambda: torch.OutOfMemoryError("CUDA out of memory"),
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    StopIteration,
    lambda: CompareError("mine"),
    Unspeakable,
]


def arm(rng: random.Random, scene: Scene, run: Callable[[], Any]) -> tuple[str, BaseException]:
    """Let a run fail at one of the places that it passes without a fault."""
    scene.fuse.clear()
    run()
    seen = scene.fuse.seen
    place, error = rng.choice(sorted(seen)), rng.choice(KINDS)()
    scene.fuse.set(place, rng.randint(1, seen[place]), error)
    return place, error


@contextmanager
def bars(scene: Scene) -> Iterator[None]:
    """A progress bar that passes the fuse."""

    class Bar(tqdm.auto.tqdm):  # type: ignore[misc]
        monitor_interval = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            scene.fuse("bar")

    with mock.patch("tqdm.auto.tqdm", Bar), mock.patch("cka_widget.torch_cka_run.tqdm", Bar):
        yield


def in_compare(rng: random.Random) -> str:
    scene = Scene(rng, workers=0.05)
    with bars(scene):
        place, error = arm(rng, scene, lambda: scene.run(progress=True))
        try:
            result = scene.run(progress=True)
        except BaseException as found:
            return came(scene, found, error, place)
    if scene.fuse.blown and not isinstance(error, Exception):
        raise Violation(f"{type(error).__name__} at {place} was lost")
    if isinstance(error, StopIteration) and scene.kind == "torch" and place in ("next", "collate"):
        scene.check(result, least=scene.fuse.whole)  # to torch's loader it is the end of the data
        return f"{place}: the end"
    scene.check(result, least=BATCHES)  # a look, or a pass that was made again in pieces
    return f"{place}: nothing"


def came(scene: Scene, found: BaseException, error: BaseException, place: str) -> str:
    """What came out is the error or says it, and carries the batches before it."""
    chain: BaseException | None = found
    while chain is not None and chain is not error:
        chain = chain.__cause__ or chain.__context__
    if chain is None:
        raise Violation(f"{type(error).__name__} at {place} came out as {found!r}") from found
    if not isinstance(found, (type(error), CompareError)) and scene.fuse.whole:
        raise Violation(f"{type(error).__name__} at {place} became {type(found).__name__}")
    what = f"{type(error).__name__} at {place}, which came out as {type(found).__name__}"
    scene.check(getattr(found, "result", None), least=scene.fuse.whole, what=what)
    return f"{place}: {type(found).__name__}"


def in_a_consumer(rng: random.Random) -> str:
    """Who takes the snapshots raises, throws into the generator, closes it, or drops it."""
    scene, last = Scene(rng), None
    way, at = rng.choice(["raise", "throw", "close", "drop"]), rng.randint(1, BATCHES + 1)
    error = rng.choice(KINDS)()
    steps = iter_compare(scene.models, scene.loader(), **scene.options)
    try:
        with closing(steps):
            last = _take(steps, at, way, error)
    except BaseException as found:
        if found is not error and not isinstance(found, (CompareError, RuntimeError)):
            raise
        del found
    del steps
    scene.check(last.result if last else None)
    return f"{way}: {type(error).__name__}"


def _take(steps: Any, at: int, way: str, error: BaseException) -> Snapshot | None:
    last: Snapshot | None = None
    for number, last in enumerate(steps, 1):
        if number == at:
            if way == "raise":
                raise error
            if way == "throw":
                steps.throw(error)
            if way == "close":
                steps.close()
            return last
    return last


def quietly(call: Callable[..., Any], *args: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CKAWarning)
        return call(*args)


def in_torch_cka(rng: random.Random) -> str:
    scene = Scene(rng, plain=True)
    first, second = scene.roots()[0], scene.roots()[-1]
    with bars(scene):
        cka = CKA(first, second, "first", "second", device="cpu")
        place, _ = arm(rng, scene, lambda: quietly(cka.compare, scene.loader()))
        try:
            quietly(cka.compare, scene.loader())
        except BaseException as found:
            result = getattr(found, "result", None)
            if result is not None and result.samples != result.batches * SIZE:
                raise Violation(f"{result.samples} samples of {result.batches}") from found
            if (result.batches if result else 0) < scene.fuse.whole:
                raise Violation(f"{type(found).__name__} at {place} has no result") from found
    scene.check(None)
    return f"{place}: nothing"


def explorer_of(scene: Scene, **options: Any) -> CKAExplorer:
    return CKAExplorer(scene.models, scene.loader(), **scene.options, **options)


def in_an_explorer(rng: random.Random) -> str:
    """Its observers, its models and its data raise; it ends, and runs again."""
    scene = Scene(rng)
    explorer = explorer_of(scene, more_data=lambda: _more(scene))
    for name in ("state", "progress", "result"):
        explorer.observe(lambda change: scene.fuse(f"observer of {change['name']}"), name)
    block, more = rng.random() < 0.4, rng.random() < 0.3
    if more:
        explorer.run(block=True)
    start = explorer.add_data if more else explorer.run

    def run() -> None:
        start(block=block)
        explorer.wait(30)

    place, error = arm(rng, scene, run)
    before = explorer.result if more else None
    try:
        run()
    except BaseException as found:
        if found is not error and not (more and isinstance(found, ValueError)):
            raise Violation(f"{type(error).__name__} at {place} came out as {found!r}") from found
    scene.fuse.clear()
    if explorer.wait(30) not in ENDED and (before is None or explorer.state == "running"):
        raise Violation(f"{type(error).__name__} at {place}: the explorer is {explorer.state}")
    if explorer.result is not None and not more:
        scene.check_result(explorer.result)
    runs_again(scene, explorer)
    return f"{place}: {explorer.state}"


def runs_again(scene: Scene, explorer: CKAExplorer) -> None:
    """Whatever happened, the next run is as good as the first."""
    explorer.run(block=True)
    if explorer.state != "done":
        raise Violation(f"the next run of the explorer is {explorer.state}")
    result = explorer.result
    explorer.close()
    scene.check(result, least=BATCHES)


def _more(scene: Scene) -> Any:
    scene.fuse("more_data")
    return Loader(scene.fuse)
