"""What a loader is: an iterable of batches, and nothing that merely can be iterated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from cka_widget.names import did_you_mean

_LOADER = "torch.utils.data.DataLoader"
_TENSORS = "torch.utils.data.TensorDataset"


def by_model(loader: Any, models: Sequence[str]) -> dict[str, Any]:
    """The loader of every model, by name, where one loader or a mapping of them is given.

    Raises:
        TypeError: something that does not give batches; the message has the line that would.
        ValueError: a mapping with other names than the models'.
    """
    found = dict.fromkeys(models, loader)
    if isinstance(loader, Mapping):
        if set(loader) != set(models):
            raise ValueError(_not_the_models(loader, models))
        found = {str(name): loader[name] for name in loader}
    for one in found.values():
        _check(one)
    return found


def length(thing: Any) -> int | None:
    """How many entries something has; None where it does not say, as iterable data sets."""
    try:
        return len(thing)
    except (TypeError, NotImplementedError, AttributeError):
        return None


def samplers(loader: Any) -> Iterator[Any]:
    """What a loader draws its samples by, or None, at every place."""
    for owner in (loader, getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        for name in ("batch_sampler", "sampler"):
            yield getattr(owner, name, None)


def _not_the_models(loader: Mapping[Any, Any], models: Sequence[str]) -> str:
    names = list(map(str, loader))
    text = f"a mapping of loaders must have the models' names, {', '.join(models)}, not "
    text += ", ".join(names)
    if any(isinstance(value, Tensor) for value in loader.values()):
        return f"{text}; if this is one batch, give a list of batches, [batch]"
    unknown = next((name for name in names if name not in models), "")
    return text + did_you_mean(unknown, models)


def _check(loader: Any) -> None:
    for belongs, what, line in _KINDS:
        if belongs(loader):
            raise TypeError(
                f"the loader is {what.format(kind=type(loader).__name__)}, which does not give "
                f"batches of samples; give {line}"
            )
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise TypeError(
            f"the loader is a {type(loader).__name__}, which cannot be iterated; "
            f"give a {_LOADER} or a list of batches"
        )


def _of(package: str, *names: str) -> Callable[[Any], bool]:
    """Tells an object of a package by its class, without importing the package."""

    def belongs(thing: Any) -> bool:
        return any(
            kind.__module__.partition(".")[0] == package and kind.__name__ in names
            for kind in type(thing).__mro__
        )

    return belongs


def _is_stream_of_samples(thing: Any) -> bool:
    # Loaders of other libraries inherit from IterableDataset as well.
    return isinstance(thing, IterableDataset) and not type(thing).__name__.endswith("Loader")


def _is_one_batch(thing: Any) -> bool:
    """A tuple of tensors of unlike shapes, such as (images, labels), is no list of batches."""
    return (
        isinstance(thing, tuple)
        and len(thing) > 1
        and all(isinstance(part, Tensor) for part in thing)
        and len({part.dim() for part in thing}) > 1
    )


_FRAME = f"{_LOADER}({_TENSORS}(torch.tensor(frame.to_numpy(), dtype=torch.float32)), 64)"

# What is met in a loader's place, how it is called, and the line that would work.
_KINDS: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (
        lambda x: isinstance(x, Tensor),
        "a tensor",
        f"{_LOADER}({_TENSORS}(data), batch_size=64), or a list of batches, data.split(64)",
    ),
    (
        _of("numpy", "ndarray"),
        "a numpy array",
        f"{_LOADER}({_TENSORS}(torch.from_numpy(data).float()), batch_size=64)",
    ),
    (_of("pandas", "DataFrame", "Series"), "a {kind}", _FRAME),
    (_of("polars", "DataFrame", "LazyFrame", "Series"), "a {kind}", _FRAME),
    (
        _of("datasets", "Dataset", "IterableDataset"),
        "a data set ({kind})",
        f'{_LOADER}(dataset.with_format("torch"), batch_size=64)',
    ),
    (
        _of("datasets", "DatasetDict", "IterableDatasetDict"),
        "a {kind}",
        f'{_LOADER}(dataset["test"].with_format("torch"), batch_size=64)',
    ),
    (
        _is_stream_of_samples,
        "a data set ({kind})",
        f"{_LOADER}(dataset, batch_size=64), or batch_size=None where it gives whole batches",
    ),
    (
        lambda x: isinstance(x, Dataset) and not isinstance(x, IterableDataset),
        "a data set ({kind})",
        f"{_LOADER}(dataset, batch_size=64)",
    ),
    (
        lambda x: isinstance(x, (str, bytes, os.PathLike)),
        "a {kind}",
        f"{_LOADER}(dataset, batch_size=64) of a data set that reads it",
    ),
    (lambda x: isinstance(x, nn.Module), "a model ({kind})", f"{_LOADER} or a list of batches"),
    (_is_one_batch, "one batch, a tuple of tensors", "a list of batches, [batch]"),
)
