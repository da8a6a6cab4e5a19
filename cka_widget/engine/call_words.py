"""What is told of a call: inputs that were perhaps left out, and arguments that are missing."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from cka_widget.engine.calls import Call, LeftOut, as_call, takes

# What models say that were not given all that they need.
_MISSING = re.compile(r"missing \d+ required|unexpected keyword|positional arguments? but")
_UNSPECIFIED = re.compile(r"decoder_input|(have to|must) specify|NoneType")


def second_is_input(call: Call) -> bool:
    """Is an input, or what may be one, in the place where labels are in `(inputs, labels)`?"""
    left = any(part.where == "batch[1]" and not part.is_label for part in call.left_out)
    return left or "batch[1]" in call.written


def left_out_sentence(name: str, call: Call) -> str | None:
    """What the result is to say of parts left out that may be inputs; None where there are none."""
    missed = [part for part in call.left_out if not part.is_label]
    if not missed:
        return None
    where = " and ".join(part.where for part in missed)
    has, defaults = ("has", "a default") if len(missed) == 1 else ("have", "defaults")
    names = " and ".join(f'"{part.parameter}"' for part in missed if part.parameter)
    why = f"since {names} {has} {defaults} in its forward" if names else "as labels are"
    return (
        f'Model "{name}" was called without {where} of the batch, {why}: if it is an input, use '
        f"forward={_remedy(call, missed)}."
    )


def _remedy(call: Call, missed: list[LeftOut]) -> str:
    said = [call.written]
    for part in missed:
        if part.where[0] != '"':  # keys are all in `**batch` already
            said.append(f"{part.parameter}={part.where}" if part.parameter else part.where)
    return f"lambda model, batch: model({', '.join(said)})"


def missing_sentence(error: Exception, batch: Any, model: nn.Module, layer: str | None) -> str:
    """The end of a sentence on a failed call, where the way a batch becomes a call may be why."""
    text = str(error)
    known = takes(model)
    outermost = not layer or known.any_position or known.any_keyword  # wrappers hand all on
    own = isinstance(error, TypeError) and outermost and _MISSING.search(text)
    if not own and not _UNSPECIFIED.search(text):
        return ""
    try:
        call = as_call(batch, model)
    except TypeError:
        return ""
    if not own and not call.left_out and "NoneType" in text:
        return ""
    found = f"; the batch became model({call.written})"
    if call.left_out:
        found += ", with " + " and ".join(p.where for p in call.left_out) + " left out as labels"
    decoder = "decoder" in text or any("decoder" in name for name in known.keywords)
    needs = "decoder inputs and labels" if decoder else "labels"
    return (
        f"{found}: where the model needs more, {needs} included, say so with "
        f"forward={_remedy(call, list(call.left_out))}"
    )
