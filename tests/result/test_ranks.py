"""Where two measures disagree, against scipy's ranks."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn

import cka_widget as cw
from cka_widget.result.ranks import rank_difference


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


def expected(first, second):
    both = np.isfinite(first) & np.isfinite(second)
    found = np.full(first.shape, np.nan)
    a, b = rankdata(first[both]), rankdata(second[both])
    found[both] = (a - b) / (both.sum() - 1)
    return found


def test_ranks_of_ties_and_gaps_are_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 5, (2, 4, 6)).astype(float)
        first[rng.random((4, 6)) < 0.1] = np.nan
        second[rng.random((4, 6)) < 0.1] = np.nan
        np.testing.assert_allclose(rank_difference(first, second), expected(first, second))


def test_the_ends_are_one_apart_and_one_cell_does_not_disagree():
    up = np.array([[0.1, 0.5, 0.9]])
    np.testing.assert_allclose(rank_difference(up, up[:, ::-1]), [[-1, 0, 1]])
    np.testing.assert_array_equal(rank_difference(up[:, :1], 3 * up[:, :1]), [[0]])
    assert np.isnan(rank_difference(np.full((2, 2), np.nan), np.ones((2, 2)))).all()


def test_a_result_tells_where_two_of_its_measures_disagree():
    torch.manual_seed(0)
    batches = [torch.randn(32, 6) for _ in range(6)]
    measures = ["cka", "rsa", cw.MutualKNN(k=3)]
    result = cw.compare({"A": net(0), "B": [net(1), net(2)]}, batches, measures=measures)
    frame = result.disagreement("A", "B", "cka", "mutual_knn")
    one, other = (result.matrix("A", "B", measure=m) for m in ("cka", "mutual_knn"))
    np.testing.assert_allclose(frame, expected(one.to_numpy(), other.to_numpy()))
    assert list(frame.index) == result.layers("A")
    assert frame.columns.name == "B"
    assert frame.abs().to_numpy().max() > 0.05
    turned = result.disagreement("A", "B", "mutual_knn", "cka")
    np.testing.assert_allclose(turned, -frame)
    assert not result.disagreement("A", "B", "rsa", "rsa").to_numpy().any()
    with pytest.raises(KeyError, match='did you mean "rsa"'):
        result.disagreement("A", "B", "cka", "rsb")
