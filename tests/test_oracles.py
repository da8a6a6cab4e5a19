"""The oracle itself: the closed form is the brute-force U-statistic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from oracles import (
    cka,
    hsic_biased,
    hsic_song,
    hsic_u_statistic,
    linear_gram,
    minibatch_cka,
    rbf_gram,
    reference_compare,
)


@pytest.mark.parametrize("n", [4, 5, 7])
@pytest.mark.parametrize("gram", [linear_gram, lambda x: rbf_gram(x, 1.3)], ids=["linear", "rbf"])
def test_song_is_the_u_statistic(n: int, gram: object) -> None:
    rng = np.random.default_rng(n)
    k, m = gram(rng.normal(size=(n, 3))), gram(rng.normal(size=(n, 5)) + 1.0)
    assert hsic_song(k, m) == pytest.approx(hsic_u_statistic(k, m), rel=1e-12, abs=3e-15)
    assert hsic_song(k, k) == pytest.approx(hsic_u_statistic(k, k), rel=1e-12)


@pytest.mark.parametrize("mean", [0.0, 3.0, 30.0])
def test_no_hsic_depends_on_the_mean(mean: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)) + mean, rng.normal(size=(9, 4)) - mean
    for hsic in (hsic_song, hsic_u_statistic, hsic_biased):
        centred = hsic(linear_gram(x), linear_gram(y))
        plain = hsic(linear_gram(x, centre=False), linear_gram(y, centre=False))
        assert centred == pytest.approx(plain, abs=1e-16 * (1 + mean) ** 4 * 100)


def test_biased_is_the_covariance_norm() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 4))
    covariance = np.cov(x.T, y.T)[:3, 3:]
    assert hsic_biased(linear_gram(x), linear_gram(y)) == pytest.approx((covariance**2).sum())


def test_independent_features_have_unbiased_cka_of_zero() -> None:
    rng = np.random.default_rng(0)
    values = [cka(rng.normal(size=(50, 50)), rng.normal(size=(50, 50))) for _ in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 40**0.5
    assert cka(rng.normal(size=(50, 50)), rng.normal(size=(50, 50)), unbiased=False) > 0.4


def test_ratio_of_means_not_mean_of_ratios() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 10))
    y = x + rng.normal(size=x.shape)
    truth = cka(x[:1000], y[:1000])
    parts = [slice(i, i + 4) for i in range(0, 4000, 4)]
    pairs = [(linear_gram(x[p]), linear_gram(y[p])) for p in parts]
    assert minibatch_cka(*zip(*pairs, strict=True)) == pytest.approx(truth, abs=0.03)
    biased = minibatch_cka(*zip(*pairs, strict=True), unbiased=False)
    assert biased > truth + 0.1


def test_hooks_see_what_the_next_module_overwrites() -> None:
    reference = reference_compare({"a": zoo.InPlaceChain()}, zoo.vectors())
    features = reference.features
    assert (features["a", 0, "bn"][0] < 0).any()
    assert (features["a", 0, "relu"][0] >= 0).all()
    assert not reference.same_output("a", "bn", "relu")
    assert reference.labels("a") == ["lin", "bn", "relu", "out", "(output)"]


def test_calls_are_numbered() -> None:
    reference = reference_compare({"a": zoo.CalledTwice(times=2)}, zoo.vectors())
    labels = ["stem", "act#1", "step#1", "act#2", "step#2", "act#3", "head", "(output)"]
    assert reference.labels("a") == labels


def test_the_zoo_leaves_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    zoo.resnet18()
    zoo.token_batches()
    assert torch.equal(torch.random.get_rng_state(), before)
