"""Results of several runs in one: over more data, or of more layers over the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cka_widget.engine.result import CKAResult
from cka_widget.engine.rows import ModelRows
from cka_widget.engine.sums import ARRAYS, SQUARE, HsicSums, empty


def merge(first: CKAResult, second: CKAResult) -> CKAResult:
    """The same layers over more data; a new result, both inputs untouched.

    Raises:
        ValueError: the layers, particles, kernels or estimators differ, or both hold the same run.
    """
    mine = [(m.name, m.layers, m.n_particles) for m in first.rows]
    if mine != [(m.name, m.layers, m.n_particles) for m in second.rows]:
        raise ValueError("merge needs the same models, particles and layers in both results")
    first.require_same_options(second, "merge")
    runs = [r.provenance.get("run_ids") or [] for r in (first, second)]
    if set(runs[0]) & set(runs[1]):
        raise ValueError(
            "merge needs results over different samples: a run that is in both would count twice, "
            "with error bars too small"
        )
    warnings = first.warnings + second.warnings
    if not all(runs):
        warnings += (
            "A merged result was saved by an older version, without the id of its run: make sure "
            "that no samples are in two of the merged results, or its error bars are too small.",
        )
    if first.provenance.get("sigma") != second.provenance.get("sigma"):
        warnings += (
            "The merged results set their RBF bandwidths by different first batches: the scores "
            "average slightly different kernels.",
        )
    seconds = [r.provenance.get("seconds", 0.0) for r in (first, second)]
    seeds = [seed for r in (first, second) for seed in r.provenance.get("seeds") or ()]
    sums = first.sums.merge(second.sums)
    reasons = zip(first.row_reasons, second.row_reasons, sums.d > 0, strict=True)
    return replace(
        first,
        sums=sums,
        pooled=first.pooled.merge(second.pooled) if first.pooled and second.pooled else None,
        row_reasons=tuple(None if defined else a or b for a, b, defined in reasons),
        samples=first.samples + second.samples,
        batches=first.batches + second.batches,
        warnings=tuple(dict.fromkeys(warnings)),
        provenance={
            **first.provenance,
            "seconds": sum(seconds),
            "seeds": list(dict.fromkeys(seeds)) or None,
            "run_ids": [*runs[0], *runs[1]],
        },
    )


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
    runs = [r.provenance.get("run_ids") or [] for r in results]
    models = _union(results)
    rows, groups = _numbers(models)
    reasons: list[str | None] = [None] * len(rows)
    sigma: list[float | None] = [None] * len(rows)
    for result in reversed(results):  # the first has the last word
        at = [rows[key] for key in _numbers(result.rows)[0]]
        own = result.provenance.get("sigma") or [None] * len(at)
        for row, reason, width in zip(at, result.row_reasons, own, strict=True):
            reasons[row], sigma[row] = reason, width
    sums = _side_by_side(
        len(rows), [(r.sums, [rows[k] for k in _numbers(r.rows)[0]]) for r in results]
    )
    pooled = None
    if any(m.n_particles > 1 for m in models):
        # A part without ensembles pools rows that are their own means.
        parts = [(r.pooled or r.sums, [groups[k] for k in _numbers(r.rows)[1]]) for r in results]
        pooled = _side_by_side(len(groups), parts)
    return CKAResult(
        rows=models,
        sums=sums,
        pooled=pooled,
        row_reasons=tuple(reasons),
        samples=first.samples,
        batches=first.batches,
        warnings=tuple(dict.fromkeys(w for r in results for w in r.warnings)),
        provenance={
            **first.provenance,
            "sigma": sigma if first.provenance.get("sigma") else None,
            "seconds": sum(r.provenance.get("seconds", 0.0) for r in results),
            "run_ids": list(dict.fromkeys(one for run in runs for one in run)),
        },
    )


def _side_by_side(size: int, parts: list[tuple[HsicSums, list[int]]]) -> HsicSums:
    full = {name: empty(name, size) for name in ARRAYS}
    unit = np.zeros(size)
    for sums, at in reversed(parts):
        unit[at] = sums.unit
    for sums, at in reversed(parts):
        sums = sums.in_unit(unit[at])
        for name, array in full.items():
            array[np.ix_(at, at) if name in SQUARE else (..., at)] = getattr(sums, name)
    return HsicSums(parts[0][0].weight, parts[0][0].blocks, **full, unit=unit)


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
