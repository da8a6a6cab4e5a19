"""A cell under every measure."""

import numpy as np
import pytest
import torch
from checks import run
from torch import nn

from cka_widget.engine.measures.mutual_knn import MutualKNN
from cka_widget.result.cell.cell_measures import cell_measures
from cka_widget.result.cell.cell_scores import Tables
from cka_widget.result.keys import Cell, LayerKey


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    models = {
        "many": [nn.Sequential(nn.Linear(6, 8), nn.ReLU()) for _ in range(2)],
        "one": nn.Sequential(nn.Linear(6, 8), nn.ReLU()),
    }
    batches = [torch.randn(20, 6) for _ in range(6)]
    return run(models, batches, measures=["cka", "rsa", MutualKNN(k=3)])


def cell(a, row, b, col):
    return Cell(LayerKey(a, row), LayerKey(b, col))


@pytest.mark.parametrize("shown", ["cka", "rsa", "mutual_knn"])
@pytest.mark.parametrize("where", [("many", "0", "one", "1"), ("many", "0", "many", "0")])
def test_a_cell_under_every_measure_that_ran(result, shown, where):
    a, row, b, col = where
    found = cell_measures(cell(*where), Tables(result.of(shown), a, b))
    assert [one.title for one in found] == [
        result.of(name).measure.title for name in result.of(shown).measures
    ]
    for name, one in zip(result.of(shown).measures, found, strict=True):
        np.testing.assert_allclose(
            one[1:3],
            [frame(a, b, measure=name).at[row, col] for frame in (result.matrix, result.stderr)],
        )
        assert one.chance == pytest.approx(3 / 19 if name == "mutual_knn" else 0)


def test_a_layer_against_itself_is_never_by_chance(result):
    found = cell_measures(cell("one", "0", "one", "0"), Tables(result, "one", "one"))
    assert [one.value for one in found] == pytest.approx([1, 1, 1])
    assert not any(one.chance for one in found)


def test_a_layer_that_is_not_there(result):
    with pytest.raises(KeyError):
        cell_measures(cell("one", "9", "one", "0"), Tables(result, "one", "one"))
