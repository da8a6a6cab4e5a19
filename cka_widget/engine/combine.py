"""Results of several runs over the same data, side by side in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cka_widget.engine.result import CKAResult, ModelRows
from cka_widget.engine.sums import HsicSums


def concat(results: Sequence[CKAResult]) -> CKAResult:
    """More layers over the same data; pairs of layers never computed together are NaN.

    Args:
        results: of runs over the same batches, with the same options. A layer that stands in
            several is taken from the first.

    Raises:
        ValueError: no results; or they differ in samples, batches, blocks, options or in the
            particles of a model, so that they cannot stand side by side.
    """
    if not results:
        raise ValueError("concat needs at least one result")
    first = results[0]
    for other in results[1:]:
        for what in ("samples", "batches", "blocks"):
            if getattr(first, what) != getattr(other, what):
                raise ValueError(
                    f"concat needs results over the same data: {getattr(first, what)} and "
                    f"{getattr(other, what)} {what}"
                )
        first.require_same_options(other, "concat")
    models = _union(results)
    rows, groups = _numbers(models)
    total, n_groups = len(rows), len(set(groups.values()))
    square = {name: np.full((total, total), np.nan) for name in ("h", "hh", "hd", "dd")}
    influence = np.full((n_groups, n_groups), np.nan)
    reasons: list[str | None] = [None] * total
    for result in reversed(results):  # the first has the last word
        own_rows, own_groups = _numbers(result.rows)
        at = np.array([rows[key] for key in own_rows])
        for name, full in square.items():
            full[np.ix_(at, at)] = getattr(result.sums, name)
        for key, reason in zip(own_rows, result.row_reasons, strict=True):
            reasons[rows[key]] = reason
        if result.sums.influence is not None:
            to = np.array([groups[key] for key in own_groups])
            influence[np.ix_(to, to)] = result.sums.influence
    sums = HsicSums(
        first.sums.weight,
        first.blocks,
        **square,
        groups=np.array([groups[model, layer] for model, _, layer in rows], dtype=np.int64),
        influence=influence if any(m.n_particles > 1 for m in models) else None,
    )
    return CKAResult(
        rows=models,
        sums=sums,
        row_reasons=tuple(reasons),
        samples=first.samples,
        batches=first.batches,
        warnings=tuple(dict.fromkeys(w for r in results for w in r.warnings)),
        provenance={
            **first.provenance,
            "seconds": sum(r.provenance.get("seconds", 0.0) for r in results),
        },
    )


def _union(results: Sequence[CKAResult]) -> tuple[ModelRows, ...]:
    merged: dict[str, ModelRows] = {}
    for m in (m for result in results for m in result.rows):
        known = merged.get(m.name)
        if known is None:
            merged[m.name] = m
            continue
        if known.n_particles != m.n_particles:
            raise ValueError(
                f'concat: model "{m.name}" has {known.n_particles} particles in one result and '
                f"{m.n_particles} in another"
            )
        layers = tuple(dict.fromkeys(known.layers + m.layers))
        aliases = {k: v for k, v in {**m.aliases, **known.aliases}.items() if k not in layers}
        skipped = {k: v for k, v in {**m.skipped, **known.skipped}.items() if k not in layers}
        merged[m.name] = ModelRows(m.name, layers, m.n_particles, aliases, skipped)
    return tuple(merged.values())


def _numbers(
    models: Sequence[ModelRows],
) -> tuple[dict[tuple[str, int, str], int], dict[tuple[str, str], int]]:
    """Row of every (model, particle, layer), group of every (model, layer), in order."""
    keys = [(m.name, p, layer) for m in models for p in range(m.n_particles) for layer in m.layers]
    groups = [(m.name, layer) for m in models for layer in m.layers]
    return {key: i for i, key in enumerate(keys)}, {key: i for i, key in enumerate(groups)}
