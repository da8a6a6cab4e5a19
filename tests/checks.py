"""The engine held against the oracle."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from oracles import Reference, reference_compare

from cka_widget.engine.compare import compare
from cka_widget.engine.errors import CKAWarning
from cka_widget.result.result import CKAResult

TOLERANCE = 1e-4


def run(models: Any, loader: Any, **options: Any) -> CKAResult:
    """`compare` without a progress bar; the warnings stay readable in the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CKAWarning)
        return compare(models, loader, progress=False, **options)


def largest_error(
    result: CKAResult,
    reference: Reference,
    pairs: Iterable[tuple[str, str]] | None = None,
    **oracle: Any,
) -> float:
    """Largest difference of any cell; cells must be undefined in both or in neither."""
    worst = 0.0
    for a, b in pairs or itertools.product(result.models, repeat=2):
        rows, cols = result.layers(a), result.layers(b)
        found = result.matrix(a, b)
        assert list(found.index) == rows
        assert list(found.columns) == cols
        expected = reference.matrix(a, b, rows, cols, **oracle)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected), f"undefined in {a}, {b}")
        difference = np.abs(found.to_numpy() - expected)
        worst = max(worst, float(np.nanmax(difference, initial=0.0)))
    return worst


def assert_complete(result: CKAResult, reference: Reference) -> None:
    """Every distinct output of every executed module has its row."""
    for model in result.models:
        rows, labels = result.layers(model), reference.labels(model)
        assert set(rows) <= set(labels)
        for label in labels:
            same = [row for row in rows if reference.same_output(model, row, label)]
            assert same, f"{model} {label} has no row"


def check(models: Any, batches: list[Any], *, tolerance: float = TOLERANCE, **options: Any) -> Any:
    """Compare all layers with the oracle, with nothing left out; returns the result."""
    call = options.get("forward") or (lambda model, batch: model(batch))
    reference = reference_compare(models, batches, call=call)
    result = run(models, batches, **options)
    assert_complete(result, reference)
    assert largest_error(result, reference) <= tolerance
    return result


def same(found: CKAResult, expected: CKAResult, tolerance: float = 2e-6) -> None:
    """Labels, aliases, reasons, and every pair of particles."""
    assert found.models == expected.models
    for name in expected.models:
        assert found.layers(name) == expected.layers(name)
        assert found.n_particles(name) == expected.n_particles(name)
    one, other = found.to_frame(), expected.to_frame()
    keys = [key for key in other.columns if key not in ("cka", "stderr")]
    assert one[keys].equals(other[keys])
    np.testing.assert_allclose(one["cka"], other["cka"], atol=tolerance, equal_nan=True)
    np.testing.assert_allclose(one["stderr"], other["stderr"], atol=tolerance, equal_nan=True)
