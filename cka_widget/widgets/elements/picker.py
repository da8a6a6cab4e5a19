"""A tree of a model's modules with boxes to choose the layers to compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import anywidget
import traitlets as t

from cka_widget.widgets.look.assets import SLOTS, THEMES, known_keywords, script, styles

FIELDS: dict[str, Any] = {
    "name": "",
    "label": "",
    "cls": "",
    "shape": "",
    "params": 0,
    "calls": 1,
    "depth": 0,
    "parent": -1,
    "status": "ran",
    "alias": "",
    "why": "",
}
STATUSES = ("ran", "never ran", "alias", "no rows")


def complete(nodes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Fill in what a node leaves out: its label is the last part of its name.

    Raises:
        ValueError: a node without a name, a status that is none of `STATUSES`, or a parent that
            does not come before its child.
    """
    filled: list[dict[str, Any]] = []
    for i, given in enumerate(nodes):
        node = {**FIELDS, **given}
        if not node["name"]:
            raise ValueError(f"node {i} has no name")
        if node["status"] not in STATUSES:
            raise ValueError(f"{node['name']}: status {node['status']!r} is none of {STATUSES}")
        if not -1 <= node["parent"] < i:
            raise ValueError(f"{node['name']}: its parent must come before it")
        node["label"] = node["label"] or node["name"].rpartition(".")[2]
        filled.append(node)
    return filled


class LayerPicker(anywidget.AnyWidget):
    """The modules of one model as a tree with three-state boxes, a search and presets.

    Args:
        nodes: the modules in preorder, as `LayerTree.to_nodes()` gives them.
        **traits: any trait by name, such as `checked`, `title`, `color`.

    Raises:
        TypeError: a keyword that is no trait, with the nearest name.
    """

    _esm = script("picker.js")
    _css = styles("picker.css")

    nodes = t.List(t.Dict()).tag(sync=True)
    checked = t.List(t.Unicode()).tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    color = t.Enum(SLOTS, "a").tag(sync=True)
    particles = t.Int(1, min=0).tag(sync=True)
    disabled = t.Bool(False).tag(sync=True)
    note = t.Unicode("").tag(sync=True)
    theme = t.Enum(THEMES, "auto").tag(sync=True)
    max_height = t.Int(380, min=50).tag(sync=True)

    def __init__(self, nodes: Iterable[Mapping[str, Any]] | None = None, **traits: Any) -> None:
        known_keywords(type(self), traits)
        if nodes is not None:
            traits["nodes"] = nodes
        super().__init__(**traits)

    @t.validate("nodes")
    def _complete_nodes(self, proposal: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            return complete(proposal["value"])
        except ValueError as error:
            raise t.TraitError(str(error)) from None

    @property
    def rows(self) -> int:
        """Rows of the matrix that the choice makes: one for each call of each chosen module."""
        chosen = set(self.checked)
        return sum(
            max(1, n["calls"]) for n in self.nodes if n["name"] in chosen and n["status"] == "ran"
        )
