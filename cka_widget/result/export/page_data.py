"""What the page of a result holds: its numbers and words, as plain data."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cka_widget.result.chance import caveat
from cka_widget.result.keys import Cell

if TYPE_CHECKING:
    import pandas as pd

    from cka_widget.result.result import CKAResult


class View(NamedTuple):
    """What the page shows first, beside its measure; as the traits of `CKAExplorer`."""

    pair: tuple[str, str]
    metric: str = "mean"
    selection: Cell | None = None


Kept = Mapping[str, Sequence[int]]
"""Model -> places of its layers that the page has."""


def page_data(
    result: CKAResult,
    title: str,
    info: Mapping[str, Mapping[str, str]],
    layers: Mapping[str, Sequence[str]],
    view: View | None,
    max_particle_bytes: int,
    measure: str | None = None,
) -> dict[str, Any]:
    """The page's data block; see `page.to_html` for the arguments.

    Raises:
        KeyError: no such measure.
        ValueError: no layer is left.
    """
    provenance, kept = result.provenance, _kept(result, layers)
    first = result.of(measure).measure.name
    particles, note = _particles(result.of(first), kept, max_particle_bytes)
    labels = {name: [result.layers(name)[at] for at in places] for name, places in kept.items()}
    return {
        "title": title,
        "models": [
            {
                "name": name,
                "particles": result.n_particles(name),
                "layers": labels[name],
                "info": [info.get(name, {}).get(layer, "") for layer in labels[name]],
                "reasons": [result.reasons(name)[at] or "" for at in places],
            }
            for name, places in kept.items()
        ],
        "start": {**_start(labels, view), "measure": result.measures.index(first)},
        "measures": [
            _measure(result.of(name), kept, particles.get(name)) for name in result.measures
        ],
        "particles_note": note,
        "samples": result.samples,
        "batches": result.batches,
        "seconds": float(provenance.get("seconds") or 0),
        "footnote": _footnote(result),
        "chance_note": caveat(result),
        "warnings": list(result.warnings),
    }


def _kept(result: CKAResult, layers: Mapping[str, Sequence[str]]) -> Kept:
    wanted = {name: set(layers.get(name, result.layers(name))) for name in result.models}
    kept = {
        name: [at for at, label in enumerate(result.layers(name)) if label in wanted[name]]
        for name in result.models
    }
    if not any(kept.values()):
        raise ValueError("no layer is left for the page")
    return {name: places for name, places in kept.items() if places}


def _start(labels: Mapping[str, Sequence[str]], view: View | None) -> dict[str, Any]:
    """Models, metric and cell that are shown first; the models and layers by their places."""
    models = list(labels)
    if view is None or not set(view.pair) <= set(models):
        view = View((models[0], models[-1]))
    cell = view.selection or ()
    there = [key.layer in labels.get(key.model, ()) for key in cell]
    shown = tuple(key.model for key in cell) == view.pair and all(there)
    return {
        "row": models.index(view.pair[0]),
        "col": models.index(view.pair[1]),
        "metric": view.metric,
        "selected": [labels[key.model].index(key.layer) for key in cell] if shown else [],
    }


def _measure(result: CKAResult, kept: Kept, particles: dict[str, str] | None) -> dict[str, Any]:
    """The first measure of a result: its facts, matrices and scores of particles."""
    facts = result.measure
    return {
        "title": facts.title,
        "chance": facts.chance or 0.0,
        "setting": _setting(result),
        "matrices": _matrices(result, kept),
        "particles": particles,
    }


def _matrices(result: CKAResult, kept: Kept) -> dict[str, str]:
    """Upper halves (with the diagonal) of symmetric matrices over the layers of all models."""
    kinds = {"mean": result.matrix, "stderr": result.stderr, "spread": result.spread}
    if max(map(result.n_particles, kept)) == 1:
        del kinds["spread"]
    if result.measure.permuted and result.blocks:
        kinds |= {"null": result.null, "above": result.above_chance}
    return {name: _wire(_joined(kept, kind)) for name, kind in kinds.items()}


def _joined(kept: Kept, kind: Any) -> np.ndarray:
    ends = np.cumsum([0, *map(len, kept.values())])
    place = {name: slice(*ends[i : i + 2]) for i, name in enumerate(kept)}
    full = np.full((ends[-1], ends[-1]), np.nan)
    for row, col in combinations_with_replacement(kept, 2):
        frame: pd.DataFrame = kind(row, col)
        full[place[row], place[col]] = frame.to_numpy(float)[np.ix_(kept[row], kept[col])]
    return full


def _wire(full: np.ndarray) -> str:
    """The upper half, row by row, as base64 of little-endian float32."""
    half = full[np.triu_indices(len(full))].astype("<f4")
    return base64.b64encode(half.tobytes()).decode("ascii")


def _rows(result: CKAResult, kept: Kept) -> list[int]:
    """Rows of all particles' layers that are kept: model by model, particle by particle."""
    rows, first = [], 0
    for name in result.models:
        for _ in range(result.n_particles(name)):
            rows += [first + at for at in kept.get(name, ())]
            first += len(result.layers(name))
    return rows


def _particles(result: CKAResult, kept: Kept, limit: int) -> tuple[dict[str, dict[str, str]], str]:
    """By measure the scores and errors between the rows of all particles, and what is left out.

    Of several measures the first ones stay, as many as there is room for.
    """
    if max(map(result.n_particles, kept)) == 1:
        return {}, ""
    rows = _rows(result, kept)
    places = np.ix_(rows, rows)
    size = 2 * (len(rows) * (len(rows) + 1) // 2 * 4) * 4 // 3
    room = limit // size
    wired = {
        name: {"scores": _wire(shown.values[places]), "stderr": _wire(shown.errors[places])}
        for name, shown in ((name, result.of(name)) for name in result.measures[:room])
    }
    left = [result.of(name).measure.title for name in result.measures[room:]]
    if not left:
        return wired, ""
    under = f" under {'; '.join(left)}" if wired else ""
    return wired, (
        f"The scores of single pairs of particles{under} ({size * len(left) / 1e6:.1f} MB) were "
        "left out of this page to keep it small; to_html(max_particle_bytes=...) puts them in."
    )


def _setting(result: CKAResult) -> str:
    parts = [result.provenance.get("device"), _options(result.measure.options)]
    batch = result.provenance.get("hsic_batch_size")
    parts.append(f"HSIC batch {batch}" if batch else None)
    return " · ".join(str(part) for part in parts if part)


def _options(options: Mapping[str, Any]) -> str:
    """What a measure was made with, in words: switches, then names and numbers."""
    switches, values = [], []
    for name, value in options.items():
        if name == "unbiased":
            switches.append("unbiased" if value else "biased")
        elif isinstance(value, str):
            values.append(value)
        elif isinstance(value, bool) or value is None:
            switches += [name] if value else []
        else:
            values.append(f"{name} {value:g}")
    return ", ".join([*switches, *values])


def _footnote(result: CKAResult) -> list[str]:
    from cka_widget import __version__

    known, parts = result.provenance, []
    if known.get("reduce"):
        parts.append(f"features: {known['reduce']}")
    parts.append(f"{result.blocks:,} HSIC blocks")
    parts += [f"{name} {known[name]}" for name in ("torch", "python") if known.get(name)]
    return [*parts, f"cka_widget {__version__}"]
