"""What is told of a call: inputs that were perhaps left out, and arguments that are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from cka_widget.engine.calls.calls import Call, LeftOut, as_call, takes
from cka_widget.engine.data.batches import LABEL_KEYS
from cka_widget.engine.errors import message

# What is said in the errors of models that were not given all that they need.
_MISSING = re.compile(r"missing \d+ required|unexpected keyword|positional arguments? but")
_UNSPECIFIED = re.compile(r"decoder_input|(have to|must) specify")


def second_is_input(call: Call) -> bool:
    """Is an input, or what may be one, in the place where labels are in `(inputs, labels)`?"""
    left = any(part.where == "batch[1]" and not part.is_label for part in call.left_out)
    return left or "batch[1]" in call.written


def left_out_sentence(name: str, call: Call) -> str | None:
    """What the result is to say of parts left out that may be inputs; None where there are none."""
    missed = [part for part in call.left_out if not part.is_label]
    if not missed:
        return None
    one = len(missed) == 1
    names = _and(f'"{part.parameter}"' for part in missed if part.parameter)
    why = "as labels are left out"
    if names:
        why = f"since {names} {'has a default' if one else 'have defaults'} in its forward"
    what = "it is an input" if one else "they are inputs"
    return (
        f'Model "{name}" was called without {_and(part.where for part in missed)} of the batch, '
        f"{why}: if {what}, use forward={_remedy(call, missed)}."
    )


def missing_sentence(error: Exception, batch: Any, model: nn.Module, layer: str | None) -> str:
    """The end of a sentence on a failed call, where the way a batch becomes a call may be why."""
    try:
        call = as_call(batch, model)
    except TypeError:  # the error itself says what helps
        return ""
    text, known = message(error), takes(model)
    outermost = not layer or known.any_position or known.any_keyword  # wrappers hand all on
    own = isinstance(error, TypeError) and outermost and _MISSING.search(text)
    missed = [part for part in call.left_out if not part.is_label]
    if not (own or missed or _UNSPECIFIED.search(text) or (call.left_out and "NoneType" in text)):
        return ""
    found = f"; the batch became model({call.written})"
    if call.left_out:
        found += f", and {_and(part.where for part in call.left_out)} of it was left out"
    decoder = "decoder" in text or any("decoder" in name for name in known.keywords)
    needs = "decoder inputs, labels" if decoder else "labels, for instance"
    parts = missed or [part for part in call.left_out if part.parameter in LABEL_KEYS]
    return (
        f"{found}: where the model needs more ({needs}), say so with "
        f"forward={_remedy(call, parts, None if parts else '...')}"
    )


def _remedy(call: Call, missed: list[LeftOut], more: str | None = None) -> str:
    said = [call.written]
    for part in missed:
        if part.where[0] != '"':  # keys are all in `**batch` already
            said.append(f"{part.parameter}={part.where}" if part.parameter else part.where)
    return f"lambda model, batch: model({', '.join([*said, *filter(None, [more])])})"


def _and(words: Iterable[str]) -> str:
    return " and ".join(words)
