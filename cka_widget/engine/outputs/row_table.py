"""Which row of the Gram stack is which layer of which particle, once the first batch has run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cka_widget.engine.models.layers import split_call
from cka_widget.engine.models.particles import Pass
from cka_widget.engine.outputs.capture import Capture, Entry
from cka_widget.engine.outputs.layer_warnings import IN_SOME, UNPROVED
from cka_widget.result.row_index import ModelRows

NEVER_RAN = "never ran"
RAN_LATE = "did not run in the first batch"
SOMETIMES = "did not run in every batch"


class RowTable:
    """Built from what the captures found.

    Attributes:
        groups: for every row of the stack, the number of its (model, layer).
        order: for every row of the result, its row in the stack, -1 where it has none.
        n_groups: number of (model, layer).
        owners, order_owners: of every row of the stack and of the result the number of its
            (model, particle), -1 in single models.
    """

    def __init__(self, captures: Sequence[tuple[Pass, Capture]]) -> None:
        self._captures = captures
        self._missing: set[int] = set()
        self._in_some: dict[str, list[str]] = {}  # layers that not all particles have, by model
        self._entries: list[Entry | None] = []  # of every row of the result
        self._sources: list[tuple[Capture, str]] = []  # and where it was sought
        self.order: list[int] = []
        self._order_groups: list[int] = []
        self.order_owners: list[int] = []
        by_model: dict[str, list[Capture]] = defaultdict(list)
        for run, capture in captures:
            by_model[run.model].append(capture)
        found, first_group = [], 0
        for model, passes in by_model.items():
            rows = self._add_model(model, passes, first_group)
            first_group += len(rows.layers)
            found.append(rows)
        self._models = tuple(found)
        self.n_groups = first_group
        self.groups = [0] * (1 + max(self.order, default=-1))
        self.owners = [-1] * len(self.groups)
        numbers = zip(self.order, self._order_groups, self.order_owners, strict=True)
        for row, group, owner in numbers:
            if row >= 0:
                self.groups[row], self.owners[row] = group, owner

    @property
    def models(self) -> tuple[ModelRows, ...]:
        """Layers and particles of every model, with what is known by now of those without a row."""
        late: dict[str, set[str]] = defaultdict(set)
        for run, capture in self._captures:
            late[run.model] |= {name for name, _ in capture.notes.late}
        return tuple(
            replace(rows, skipped=_corrected(rows.skipped, late[rows.name]))
            for rows in self._models
        )

    def _add_model(self, model: str, passes: list[Capture], first_group: int) -> ModelRows:
        often = Counter[str]()
        for capture in passes:
            often |= capture.calls
        tables = [_labelled(capture, often) for capture in passes]
        listed = bool(passes[0].choice.ordered)
        labels = _merged(
            [[k for k, e in table.items() if listed or (e and e.rows)] for table in tables]
        )
        # Random choices of a pass, or data, may leave a layer out of some particles.
        self._in_some[model] = [
            label for label in labels if len({table.get(label) is None for table in tables}) > 1
        ]
        per_pass = max((len(e.rows) for e in tables[0].values() if e), default=1) or 1
        first_owner = 1 + max(self.order_owners, default=-1)
        for number, table in enumerate(tables):
            for particle in range(per_pass):
                owner = first_owner + number * per_pass + particle
                for position, label in enumerate(labels):
                    entry = table.get(label)
                    rows = entry.rows if entry else []
                    self.order.append(rows[particle] if particle < len(rows) else -1)
                    self._order_groups.append(first_group + position)
                    self.order_owners.append(owner if len(tables) * per_pass > 1 else -1)
                    self._entries.append(entry)
                    self._sources.append((passes[number], label))
        shown = {label: tables[0].get(label) for label in labels}
        aliases, skipped = _other_names(passes[0], shown, often)
        return ModelRows(model, tuple(labels), len(passes) * per_pass, aliases, skipped)

    def note_missing(self, rows: list[int]) -> None:
        """These rows of the stack got nothing from a batch."""
        self._missing.update(rows)

    def reasons(self) -> tuple[str | None, ...]:
        """For every row of the result why it has no values, as far as the run knows."""
        found: list[str | None] = []
        for entry, source, row in zip(self._entries, self._sources, self.order, strict=True):
            if entry is None:
                found.append(RAN_LATE if _key(*source) in source[0].notes.late else NEVER_RAN)
            elif entry.reason:
                found.append(entry.reason)
            elif row < 0:
                found.append("its output has no particle axis of this length")
            else:
                found.append(SOMETIMES if row in self._missing else None)
        return tuple(found)

    def warnings(self) -> list[str]:
        """What the captures noted of layers, once for all particles of a model."""
        layers: dict[tuple[str, str], dict[str, None]] = {}
        for run, capture in self._captures:
            for name, what in capture.notes.found:
                layers.setdefault((run.model, what), {})[name] = None
            for name in capture.unproved():
                layers.setdefault((run.model, UNPROVED), {})[name] = None
        layers |= {
            (m, IN_SOME): dict.fromkeys(names) for m, names in self._in_some.items() if names
        }
        return [
            f'Model "{model}", layer {_listed(list(names))} {what}'
            for (model, what), names in layers.items()
        ]


def _listed(names: list[str]) -> str:
    """The first of some layers, and which it stands for."""
    first, *others = (f'"{name}"' for name in names)
    if len(others) > 3:
        others = [*others[:2], f"{len(others) - 2} more"]
    return f"{first} (and {', '.join(others)})" if others else first


def _corrected(skipped: Mapping[str, str], late: set[str]) -> dict[str, str]:
    return {
        name: RAN_LATE if why == NEVER_RAN and name in late else why
        for name, why in skipped.items()
    }


def _key(capture: Capture, label: str) -> tuple[str, int]:
    """Name and call that a label of a list asks for."""
    name, call = (label, None) if label in capture.choice.modules else split_call(label)
    return name, call or 1


def _merged(orders: Sequence[list[str]]) -> list[str]:
    """All labels, each behind those that it follows in the first order that has it."""
    merged = list(orders[0])
    for order in orders[1:]:
        if order == merged:
            continue
        at = 0
        for label in order:
            if label not in merged:
                merged.insert(at, label)
            at = merged.index(label) + 1
    return merged


def _labelled(capture: Capture, often: Mapping[str, int]) -> dict[str, Entry | None]:
    """Label -> entry, in the order of the rows; None where a listed layer never ran.

    `often`: the most calls of each layer in any particle.
    """
    entries = {_label(often, *entry.shown()): entry for entry in capture.entries.values()}
    ordered = capture.choice.ordered
    if not ordered:
        return dict(entries)
    found: dict[str, Entry | None] = {}
    for label in ordered:
        name, call = (label, None) if label in capture.choice.modules else split_call(label)
        calls = range(1, often.get(name, 0) + 1) if call is None else [call]
        for k in calls:
            if (entry := capture.entries.get((name, k))) is not None:
                found[_label(often, name, k)] = entry
            else:
                found[label if call else _label(often, name, k)] = None
        if not calls:
            found[label] = None
    return found


def _other_names(
    capture: Capture, table: dict[str, Entry | None], often: Mapping[str, int]
) -> tuple[dict[str, str], dict[str, str]]:
    aliases: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for label, entry in table.items():
        if entry is not None:
            for key in ((entry.name, entry.call), *entry.aliases):
                aliases.setdefault(_label(often, *key), label)
    aliases = {name: label for name, label in aliases.items() if name not in table}
    for other, name in capture.choice.asked.items():
        for label in table:
            if label == name or split_call(label)[0] == name:
                aliases[other + label.removeprefix(name)] = label
    for entry in capture.entries.values():
        label = _label(often, *entry.shown())
        if label not in table and label not in aliases:
            skipped[label] = entry.reason or ""
    for name in capture.choice.modules:
        if not often.get(name) and name not in table:
            skipped[name] = NEVER_RAN
    return aliases, skipped


def _label(often: Mapping[str, int], name: str, call: int) -> str:
    return name if often.get(name) == 1 else f"{name}#{call}"
