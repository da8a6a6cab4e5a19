"""Which rows and columns of a result are on screen, with what to say about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate
from operator import itemgetter

import numpy as np

from cka_widget.engine.models.layers import OUTPUT, split_call
from cka_widget.layer_tree import LayerTree
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.widgets.run.run_history import RunHistory

NOT_YET = "not computed yet"
VALUE_NAMES = {"mean": "{}", "spread": "spread of {}", "stderr": "standard error of {}"}
"""What a number is called, by the statistic, with the measure's title."""
LACKS = {
    "mean": "",
    "spread": "one pair only: no spread",
    "stderr": "no error bar yet: fewer than 5 blocks of independent samples",
}
"""Why a cell of two computed layers has no value of a statistic."""


def default_choice(tree: LayerTree) -> list[str]:
    """Every module that ran, one of each group with the same output: the engine's own default."""
    usable = set(tree.leaves()) | set(tree.blocks())
    return [node.name for node in tree if node.name in usable and not node.alias_of]


@dataclass(frozen=True)
class Axis:
    """One side of the heatmap.

    Attributes:
        model: name of the model.
        layers: labels of the rows, those that were not computed yet among them.
        info: class and shape of each.
        reasons: why each is undefined, or None.
        missing: the labels that no run has.
    """

    model: str
    layers: list[str]
    info: list[str]
    reasons: list[str | None]
    missing: list[str]

    def index(self, key: LayerKey) -> int | None:
        """Where a layer stands, None where it is not shown."""
        if key.model != self.model or key.layer not in self.layers:
            return None
        return self.layers.index(key.layer)


def axis(
    known: RunHistory, tree: LayerTree, model: str, chosen: Sequence[str], everything: bool
) -> Axis:
    """The chosen layers of one model: what was computed, and what was not yet.

    Where `everything` is chosen and the latest run was asked for everything, it knows best.
    """
    latest = known.latest
    labels, missing, skipped = _chosen(known, tree, model, chosen)
    if everything and latest is not None and latest.asked.get(model, ()) is None:
        labels, missing = list(latest.places(model)), []
    reasons = known.reasons(model, labels) | dict.fromkeys(missing, NOT_YET) | skipped
    info = [layer_info(tree, name) for name in labels]
    return Axis(model, labels, info, [reasons[name] for name in labels], missing)


def _chosen(
    known: RunHistory, tree: LayerTree, model: str, chosen: Sequence[str]
) -> tuple[list[str], list[str], dict[str, str | None]]:
    """Labels in order, those that no run has, and those without a row with the reason."""
    wanted: set[str] = set()
    absent: list[str] = []
    skipped: dict[str, str | None] = {}
    for name in chosen:
        rows = known.labels(model, name, tree[name].alias_of)
        wanted.update(rows)
        if not rows:
            absent.append(name)
            if reason := known.skipped(model, name):
                skipped[name] = reason
    labels = [label for label in known.runs[0].places(model) if label in wanted]
    others = wanted - set(labels)
    more = [label for label in known.layers(model) if label in others]
    missing = [name for name in absent if name not in skipped]
    return in_order(labels, more + absent, tree), missing, skipped


def in_order(labels: Sequence[str], more: Sequence[str], tree: LayerTree) -> list[str]:
    """`labels` as they are, with each of `more` before the first that comes after it."""
    ranks = tree.output_order
    last = (len(tree), 0)  # the model's own output

    def rank(label: str) -> tuple[int, int]:
        return ranks.get(split_call(label)[0], last)

    first = itemgetter(0)
    # The labels need not be in the tree's order: each counts as the furthest of all up to it.
    kept = zip(accumulate(map(rank, labels), max), labels, strict=True)
    added = sorted(((rank(label), label) for label in more), key=first)
    return [label for _, label in merge(kept, added, key=first)]


def layer_info(tree: LayerTree, label: str) -> str:
    """As in "Conv2d 64×8×8"."""
    name = split_call(label)[0]
    if label == OUTPUT:
        return tree.class_name
    if name not in tree:
        return ""
    return " ".join(filter(None, (tree[name].class_name, tree[name].shape_text)))


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
    known: RunHistory, rows: Axis, cols: Axis, statistic: str, measure: str = ""
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and standard errors of the shown cells; errors go with the mean alone."""
    sides = rows.model, rows.layers, cols.model, cols.layers
    values = known.table({"mean": "matrix"}.get(statistic, statistic), *sides, measure)
    return values, known.table("stderr", *sides, measure) if statistic == "mean" else None
