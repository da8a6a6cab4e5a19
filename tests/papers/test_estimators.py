"""What the choice of estimator and of the batch does to a score."""

from __future__ import annotations

import digits
import numpy as np
import pytest
import torch
from checks import run

from cka_widget.engine.functional import cka

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("n", "p", "published"), [(50, 50, 0.50), (50, 500, 0.91), (50, 5000, 0.99), (1000, 500, 0.33)]
)
def test_independent_features(n: int, p: int, published: float) -> None:
    """Murphy et al. 2024: biased CKA calls independent normal features alike, the unbiased not."""
    rng = np.random.default_rng(0)
    biased, unbiased = [], []
    for _ in range(20):
        x, y = rng.standard_normal((2, n, p))
        biased.append(cka(x, y, unbiased=False))
        unbiased.append(cka(x, y))
    assert np.mean(biased) == pytest.approx(published, abs=0.01)
    if (n, p) == (50, 500):
        assert min(biased) > 0.85
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased, ddof=1) / np.sqrt(len(unbiased))
    assert abs(np.mean(unbiased)) < 0.01


def test_the_score_does_not_depend_on_the_batch_size() -> None:
    """Nguyen et al. 2021: minibatches of the unbiased HSIC give what the full data give."""
    models = {"a": digits.trained(0), "b": digits.trained(1)}
    images = digits.digits()[0][0]
    full = run(models, [images], layers=digits.CONVS).matrix("a", "b")
    # Twenty orders: one cut into 75 batches of 16 is itself a draw, .004 off in a cell or more.
    shuffle = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(images), generator=shuffle) for _ in range(20)]
    small = run(
        models, [b for order in orders for b in images[order].split(16)], layers=digits.CONVS
    )
    assert small.blocks == 20 * 75
    difference = (small.matrix("a", "b") - full).to_numpy()
    assert np.abs(difference).max() < 0.005
    biased = run(models, list(images.split(16)), layers=digits.CONVS, unbiased=False)
    assert (biased.matrix("a", "b") - full).to_numpy().mean() > 0.03
