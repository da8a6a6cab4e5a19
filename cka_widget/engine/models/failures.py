"""Models that fail: in which layer, with what message, and what helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from cka_widget.engine.calls.call_words import missing_sentence
from cka_widget.engine.errors import CompareError, summary
from cka_widget.engine.models.particles import Pass


@contextmanager
def failing(
    run: Pass, batch: Any, number: int, *, one_of_many: bool, as_usual: bool
) -> Iterator[None]:
    """Around one pass of a model.

    Args:
        run: the pass.
        batch: what the model gets.
        number: of the batch, from 1.
        one_of_many: does the model have other particles?
        as_usual: did the batch become a call without `forward=`?

    Raises:
        CompareError: names the model and the layer of whatever fails within.
    """
    try:
        yield
    except CompareError:
        raise
    except Exception as error:
        layer = failed_layer(error, run.root)
        where = f'model "{run.model}"'
        where += f", particle {run.particle}" if one_of_many else ""
        where += f', layer "{layer}"' if layer else ""
        remedy = "" if run.mapped is None else "; leave out vmap=True to run particles singly"
        if as_usual:
            remedy += missing_sentence(error, batch, run.root, layer)
        raise CompareError(
            f"{where} failed at batch {number}: {summary(error)}{remedy}",
            model=run.model,
            layer=layer,
        ) from error


def failed_layer(error: BaseException, root: nn.Module) -> str | None:
    """Dotted name of the innermost module of `root` whose call the error came through."""
    names = {id(module): name for name, module in root.named_modules() if name}
    found, traceback = None, error.__traceback__
    while traceback is not None:
        caller = traceback.tb_frame.f_locals.get("self")
        if isinstance(caller, nn.Module):
            found = names.get(id(caller), found)
        traceback = traceback.tb_next
    return found
