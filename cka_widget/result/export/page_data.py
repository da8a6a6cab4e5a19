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
    """What the page shows first; the names and values are those of `CKAExplorer`."""

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
) -> dict[str, Any]:
    """The page's data block; see `page.to_html` for the arguments.

    Raises:
        ValueError: no layer is left.
    """
    provenance, kept = result.provenance, _kept(result, layers)
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
        "start": _start(labels, view),
        "matrices": _matrices(result, kept),
        **_particles(result, kept, max_particle_bytes),
        "samples": result.samples,
        "batches": result.batches,
        "seconds": float(provenance.get("seconds") or 0),
        "setting": _setting(provenance),
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


def _matrices(result: CKAResult, kept: Kept) -> dict[str, str]:
    """Upper halves (with the diagonal) of symmetric matrices over the layers of all models."""
    kinds = {"mean": result.matrix, "stderr": result.stderr, "spread": result.spread}
    if max(map(result.n_particles, kept)) == 1:
        del kinds["spread"]
    if result.provenance.get("unbiased", True) and result.blocks:
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


def _particles(result: CKAResult, kept: Kept, limit: int) -> dict[str, Any]:
    """Scores and errors between the rows of all particles, or why they are not there."""
    if max(map(result.n_particles, kept)) == 1:
        return {"particles": None, "particles_note": ""}
    rows = _rows(result, kept)
    size = 2 * (len(rows) * (len(rows) + 1) // 2 * 4) * 4 // 3
    if size > limit:
        note = (
            f"The scores of single pairs of particles ({size / 1e6:.1f} MB) were left out of this "
            "page to keep it small; to_html(max_particle_bytes=...) puts them in."
        )
        return {"particles": None, "particles_note": note}
    places = np.ix_(rows, rows)
    wired = {"scores": _wire(result.values[places]), "stderr": _wire(result.errors[places])}
    return {"particles": wired, "particles_note": ""}


def _setting(provenance: Mapping[str, Any]) -> str:
    estimator = "unbiased" if provenance.get("unbiased", True) else "biased"
    parts = [provenance.get("device"), f"{estimator}, {provenance.get('kernel', 'linear')}"]
    batch = provenance.get("hsic_batch_size")
    parts.append(f"HSIC batch {batch}" if batch else None)
    return " · ".join(str(part) for part in parts if part)


def _footnote(result: CKAResult) -> list[str]:
    from cka_widget import __version__

    known, parts = result.provenance, []
    bandwidth = known.get("bandwidth")
    if bandwidth is not None:
        parts.append(f"RBF bandwidth {bandwidth:g} × median distance")
    if known.get("reduce"):
        parts.append(f"features: {known['reduce']}")
    parts.append(f"{result.blocks:,} HSIC blocks")
    parts += [f"{name} {known[name]}" for name in ("torch", "python") if known.get(name)]
    return [*parts, f"cka_widget {__version__}"]
