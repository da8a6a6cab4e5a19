"""The states of the random numbers that models draw, which looks at a model leave as they were."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class RandomState:
    """Those of torch, of numpy and of Python, when it was made."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._cuda = torch.cuda.get_rng_state_all() if initialized else []
        self._numpy = np.random.get_state()  # noqa: NPY002, models draw from it
        self._python = random.getstate()

    def __eq__(self, other: object) -> bool:
        """Was nothing drawn between the two?"""
        if not isinstance(other, RandomState):
            return NotImplemented
        return all(map(np.array_equal, self._parts(), other._parts()))

    __hash__ = None  # type: ignore[assignment]

    def _parts(self) -> list[Any]:
        _, keys, position, *_ = self._numpy
        return [self._torch, *self._cuda, self._python[1], keys, position]

    def restore(self) -> None:
        """Draw from here on again."""
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)
