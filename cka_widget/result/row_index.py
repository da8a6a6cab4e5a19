"""Which row of the sums is which layer of which particle of which model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cka_widget.names import did_you_mean
from cka_widget.result.sums import Array


@dataclass(frozen=True)
class ModelRows:
    """The rows of one model: `layers` for every one of its particles.

    `aliases` maps further names of a layer (a container's last child) to the layer's label;
    `skipped` maps modules that gave no row to the reason.
    """

    name: str
    layers: tuple[str, ...]
    n_particles: int = 1
    aliases: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.layers) * self.n_particles


class RowIndex:
    """Looks rows up in arrays whose rows go model by model, particle by particle."""

    def __init__(self, models: tuple[ModelRows, ...]) -> None:
        self._models = models

    def model(self, name: str) -> ModelRows:
        """Raises KeyError naming the models there are."""
        for m in self._models:
            if m.name == name:
                return m
        known = ", ".join(m.name for m in self._models)
        raise KeyError(f'no model "{name}" in this result; it has {known}')

    def layer(self, model: str, layer: str) -> int:
        """Position of a layer, by its label or an alias; KeyError says why it is not there, or
        offers the nearest name.
        """
        rows = self.model(model)
        layer = rows.aliases.get(layer, layer)
        if layer in rows.layers:
            return rows.layers.index(layer)
        reason = rows.skipped.get(layer)
        why = f": {reason}" if reason else did_you_mean(layer, [*rows.layers, *rows.aliases])
        raise KeyError(f'no layer "{layer}" of model "{model}" in this result{why}')

    def of(self, model: str) -> slice:
        """All rows of a model."""
        self.model(model)
        before = itertools.takewhile(lambda m: m.name != model, self._models)
        start = sum(map(len, before))
        return slice(start, start + len(self.model(model)))

    def layers_of(self, model: str) -> slice:
        """A model's layers among all models' layers."""
        self.model(model)
        before = itertools.takewhile(lambda m: m.name != model, self._models)
        start = sum(len(m.layers) for m in before)
        return slice(start, start + len(self.model(model).layers))

    def blocks(self, full: Array, row_model: str, col_model: str) -> Array:
        """A model pair's part of an array (R, R), as (P, Q, layers, layers)."""
        a, b = self.model(row_model), self.model(col_model)
        block = full[self.of(row_model), self.of(col_model)]
        shape = (a.n_particles, len(a.layers), b.n_particles, len(b.layers))
        blocks: Array = block.reshape(shape).transpose(0, 2, 1, 3)
        return blocks

    def pairs(self, full: Array, row_model: str, col_model: str) -> Array:
        """The particle pairs that count, (pairs, layers, layers).

        An ensemble against itself counts pairs of different particles.
        """
        blocks = self.blocks(full, row_model, col_model)
        p, q = blocks.shape[:2]
        keep = np.ones((p, q), dtype=bool)
        if row_model == col_model and p > 1:
            np.fill_diagonal(keep, False)
        pairs: Array = blocks[keep]
        return pairs
