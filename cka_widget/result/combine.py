"""Results of several runs in one: over more data, or of more layers over the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from cka_widget.result.measure_facts import Measured, MeasureFacts
from cka_widget.result.row_index import ModelRows
from cka_widget.result.scores import Scores
from cka_widget.result.sums import ARRAYS, SQUARE, HsicSums, empty

S = TypeVar("S", bound=Scores)

# Options that must agree, and what older files and torch_cka's mean where they do not say it.
_SAME = ("kernel", "unbiased", "bandwidth", "reduce", "batch_weights", "groups")
_USUAL = {"batch_weights": "samples", "groups": False}


def merge(first: S, second: S) -> S:
    """The same layers over more data; a new result, both inputs untouched.

    Raises:
        ValueError: the layers, particles, measures or options differ, or both hold the same run.
    """
    mine = [(m.name, m.layers, m.n_particles) for m in first.rows]
    if mine != [(m.name, m.layers, m.n_particles) for m in second.rows]:
        raise ValueError("merge needs the same models, particles and layers in both results")
    _require_same_options(first, second, "merge")
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
    if [one.facts.row_options for one in _all(first)] != [
        one.facts.row_options for one in _all(second)
    ]:
        warnings += (
            "The merged results set their RBF bandwidths by different first batches: the scores "
            "average slightly different kernels.",
        )
    seconds = [r.provenance.get("seconds", 0.0) for r in (first, second)]
    seeds = [seed for r in (first, second) for seed in r.provenance.get("seeds") or ()]
    measured = [_merged(*pair) for pair in zip(_all(first), _all(second), strict=True)]
    sums = measured[0].sums
    reasons = zip(first.row_reasons, second.row_reasons, sums.d > 0, strict=True)
    return replace(
        first,
        **_fields(measured),
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


def concat(results: Sequence[S]) -> S:
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
        _require_same_options(first, other, "concat")
    runs = [r.provenance.get("run_ids") or [] for r in results]
    models = _union(results)
    rows, groups = _numbers(models)
    reasons: list[str | None] = [None] * len(rows)
    places = [[rows[key] for key in _numbers(r.rows)[0]] for r in results]
    layers = [[groups[key] for key in _numbers(r.rows)[1]] for r in results]
    for result, at in reversed([*zip(results, places, strict=True)]):  # the first one's stay
        for row, reason in zip(at, result.row_reasons, strict=True):
            reasons[row] = reason
    ensembles = any(m.n_particles > 1 for m in models)
    measured = []
    for parts in zip(*map(_all, results), strict=True):
        facts = _facts_of_all([part.facts for part in parts], places, len(rows))
        sums = _side_by_side(len(rows), [(p.sums, at) for p, at in zip(parts, places, strict=True)])
        pooled = None
        if ensembles:
            # A part without ensembles pools rows that are their own means.
            means = [(p.pooled or p.sums, at) for p, at in zip(parts, layers, strict=True)]
            pooled = _side_by_side(len(groups), means)
        measured.append(Measured(facts, sums, pooled))
    sigma = measured[0].facts.row_options.get("sigma")
    return replace(
        first,
        rows=models,
        **_fields(measured),
        row_reasons=tuple(reasons),
        samples=first.samples,
        batches=first.batches,
        warnings=tuple(dict.fromkeys(w for r in results for w in r.warnings)),
        provenance={
            **first.provenance,
            "sigma": None if sigma is None else list(sigma),
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


def _union(results: Sequence[Scores]) -> tuple[ModelRows, ...]:
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


def _all(result: Scores) -> list[Measured]:
    """Every measure's facts and sums, in order."""
    return [Measured(result.measure, result.sums, result.pooled), *result.others]


def _fields(measured: Sequence[Measured]) -> dict[str, Any]:
    """Those of a result that hold its measures."""
    first, *others = measured
    return {
        "measure": first.facts,
        "sums": first.sums,
        "pooled": first.pooled,
        "others": tuple(others),
    }


def _merged(one: Measured, two: Measured) -> Measured:
    weights = one.sums.weight, two.sums.weight
    pooled = one.pooled.merge(two.pooled) if one.pooled and two.pooled else None
    return Measured(one.facts.merged(two.facts, weights), one.sums.merge(two.sums), pooled)


def _facts_of_all(
    parts: Sequence[MeasureFacts], places: Sequence[list[int]], rows: int
) -> MeasureFacts:
    """The facts of results side by side; what was fixed for a row comes from the first part."""
    fixed: dict[str, tuple[float | None, ...]] = {}
    for name in {name for part in parts for name in part.row_options}:
        numbers: list[float | None] = [None] * rows
        for part, at in reversed([*zip(parts, places, strict=True)]):
            for row, number in zip(at, part.row_options.get(name, [None] * len(at)), strict=True):
                numbers[row] = number
        fixed[name] = tuple(numbers)
    return replace(parts[0], row_options=fixed)


def _require_same_options(first: Scores, second: Scores, action: str) -> None:
    """Raises ValueError where the two were computed differently."""
    if first.measures != second.measures:
        raise ValueError(
            f"{action} needs the same measures in all: {', '.join(first.measures)} and "
            f"{', '.join(second.measures)}"
        )
    for key in _SAME:
        mine, theirs = (r.provenance.get(key, _USUAL.get(key)) for r in (first, second))
        if mine != theirs:
            raise ValueError(f"{action} needs the same {key} in all: {mine!r} and {theirs!r}")
    for one, two in zip(_all(first), _all(second), strict=True):
        if (mine := dict(one.facts.options)) != (theirs := dict(two.facts.options)):
            raise ValueError(
                f'{action} needs the same "{one.facts.name}" in all: {mine} and {theirs}'
            )
        sizes = {size for m in (one, two) if (size := m.facts.block_size) is not None}
        if len(sizes) > 1:
            raise ValueError(
                f'{action} needs blocks of one size in all, since "{one.facts.name}" means '
                f"something else in others: {' and '.join(map(str, sorted(sizes)))} samples; give "
                "the same hsic_batch_size to all runs"
            )
