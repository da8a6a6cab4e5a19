"""Which rows and columns of a result are on screen, with what to say about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cka_widget.engine.keys import Cell, LayerKey
from cka_widget.engine.layers import OUTPUT, split_call
from cka_widget.layer_tree import LayerTree

VALUE_NAMES = {"mean": "CKA", "spread": "spread", "stderr": "standard error"}


def default_choice(tree: LayerTree) -> list[str]:
    """Every module that ran, one of each group with the same output: the engine's own default."""
    usable = set(tree.leaves()) | set(tree.blocks())
    return [node.name for node in tree if node.name in usable and not node.alias_of]


def visible_layers(
    layers: Sequence[str], chosen: Sequence[str], everything: bool, aliases: Mapping[str, str]
) -> list[str]:
    """Those labels of a result (calls numbered) whose module, or one with its output, is chosen."""
    if everything:
        return list(layers)
    wanted = {*chosen, *(aliases[name] for name in chosen if name in aliases)}
    return [name for name in layers if name in wanted or split_call(name)[0] in wanted]


def not_computed(
    layers: Sequence[str], chosen: Sequence[str], aliases: Mapping[str, str]
) -> list[str]:
    """Chosen modules that the result has no row for, and whose output no other row has."""
    known = {part for name in layers for part in (name, split_call(name)[0])}
    return [name for name in chosen if name not in known and aliases.get(name) not in known]


@dataclass(frozen=True)
class Axis:
    """One side of the heatmap."""

    model: str
    layers: list[str]
    info: list[str]
    reasons: list[str | None]

    def index(self, key: LayerKey) -> int | None:
        """Where a layer stands, None where it is not shown."""
        if key.model != self.model or key.layer not in self.layers:
            return None
        return self.layers.index(key.layer)


def axis(result: Any, tree: LayerTree, model: str, chosen: Sequence[str], everything: bool) -> Axis:
    """The chosen layers of one model, with class and shape, and why a layer is undefined."""
    layers = result.layers(model)
    aliases = {node.name: node.alias_of for node in tree if node.alias_of}
    keep = visible_layers(layers, chosen, everything, aliases)
    reasons = dict(zip(layers, result.reasons(model), strict=True))
    return Axis(model, keep, [layer_info(tree, name) for name in keep], [reasons[n] for n in keep])


def layer_info(tree: LayerTree, label: str) -> str:
    """As in "Conv2d 64×8×8"."""
    name = split_call(label)[0]
    if label == OUTPUT:
        return tree.class_name
    node = {node.name: node for node in tree}.get(name)
    return " ".join(filter(None, (node.class_name, node.shape_text))) if node else ""


def cell_at(rows: Axis, cols: Axis, pair: Sequence[int]) -> Cell | None:
    """The names behind a heatmap's [row, column]."""
    if len(pair) != 2 or pair[0] >= len(rows.layers) or pair[1] >= len(cols.layers):
        return None
    return Cell(
        LayerKey(rows.model, rows.layers[pair[0]]), LayerKey(cols.model, cols.layers[pair[1]])
    )


def pair_at(rows: Axis, cols: Axis, cell: Cell | None) -> list[int]:
    """The heatmap's [row, column] of a cell; [] where it is not shown."""
    if cell is None:
        return []
    found = rows.index(cell.row), cols.index(cell.col)
    return [] if None in found else [int(i) for i in found if i is not None]


def matrices(
    result: Any, rows: Axis, cols: Axis, metric: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and standard errors of the shown cells; errors go with the mean alone."""
    frame = getattr(result, {"mean": "matrix"}.get(metric, metric))(rows.model, cols.model)
    values = frame.loc[rows.layers, cols.layers].to_numpy(float)
    if metric != "mean":
        return values, None
    errors = result.stderr(rows.model, cols.model).loc[rows.layers, cols.layers].to_numpy(float)
    return values, errors
