"""The tree of a model's modules, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class LayerNode:
    """One module of a model.

    Attributes:
        name: dotted name, as in `named_modules`.
        class_name: class of the module.
        output_shape: shape of its last output without the axis of the samples; None when unknown.
        n_params: number of parameters, those of its children included.
        calls: how often it ran in one forward pass; 0 = never.
        depth: 0 for the model's own children.
        alias_of: outermost container that returns the very tensor that this module returned.
        why_not: why its output has no features for each sample; None where it has, or where that is
            not known.
    """

    name: str
    class_name: str
    output_shape: tuple[int, ...] | None = None
    n_params: int = 0
    calls: int = 0
    depth: int = 0
    alias_of: str | None = None
    why_not: str | None = None

    @property
    def label(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def shape_text(self) -> str:
        """As in "64×8×8"; empty when unknown."""
        return "×".join(map(str, self.output_shape or ()))


@dataclass(frozen=True)
class LayerTree:
    """The modules of a model in the order of `named_modules`, the root excluded.

    A model without modules below it has one node, its "(output)".

    Attributes:
        class_name: class of the model.
        nodes: one `LayerNode` a module; a module under two names has the first.
        ran: whether the model ran to its end; if not, `calls == 0` says nothing.
        error: one sentence that says why it did not run, or None.
        distinct: number of outputs with rows, the model's own among them, that none before them
            was; None where the model did not run.
        seconds: of a forward pass for each of 3 samples; None where it did not run on 3.
    """

    class_name: str
    nodes: tuple[LayerNode, ...]
    ran: bool = False
    error: str | None = None
    distinct: int | None = None
    seconds: float | None = field(default=None, compare=False)
    _by_name: dict[str, LayerNode] = field(init=False, repr=False, compare=False)
    _parents: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = {node.name: node for node in self.nodes}
        object.__setattr__(self, "_by_name", names)
        object.__setattr__(self, "_parents", frozenset(_parent(n) for n in names))

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[LayerNode]:
        return iter(self.nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> LayerNode:
        return self._by_name[name]

    def _usable(self, node: LayerNode) -> bool:
        return self._status(node) in ("ran", "alias")

    def leaves(self) -> list[str]:
        """Names of the modules without children whose outputs have rows."""
        return [n.name for n in self.nodes if n.name not in self._parents and self._usable(n)]

    def blocks(self) -> list[str]:
        """Names of the containers whose own outputs have rows, from the outside in."""
        return [n.name for n in self.nodes if n.name in self._parents and self._usable(n)]

    @cached_property
    def output_order(self) -> dict[str, tuple[int, int]]:
        """Name -> rank in the order of outputs: a container gives its own after its children.

        So the rows of a run of some layers stand as those of a run of everything do.
        """
        ranks: dict[str, tuple[int, int]] = {}
        for at, node in enumerate(self.nodes):
            parts = node.name.split(".")
            for depth in range(1, len(parts) + 1):
                ranks[".".join(parts[:depth])] = (at, -depth)
        return ranks

    def features(self, names: Iterable[str]) -> int:
        """Numbers a sample in the outputs of all calls of some modules."""
        nodes = [self[name] for name in names]
        return sum(node.calls * math.prod(node.output_shape or (0,)) for node in nodes)

    def by_class(self) -> dict[str, list[str]]:
        """Names of the modules whose outputs have rows, by class, the most frequent class first."""
        groups: dict[str, list[str]] = {}
        for node in self.nodes:
            if self._usable(node):
                groups.setdefault(node.class_name, []).append(node.name)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))

    def to_nodes(self) -> list[dict[str, Any]]:
        """One plain mapping a module, for the picker."""
        index = {node.name: i for i, node in enumerate(self.nodes)}
        return [
            {
                "name": node.name,
                "label": node.label,
                "cls": node.class_name,
                "shape": node.shape_text,
                "params": node.n_params,
                "calls": node.calls,
                "depth": node.depth,
                "parent": index.get(_parent(node.name), -1),
                "status": self._status(node),
                "alias": node.alias_of or "",
                "why": node.why_not or "",
            }
            for node in self.nodes
        ]

    def _status(self, node: LayerNode) -> str:
        if self.ran and not node.calls:
            return "never ran"
        if node.why_not:
            return "no rows"
        return "alias" if node.alias_of else "ran"

    def __repr__(self) -> str:
        lines = [self.class_name]
        for node in self.nodes:
            facts = [node.class_name, node.shape_text]
            facts.append(f"{node.n_params:,} parameters" if node.n_params else "")
            facts.append(f"{node.calls} calls" if node.calls > 1 else "")
            facts.append("" if self._usable(node) else node.why_not or "never ran")
            facts.append(f"= {node.alias_of}" if node.alias_of else "")
            lines.append(f"{'  ' * (node.depth + 1)}{node.label}: {', '.join(filter(None, facts))}")
        return "\n".join([*lines, self.error] if self.error else lines)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
