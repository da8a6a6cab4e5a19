"""A first look at models and data, without using anything up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import nn

from cka_widget.engine.calls.calls import Forward, Forwards, forward_of
from cka_widget.engine.data.batches import count, head
from cka_widget.engine.data.loaders import samplers
from cka_widget.engine.data.streams import Stream
from cka_widget.engine.devices import pick_device
from cka_widget.engine.outputs.glimpse import MORE
from cka_widget.engine.outputs.samples import CountSamples, look_count
from cka_widget.introspection import introspect, timed
from cka_widget.layer_tree import LayerTree
from cka_widget.widgets.comparison.cost import Costs

LOOK = 16
"""Samples that are taken for a look."""
WORTH = 0.02
"""Seconds of a forward pass from which on its time says something."""


class OneShot:
    """An iterator whose first batch was looked at, and is still given out first."""

    def __init__(self, first: Any, rest: Iterator[Any]) -> None:
        self._batches = chain([first], rest)

    def __iter__(self) -> Iterator[Any]:
        return self._batches


def peek(loader: Any) -> tuple[Any, Any]:
    """A first batch, and the loader to use from now on.

    A DataLoader with a map-style data set is asked for a few samples, so that no worker starts and
    no shuffling is drawn; what can be read only once is wrapped, so that it does not lose its first
    batch. The random state is left as it was, and workers that had to start have ended.

    Returns:
        (batch or None where there is none, loader).
    """
    if isinstance(loader, Mapping):
        looks = {name: peek(one) for name, one in loader.items()}
        batches = {name: look[0] for name, look in looks.items()}
        return PerModel(batches), {name: look[1] for name, look in looks.items()}
    with torch.random.fork_rng(devices=[]):
        dataset: Any = getattr(loader, "dataset", None)
        if callable(getattr(loader, "collate_fn", None)) and _map_style(dataset):
            try:
                return _few(loader, dataset), loader
            except Exception:
                if getattr(loader, "num_workers", 0):
                    return None, loader  # what is wrong is told by the run, which starts workers
        if not isinstance(loader, Iterable):
            return None, loader
        if isinstance(loader, Iterator) or _read_once(loader, dataset):
            stream = iter(loader)
            first = next(stream, None)
            return first, loader if first is None else OneShot(first, stream)
        with closing(iter(Stream(loader, ["first look"], 1, keep=False))) as steps:
            return next(steps, {"first look": None})["first look"], loader


def _map_style(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _few(loader: Any, dataset: Any) -> Any:
    """A batch of a few samples, read in this process."""
    if getattr(loader, "batch_sampler", loader) is None:  # its samples are batches already
        with _kept(loader):
            return loader.collate_fn(dataset[next(iter(loader.sampler))])
    try:
        samples = [dataset[i] for i in range(min(LOOK, len(dataset)))]
    except Exception:  # a data set with keys of its own
        with _kept(loader):
            samples = [dataset[key] for key in next(iter(loader.batch_sampler))[:LOOK]]
    return loader.collate_fn(samples)


@contextmanager
def _kept(loader: Any) -> Iterator[None]:
    """The loader's own generators are left as they were."""
    owners = (loader, *samplers(loader))
    found = (getattr(one, "generator", None) for one in owners)
    generators = list({id(g): g for g in found if g is not None}.values())
    states = [g.get_state() for g in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _read_once(loader: Any, dataset: Any) -> bool:
    """An iterable data set that is its own iterator, or keeps it; workers would have a copy."""
    if getattr(loader, "num_workers", None) != 0 or not isinstance(dataset, Iterable):
        return False
    return not _map_style(dataset) and iter(dataset) is iter(dataset)


class PerModel(dict):
    """First batches by model name, of a mapping of loaders."""


def batch_for(first: Any, model: str) -> Any:
    """The batch that this model would get."""
    return first.get(model) if isinstance(first, PerModel) else first


def look_at(
    roots: Mapping[str, nn.Module], first: Any, forward: Forwards, samples: Any = None
) -> dict[str, LayerTree]:
    """One tree a model, from its first particle."""
    trees = {}
    for name, root in roots.items():
        trees[name] = introspect(
            root,
            batch_for(first, name),
            forward=forward_of(forward, name),
            samples=forward_of(samples, name),
        )
    return trees


def look_at_costs(
    loader: Any,
    particles: Mapping[str, int],
    roots: Mapping[str, nn.Module],
    trees: Mapping[str, LayerTree],
    first: Any,
    forward: Forwards,
    options: Mapping[str, Any],
) -> Costs:
    """What a run will cost whatever its layers, from the loader and a few passes and products."""
    samples = None
    if isinstance(loader, Mapping) or hasattr(loader, "__len__"):
        samples = Stream(loader, list(roots), options.get("max_batches")).total_samples
    times = []
    for name, root in roots.items():
        calls = forward_of(forward, name), forward_of(options.get("samples"), name)
        one = seconds_a_sample(root, batch_for(first, name), *calls, few=trees[name].seconds)
        times.append(None if one is None else one * particles[name])
    known = [one for one in times if one is not None]
    return Costs(
        samples,
        getattr(loader, "batch_size", None) or count(batch_for(first, next(iter(roots)))),
        options.get("hsic_batch_size"),
        sum(known) if len(known) == len(times) else None,
        operations_a_second(),
        pick_device(options.get("device")).type != "cpu",
    )


def seconds_a_sample(
    root: nn.Module,
    batch: Any,
    forward: Forward | None,
    given: CountSamples | None,
    few: float | None,
) -> float | None:
    """Time of one sample's forward pass on this machine; None if it is not known.

    Args:
        root: the model.
        batch: its first one.
        forward: how a batch becomes a call.
        given: `samples=`.
        few: the time in a pass on few samples, of which small models show too little.
    """
    n = look_count(batch, root, forward, given)
    if few is None or few * MORE > WORTH or not n:
        return few
    size = min(LOOK, n)
    try:
        return timed(root, head(batch, size, n), size, forward)
    except Exception:  # it may refuse this many
        return few


@cache
def operations_a_second() -> float:
    """Multiplications and additions of a product of matrices on this machine's processor."""
    x, best = torch.ones(128, 4096), math.inf
    for _ in range(3):  # the first one wakes the library up
        start = time.perf_counter()
        torch.mm(x, x.T)
        best = min(best, time.perf_counter() - start)
    return 2 * 128 * x.numel() / best
