"""A batch that all passes share, kept from models that write into their input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from cka_widget.engine.data.batches import map_tensors, tensors
from cka_widget.engine.errors import CompareError
from cka_widget.engine.models.particles import Pass


class Copies:
    """Gives each pass its batch: a copy of it where the model changes its input in place.

    Which models do is seen on their first batch, of which each gets a copy.
    """

    def __init__(self) -> None:
        self._writes: dict[int, bool] = {}

    @contextmanager
    def given(self, run: Pass, batch: Any) -> Iterator[Any]:
        """Around the pass.

        Raises:
            CompareError: a model that left its input alone at first has now changed it.
        """
        writes = self._writes.get(id(run))
        mine = batch if writes is False else map_tensors(batch, Tensor.clone)
        before = _versions(mine)
        yield mine
        changed = _versions(mine) != before
        if writes is None:
            self._writes[id(run)] = changed
        elif changed and not writes:
            raise CompareError(
                f'model "{run.model}" changed its input in place, and not on its first batch: the '
                "models after it would see another batch; clone the input in its forward",
                model=run.model,
            )


def _versions(batch: Any) -> list[int]:
    return [0 if t.is_inference() else t._version for t in tensors(batch)]
