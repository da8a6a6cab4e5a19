"""Confidence intervals: wide enough for few, uneven and heavy-tailed blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from checks import run
from oracles import reference_compare
from scipy import stats

from cka_widget.engine.summing.running_sums import Sums
from cka_widget.result.intervals import student_quantile, widths
from cka_widget.result.sums import HsicSums


def sums_of(d: np.ndarray) -> HsicSums:
    """Sums over blocks of 32 samples whose self-HSICs are d (blocks, R)."""
    own = torch.from_numpy(d)
    sums = Sums(d.shape[1], torch.device("cpu"))
    sums.add(torch.diag_embed(own), own, 32)
    return sums.on_host()


def expected_width(columns: np.ndarray, level: float = 0.95) -> float:
    """The formula of `widths` by scipy, for the worse of some rows' blocks (blocks, rows)."""
    b = len(columns)
    relative = [(stats.sem(d) / d.mean()) ** 2 for d in columns.T]
    df = [min(b - 1, 2 * b / (stats.kurtosis(d, fisher=False) - 1)) for d in columns.T]
    return float((1 + 2 * max(relative)) * stats.t.ppf((1 + level) / 2, min(df)))


@pytest.mark.parametrize(
    ("p", "df", "table"),
    [
        (0.9, 4, 1.5332),
        (0.975, 4, 2.7764),
        (0.975, 5, 2.5706),
        (0.975, 9, 2.2622),
        (0.975, 30, 2.0423),
        (0.975, 1000, 1.9623),
        (0.995, 10, 3.1693),
    ],
)
def test_quantiles_of_student(p: float, df: int, table: float) -> None:
    assert student_quantile(p, df) == pytest.approx(table, rel=1e-3)


@pytest.mark.parametrize("blocks", [5, 12, 200])
def test_widths_are_those_of_the_blocks_kept_in_full(blocks: int) -> None:
    d = np.random.default_rng(blocks).lognormal(3.0, 0.8, size=(blocks, 3))
    found = widths(sums_of(d), 0.95)
    for i, j in ((0, 0), (0, 1), (2, 1)):
        assert found[i, j] == pytest.approx(expected_width(d[:, [i, j]]), rel=0.01)


def test_heavy_tails_are_wider() -> None:
    d = np.random.default_rng(0).normal(100, 5, size=(40, 2))
    even = widths(sums_of(d), 0.95)
    assert even == pytest.approx(np.full((2, 2), stats.t.ppf(0.975, 39)), rel=0.03)
    d[7, 1] *= 5
    spoilt = widths(sums_of(d), 0.95)
    assert spoilt[0, 0] == even[0, 0]
    assert spoilt[0, 1] == spoilt[1, 0] > 1.25 * even[0, 1]


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_blocks_that_hardly_differ_count_as_normal(size: float) -> None:
    d = size * (1 + 1e-9 * np.random.default_rng(0).normal(size=(20, 1)))
    assert widths(sums_of(d), 0.95) == pytest.approx(stats.t.ppf(0.975, 19), rel=1e-3)


def test_merging_widens_and_narrows_as_all_blocks_together() -> None:
    d = np.random.default_rng(1).lognormal(0.0, 1.0, size=(30, 2))
    merged = sums_of(d[:11]).merge(sums_of(d[11:]))
    np.testing.assert_allclose(widths(merged, 0.9), widths(sums_of(d), 0.9))


def test_intervals_hold_the_value_and_narrow() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(320, batch=32)
    result = run(models, batches)
    value, stderr = result.matrix("a", "b"), result.stderr("a", "b")
    low, high = result.interval("a", "b")
    np.testing.assert_allclose((low + high) / 2, value)
    blocks = reference_compare(models, batches).blocks_of(("a", 0, "0"), ("b", 0, "2"))
    expected = expected_width(blocks[:, 1:]) * stderr.loc["0", "2"]
    assert (high - value).loc["0", "2"] == pytest.approx(expected, rel=0.01)
    wide = result.interval("a", "b", level=0.99)
    assert (wide[0] < low).all(axis=None)
    assert run(models, zoo.vectors(64)).interval("a", "b")[0].isna().all(axis=None)
    with pytest.raises(ValueError, match="between 0 and 1"):
        result.interval("a", "b", level=95)


def test_means_are_taken_as_uneven_as_their_worst_pair() -> None:
    models, batches = {"e": [zoo.mlp(0), zoo.mlp(1), zoo.mlp(2)]}, zoo.vectors(160, batch=16)
    result = run(models, batches)
    low, high = result.interval("e", "e")
    reference = reference_compare(models, batches)
    pairs = [(p, q) for p in range(3) for q in range(3) if p != q]
    blocks = [reference.blocks_of(("e", p, "0"), ("e", q, "2"))[:, 1:] for p, q in pairs]
    expected = max(map(expected_width, blocks)) * result.stderr("e", "e").loc["0", "2"]
    assert (high - low).loc["0", "2"] / 2 == pytest.approx(expected, rel=0.01)
