"""An ensemble in which one network learned something else."""

from __future__ import annotations

import digits
import numpy as np
import pytest
from checks import run

from cka_widget.result.cell.cell_scores import cell_scores
from cka_widget.result.keys import Cell, LayerKey

pytestmark = pytest.mark.slow


def test_a_network_trained_on_permuted_labels_stands_out() -> None:
    """It shares the first layer's features with the others, and not the last layer's."""
    others = [digits.trained(seed) for seed in range(5)]
    odd = digits.trained(99, permuted_labels=True)
    assert digits.accuracy(odd) < 0.25
    images = digits.digits()[1][0]
    result = run({"ensemble": [*others, odd]}, list(images.split(200)), layers=digits.CONVS)

    def named(layer: str) -> list[int]:
        key = LayerKey("ensemble", layer)
        return [one.particle for one in cell_scores(result, Cell(key, key)).odd]

    def mean_to_the_others(layer: str) -> np.ndarray:
        scores = result.particles("ensemble", "ensemble", row=layer, col=layer).to_numpy()
        return (scores.sum(axis=1) - scores.diagonal()) / (len(scores) - 1)

    last, first = mean_to_the_others("conv5"), mean_to_the_others("conv1")
    assert last[-1] < 0.3
    assert last[:-1].min() > 0.6
    assert first.min() > 0.9
    assert named("conv5") == [5]
    assert named("conv1") == []
