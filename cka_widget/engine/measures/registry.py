"""The measures by name, and what the options of a run ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from cka_widget.engine.measures.cka import CKA
from cka_widget.engine.measures.distance_correlation import DistanceCorrelation
from cka_widget.engine.measures.measure import Measure
from cka_widget.engine.measures.mutual_knn import MutualKNN
from cka_widget.engine.measures.rsa import RSA
from cka_widget.engine.measures.within_class import WithinClassCKA
from cka_widget.names import did_you_mean

# What `measures=` may be.
Measures = str | Measure | Sequence[str | Measure] | None

BY_NAME: dict[str, Callable[[], Measure]] = {
    "cka": CKA,
    "rsa": RSA,
    "distance_correlation": DistanceCorrelation,
    "mutual_knn": MutualKNN,
    "within_class_cka": WithinClassCKA,
}


def measures_of(
    measures: Any, kernel: str | None, unbiased: bool | None, bandwidth: float | None
) -> list[Measure]:
    """The measures that `measures=`, or the short forms of CKA's options, ask for.

    Raises:
        TypeError, ValueError: what is no measure; both at once; two of one name.
    """
    given: dict[str, Any] = {"kernel": kernel, "unbiased": unbiased, "bandwidth": bandwidth}
    given = {name: value for name, value in given.items() if value is not None}
    if measures is None:
        return [CKA(**given)]
    if given:
        (option, value), *_ = given.items()
        raise ValueError(
            f"{option}={value!r} beside measures= says CKA's options twice: give "
            f"measures=[CKA({option}={value!r}), ...]"
        )
    if isinstance(measures, (str, Measure)):
        measures = [measures]
    if not isinstance(measures, Sequence) or not measures:
        raise TypeError(f"measures={measures!r} must be a list of measures, such as ['cka', 'rsa']")
    found = [_measure(one) for one in measures]
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'two measures are called "{name}": give one of them another name=')
    return found


def _measure(one: Any) -> Measure:
    if isinstance(one, Measure):
        if not one.name or not isinstance(one.name, str):
            raise ValueError(f"{type(one).__name__} has no name: give its class name = '...'")
        try:
            json.dumps(dict(one.options))
        except (TypeError, ValueError):
            raise TypeError(
                f'the options of "{one.name}" must be numbers, names, True, False or None, since '
                "they are saved with the result"
            ) from None
        return one
    if isinstance(one, str):
        if one in BY_NAME:
            return BY_NAME[one]()
        near = did_you_mean(one, BY_NAME)
        raise ValueError(f'there is no measure "{one}"{near}; there are {", ".join(BY_NAME)}')
    if isinstance(one, type) and issubclass(one, Measure):
        raise TypeError(f"{one.__name__} is a class: give {one.__name__}()")
    raise TypeError(f"{one!r} is no measure: give a name or an instance of cka_widget.Measure")
