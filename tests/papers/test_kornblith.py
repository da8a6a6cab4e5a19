"""Layer matching between networks that differ in their seeds (Kornblith et al. 2019, table 2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import digits
import numpy as np
import pytest
from checks import run
from torch import nn

SEEDS = range(10)

pytestmark = pytest.mark.slow


def distances_to_the_best_match(build: Callable[[int], nn.Module]) -> np.ndarray:
    """For every layer of every network: how many layers its best match in another is off."""
    models = {f"seed {seed}": build(seed) for seed in SEEDS}
    images = digits.digits()[1][0]
    result = run(models, list(images.split(200)), layers=digits.CONVS)
    off = [
        np.abs(result.matrix(a, b).to_numpy().argmax(axis=1) - np.arange(len(digits.CONVS)))
        for a, b in itertools.permutations(models, 2)
    ]
    return np.concatenate(off)


def test_trained_networks_learn_layer_by_layer_the_same() -> None:
    """Published: CKA finds the same layer in another network almost always, CCA never."""
    assert min(digits.accuracy(digits.trained(seed)) for seed in SEEDS) > 0.97
    off = distances_to_the_best_match(digits.trained)
    assert (off == 0).mean() >= 0.80
    assert (off <= 1).mean() == 1.0


def test_untrained_networks_do_not() -> None:
    off = distances_to_the_best_match(digits.untrained)
    assert (off == 0).mean() <= 0.40
