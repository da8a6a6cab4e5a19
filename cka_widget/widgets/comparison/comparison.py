"""What is compared: models, their trees, the ticked layers, the data; no widgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets as t

from cka_widget.engine.calls.calls import Forwards
from cka_widget.engine.data.loaders import by_model
from cka_widget.engine.devices import pick_device
from cka_widget.engine.models.layers import OUTPUT, choose, layers_of, split_call
from cka_widget.engine.models.particles import as_passes
from cka_widget.engine.options import check
from cka_widget.names import did_you_mean
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.widgets.comparison.axes import default_choice
from cka_widget.widgets.comparison.cost import Plan
from cka_widget.widgets.comparison.first_look import look_at, look_at_costs, peek
from cka_widget.widgets.look.format import plural
from cka_widget.widgets.run.fingerprint import fingerprint
from cka_widget.widgets.run.run_history import RunHistory


class Comparison:
    """The fixed part of an explorer.

    Attributes:
        measures: names of the measures that are computed, with their titles.

    Args:
        models: name -> module or particles.
        loader: batches, or name -> loader. One batch of it is looked at.
        layers: the layers to begin with, as `compare` takes them.
        forward: how a batch becomes a call, for all models or by name.
        options: the other options of `compare`.

    Raises:
        TypeError, ValueError: what `compare` would refuse before anything runs.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        loader: Any,
        layers: Any,
        forward: Forwards,
        options: Mapping[str, Any],
    ) -> None:
        self._options = options
        passes = as_passes(models, options.get("particle_axis"))
        measures = check(models, {"layers": layers, "forward": forward, **options})
        self.measures = {one.name: one.title or one.name for one in measures}
        by_model(loader, list(passes))
        self._passes = [run for runs in passes.values() for run in runs]
        self.models = {str(name): model for name, model in models.items()}
        self.names = list(passes)
        self.particles = {name: len(runs) for name, runs in passes.items()}
        roots = {name: runs[0].root for name, runs in passes.items()}
        chosen = {
            name: choose([run.root for run in runs], layers_of(layers, name), name)[0]
            for name, runs in passes.items()
        }
        first, self.loader = peek(loader)
        self.trees = look_at(roots, first, forward, options.get("samples"))
        self.defaults = {name: default_choice(tree) for name, tree in self.trees.items()}
        self.aliases = {
            name: {node.name: node.alias_of for node in tree if node.alias_of}
            for name, tree in self.trees.items()
        }
        self.start = {
            name: list(self.defaults[name])
            if layers_of(layers, name) is None
            else [node.name for node in self.trees[name] if node.name in chosen[name].modules]
            for name in self.names
        }
        self._costs = look_at_costs(
            self.loader, self.particles, roots, self.trees, first, forward, options
        )

    def plan(self, layers: Mapping[str, Sequence[str]], known: RunHistory) -> Plan:
        """What a run of these layers would cost; an earlier one of the same layers tells best."""
        asked = self.request(layers)
        run = next((run for run in known.runs if run.asked == asked), None)
        rows = {name: self._rows(name, ticked) for name, ticked in layers.items()}
        features = sum(
            self.particles[name] * self.trees[name].features(ticked)
            for name, ticked in layers.items()
        )
        titles = list(self.measures.values())
        if run is None:
            return Plan(rows, self.particles, features, self._costs, measures=titles)
        rows |= {name: run.rows(name) for name in asked}
        return Plan(rows, self.particles, features, self._costs, run.rate, titles)

    def _rows(self, name: str, ticked: Sequence[str]) -> int:
        tree = self.trees[name]
        if list(ticked) == self.defaults[name] and tree.distinct is not None:
            return tree.distinct
        return sum(max(tree[layer].calls, 1) for layer in ticked)

    def request(self, layers: Mapping[str, Sequence[str]]) -> dict[str, list[str] | None]:
        """The engine's `layers=`: None where its own default is meant; unticked models left out."""
        return {
            name: None
            if list(layers[name]) == self.defaults[name]
            else sorted(layers[name], key=self.trees[name].output_order.__getitem__)
            for name in self.names
            if layers[name]
        }

    def weights(self) -> Any:
        """What the models' weights are now; equal to an earlier value where they are the same."""
        return fingerprint(self._passes)

    def adds(self, layers: Mapping[str, Sequence[str]], known: RunHistory) -> bool:
        """Whether a run of these layers has any that no earlier run has together."""
        return bool(known) and not any(
            run.asked == self.request(layers)
            or all(
                run.labels(model, name, self.aliases[model].get(name)) or run.skipped(model, name)
                for model, names in layers.items()
                for name in names
            )
            for run in known.runs
        )

    def setting(self, device: str = "") -> str:
        """Device and estimator in a few words; the device that a run would choose, by default."""
        options = self._options
        block = options.get("hsic_batch_size")
        titles = list(self.measures.values())
        estimator = (
            f"{'unbiased' if options.get('unbiased', True) else 'biased'}, "
            f"{options.get('kernel', 'linear')}"
        )
        if options.get("measures") is not None:
            estimator = "; ".join(titles) if len(titles) < 3 else plural(len(titles), "measure")
        words = (
            device or str(pick_device(options.get("device"))),
            estimator,
            f"HSIC batch {block}" if block else "",
        )
        return " · ".join(filter(None, words))

    def on_screen(self, pair: Sequence[str]) -> list[str]:
        """Models whose pickers are shown: both of two, or those of the pair."""
        return self.names if len(self.names) < 3 else list(dict.fromkeys(pair))

    def pair(self, value: tuple[str, str]) -> tuple[str, str]:
        """Check a pair of models; raises TraitError naming the models there are."""
        for name in value:
            if name not in self.names:
                raise t.TraitError(f'no model "{name}"; there are {", ".join(self.names)}')
        return value

    def statistic(self, value: str) -> str:
        """Check a statistic; raises TraitError for a spread of single models."""
        if value == "spread" and max(self.particles.values()) == 1:
            raise t.TraitError(
                'statistic="spread" is that of ensembles: each of these models is a single one'
            )
        return value

    def measure(self, value: str) -> str:
        """Check the name of a measure, "" being the first; raises TraitError with the nearest."""
        if value and value not in self.measures:
            near = did_you_mean(value, self.measures) or f"; there are {', '.join(self.measures)}"
            raise t.TraitError(f'no measure "{value}" is computed here{near}')
        return value or next(iter(self.measures))

    def cell(self, value: Any, known: RunHistory) -> Cell | None:
        """Check a cell given by names.

        Raises:
            TraitError: no such model or layer; names the nearest.
        """
        if value is None:
            return None
        try:
            (row_model, row), (col_model, col) = value
        except (TypeError, ValueError):
            raise t.TraitError(
                f"a selection is Cell(row=LayerKey(model, layer), col=LayerKey(model, layer)) "
                f"or None, not {value!r}"
            ) from None
        cell = Cell(LayerKey(row_model, row), LayerKey(col_model, col))
        for key in cell:
            if key.model not in self.names:
                raise t.TraitError(f'no model "{key.model}"{did_you_mean(key.model, self.names)}')
            names = [OUTPUT, *(node.name for node in self.trees[key.model])]
            names += known.layers(key.model)
            if key.layer not in names and split_call(key.layer)[0] not in names:
                near = did_you_mean(key.layer, names)
                raise t.TraitError(f'model "{key.model}" has no layer "{key.layer}"{near}')
        return Cell(*(self._row_of(key, known) for key in cell))

    def _row_of(self, key: LayerKey, known: RunHistory) -> LayerKey:
        """The layer itself, or the one that stands for it where both have the same output."""
        if not known or key.layer in known.layers(key.model):
            return key
        return LayerKey(key.model, self.aliases[key.model].get(key.layer, key.layer))

    def choice(
        self, value: Mapping[str, Sequence[str]], present: Mapping[str, Sequence[str]]
    ) -> dict[str, list[str]]:
        """Check ticked layers, put them in the tree's order, and fill in models left out.

        Raises:
            TraitError: no such model or layer; names the nearest.
        """
        found = {name: list(present.get(name, self.start[name])) for name in self.names}
        for model, layers in value.items():
            if model not in found:
                raise t.TraitError(f'no model "{model}"{did_you_mean(model, self.names)}')
            wanted, known = set(layers), [node.name for node in self.trees[model]]
            for name in sorted(wanted - set(known)):
                raise t.TraitError(
                    f'model "{model}" has no layer "{name}"{did_you_mean(name, known)}'
                )
            found[model] = [name for name in known if name in wanted]
        return found
