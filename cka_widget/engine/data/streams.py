"""One loader for all models, or one loader a model with aligned samples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch.utils.data import RandomSampler, Sampler, SubsetRandomSampler, WeightedRandomSampler

from cka_widget.engine.data.batches import count
from cka_widget.engine.data.drawing import Drawing, Stopped
from cka_widget.engine.data.loaders import by_model, length, samplers
from cka_widget.engine.data.repeats import Repeats, padded
from cka_widget.engine.data.workers import END, Opened
from cka_widget.engine.errors import CompareError


class Stream:
    """Yields, for every step, one batch a model: `{model: batch}`.

    One loader is iterated once and its batch given to every model that has it, whatever its
    shuffling, under one name or several. It is started by `start`, or else by the first step, in
    the thread that calls; it ends, with its worker processes, when the steps do, or by `close`.

    Attributes:
        total_batches, total_samples: what the loader promises, or None.
    """

    def __init__(
        self, loader: Any, models: list[str], max_batches: int | None, *, keep: bool = True
    ) -> None:
        """Raises TypeError or ValueError where the loader cannot be iterated for the models."""
        self._models = models
        self._max = max_batches
        self._keep = keep  # persistent workers, for the next pass over the loader
        given = by_model(loader, models)
        # Every loader once, by the first model that has it, and for every model that name.
        first = {id(one): name for name, one in reversed(given.items())}
        self._source = {name: first[id(one)] for name, one in given.items()}
        self._loaders = {name: given[name] for name in given if self._source[name] == name}
        self._opened: dict[str, Opened] = {}
        self._repeats = {name: Repeats(one) for name, one in self._loaders.items()}
        self._drawing: Drawing[dict[str, Any]] | None = None
        self._started = self._stopped = False
        self._error: CompareError | None = None
        self.total_batches = self._promised_batches()
        self.total_samples = self._promised_samples()

    def start(self, settings: Callable[[], AbstractContextManager[Any]] | None = None) -> None:
        """Start the loaders in this thread; what they raise comes with the first step.

        Args:
            settings: draw the batches in a thread of its own, in the context that this gives, so
                that `stop` can end the wait for a loader that hangs. Loaders with worker processes
                are always drawn from so: a worker may die and leave half a batch behind.
        """
        try:
            for name, one in self._loaders.items():
                self._opened[name] = Opened(one, self._keep)
            for opened in self._opened.values():
                opened.prime()
        except CompareError as error:
            self._error = error
        self._started = True
        all_opened = list(self._opened.values())
        if settings is not None or any(opened.workers for opened in all_opened):
            self._drawing = Drawing(partial(_end, all_opened), partial(_kill, all_opened), settings)

    def stop(self) -> None:
        """End the steps, from any thread, also while a batch is waited for."""
        self._stopped = True
        if self._drawing is not None:
            self._drawing.stop()

    def close(self) -> None:
        """Let the loaders go and end what they started."""
        if self._drawing is not None:
            self._drawing.close()
        else:
            _end(list(self._opened.values()))
        self._drawing, self._opened = None, {}

    def __iter__(self) -> Generator[dict[str, Any], None, None]:
        """Raises CompareError: a loader failed, or the loaders' lengths differ."""
        try:
            if not self._started:
                self.start()
            if self._error is not None:
                raise self._error
            yield from self._steps()
        except Stopped:
            return
        finally:
            self.close()

    def _steps(self) -> Iterator[dict[str, Any]]:
        step = 0
        while not self._stopped and (self._max is None or step < self._max):
            found = self._draw(step)
            ended = [name for name, batch in found.items() if batch is END]
            if ended:
                if len(ended) < len(found):
                    raise CompareError(
                        f'the loader of "{ended[0]}" ended after {step} batches, before the '
                        "others: loaders of one comparison must give the same samples"
                    )
                return
            for name, batch in found.items():
                self._repeats[name].see(batch, step)
            yield {model: found[self._source[model]] for model in self._models}
            step += 1

    def _draw(self, step: int) -> dict[str, Any]:
        """A batch of every loader, or `END`."""
        draw = partial(_drawn, self._opened, step)
        if self._drawing is None:
            return draw()
        return self._drawing(draw, partial(_watch, list(self._opened.values()), step))

    def require_order(self, values: int) -> None:
        """Raises ValueError where so many values, one a sample, cannot go with the loader."""
        if any(_random_sampler(one) is not None for one in self._loaders.values()):
            raise ValueError(
                "groups= has one value a sample in the loader's order, and the loader shuffles: "
                "give a function of the batch, or a loader with shuffle=False"
            )
        if self.total_samples is not None and values < self.total_samples:
            raise ValueError(
                f"groups= has {values} values for {self.total_samples} samples of the loader"
            )

    def seeds(self) -> list[int] | None:
        """Seeds of the loaders' generators, where they were given one."""
        generators = [getattr(one, "generator", None) for one in self._loaders.values()]
        return [g.initial_seed() for g in generators if g is not None] or None

    def warnings(self) -> list[str]:
        """What would mislead the reader of a result; to be asked for before the first batch."""
        return [*filter(None, map(padded, self._loaders.values())), *self._unpaired()]

    def repeats(self) -> list[str]:
        """What would mislead the reader, by the batches drawn so far."""
        return [said for one in self._repeats.values() if (said := one.warning())]

    def _unpaired(self) -> list[str]:
        loaders = list(self._loaders.values())
        random = [sampler for sampler in map(_random_sampler, loaders) if sampler is not None]
        if len(loaders) < 2 or not random:
            return []
        if len(random) == len(loaders) and _draw_alike(random):
            return []
        return [
            "The loaders draw their samples in random orders of their own, so that a row is not "
            "the same sample in all of them: give every model the same loader, or shuffle=False."
        ]

    def _promised_batches(self) -> int | None:
        lengths = [n for n in map(length, self._loaders.values()) if n is not None]
        if self._max is not None:
            lengths.append(self._max)
        return min(lengths, default=None)

    def _promised_samples(self) -> int | None:
        found = []
        for one in self._loaders.values():
            size, per_batch = (
                length(getattr(one, "dataset", None)),
                getattr(one, "batch_size", None),
            )
            if isinstance(one, (list, tuple)):
                sizes = [count(batch) for batch in one[: self._max]]
                if None not in sizes:
                    found.append(sum(s for s in sizes if s is not None))
            elif isinstance(per_batch, int) and self.total_batches is not None:
                whole = self.total_batches * per_batch
                found.append(whole if size is None else min(size, whole))
        return min(found, default=None)


def _random_sampler(loader: Any) -> Sampler[Any] | None:
    """What shuffles a DataLoader, or None."""
    kinds = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
    return next((sampler for sampler in samplers(loader) if isinstance(sampler, kinds)), None)


def _draw_alike(random: list[Sampler[Any]]) -> bool:
    """Each has a generator of its own, all in the same state."""
    generators = [getattr(sampler, "generator", None) for sampler in random]
    if None in generators or len(set(map(id, generators))) < len(generators):
        return False
    return len({bytes(g.get_state().tolist()) for g in generators if g is not None}) == 1


def _drawn(opened: Mapping[str, Opened], step: int) -> dict[str, Any]:
    return {name: one.draw(step) for name, one in opened.items()}


def _watch(opened: list[Opened], step: int) -> None:
    for one in opened:
        one.watch(step)


def _end(opened: list[Opened]) -> None:
    for one in opened:
        one.close()


def _kill(opened: list[Opened]) -> None:
    for one in opened:
        one.kill()
