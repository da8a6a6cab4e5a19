"""The options of a run, checked before anything runs: their names, their values, the device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

from cka_widget.engine.devices import pick_device
from cka_widget.engine.grams import accelerator
from cka_widget.engine.measures.measure import Measure
from cka_widget.engine.measures.registry import measures_of
from cka_widget.engine.outputs.features import REDUCTIONS
from cka_widget.names import did_you_mean

P = ParamSpec("P")
T = TypeVar("T")

# Options that may differ between models, as a mapping by name.
_BY_MODEL = ("layers", "forward", "samples", "particle_axis")
_COUNTS = ("hsic_batch_size", "max_batches")
_SWITCHES = ("unbiased", "vmap", "cuda_graph")


def names_checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, refusing keywords that it does not have by naming the nearest that it has."""
    known = list(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        refuse_unknown(kwargs, known)
        return function(*args, **kwargs)

    return checked


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raises TypeError where an option is given that there is not."""
    known = list(known)
    for name in given:
        if name not in known:
            near = did_you_mean(name, known) or f"; the options are {', '.join(known)}"
            raise TypeError(f'there is no option "{name}"{near}')


def check(models: Any, options: Mapping[str, Any]) -> list[Measure]:
    """Check the values of `compare`'s options.

    Args:
        models: name -> model.
        options: by name; those that are left out have their defaults.

    Returns:
        The measures that they ask for.

    Raises:
        TypeError, ValueError: a value that cannot work; one sentence says which, and what can.
    """
    for option in _BY_MODEL:
        _check_models(option, options.get(option), models)
    for option in ("forward", "samples"):
        _check_functions(option, options.get(option))
    for option in _COUNTS:
        _check_count(option, options.get(option))
    for option in _SWITCHES:
        value = options.get(option, False)
        if not isinstance(value, (bool, np.bool_)) and not (option == "unbiased" and value is None):
            raise TypeError(f"{option}={value!r} must be True or False")
    _check_axis(options.get("particle_axis"))
    _check_reduce(options.get("reduce", "flatten"))
    _check_groups(options.get("groups"))
    measures = measures_of(
        options.get("measures"),
        options.get("kernel"),
        options.get("unbiased"),
        options.get("bandwidth"),
    )
    block, stderr = options.get("hsic_batch_size"), options.get("stop_at_stderr")
    least = max(one.min_samples for one in measures)
    if block is not None and block < least:
        needs = "".join(f' for "{one.name}"' for one in measures[1:] if one.min_samples == least)
        raise ValueError(f"hsic_batch_size={block} is too small: at least {least}{needs}")
    if stderr is not None and not isinstance(stderr, Real):
        raise TypeError(f"stop_at_stderr={stderr!r} must be a number, such as 0.01")
    accelerator.resolve(options.get("precision"), pick_device(options.get("device")))
    return measures


def _check_models(option: str, value: Any, models: Any) -> None:
    if not isinstance(value, Mapping) or not isinstance(models, Mapping):
        return
    known = list(map(str, models))
    for name in map(str, value):
        if name not in known:
            raise ValueError(
                f'{option}= names "{name}", which is no model{did_you_mean(name, known)}; '
                f"the models are {', '.join(known)}"
            )


def _check_functions(option: str, value: Any) -> None:
    for function in value.values() if isinstance(value, Mapping) else [value]:
        if function is not None and not callable(function):
            raise TypeError(
                f"{option}={function!r} must be a function, or a mapping of functions by model name"
            )


def _check_axis(value: Any) -> None:
    for axis in value.values() if isinstance(value, Mapping) else [value]:
        if axis is not None and not hasattr(axis, "__index__"):
            raise TypeError(
                f"particle_axis={axis!r} must be a whole number, or a mapping of such by model name"
            )


def _check_count(option: str, value: Any) -> None:
    if value is None:
        return
    if not hasattr(value, "__index__") or isinstance(value, bool):
        raise TypeError(f"{option}={value!r} must be a whole number")
    if value < 1:
        raise ValueError(f"{option}={value} must be at least 1")


def _check_groups(groups: Any) -> None:
    listed = hasattr(groups, "__getitem__") and hasattr(groups, "__len__")
    if isinstance(groups, (str, bytes, Mapping)) or not (
        groups is None or callable(groups) or listed
    ):
        raise TypeError(
            f"groups={groups!r} must be one value a sample in the loader's order, or a function of "
            "the batch, such as lambda batch: batch[2]"
        )


def _check_reduce(reduce: Any) -> None:
    if isinstance(reduce, str) and reduce not in REDUCTIONS:
        near = did_you_mean(reduce, REDUCTIONS)
        raise ValueError(
            f"reduce={reduce!r} is not known{near}; choose one of {', '.join(REDUCTIONS)}"
        )
    if not isinstance(reduce, str) and not callable(reduce):
        raise TypeError(f"reduce={reduce!r} must be one of {', '.join(REDUCTIONS)}, or a function")
