"""cka(x, y) and MinibatchCKA on features at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo
from checks import run
from oracles import (
    cka_of_sums,
    hsic_biased,
    hsic_song,
    hsic_u_statistic,
    linear_gram,
    median_distance,
    minibatch_cka,
    rbf_gram,
)

from cka_widget.engine.functional import MinibatchCKA, cka


def features(n: int = 40, p: int = 6, q: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    return x, np.tanh(x @ rng.normal(size=(p, q))) + 0.5 * rng.normal(size=(n, q))


def ratio(hsic: object, k: np.ndarray, m: np.ndarray) -> float:
    return cka_of_sums(hsic(k, m), hsic(k, k), hsic(m, m))


def test_the_u_statistic_on_seven_samples() -> None:
    for seed in range(5):
        x, y = features(7, seed=seed)
        expected = ratio(hsic_u_statistic, linear_gram(x), linear_gram(y))
        assert cka(x, y) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_closed_forms() -> None:
    x, y = features()
    k, m = linear_gram(x), linear_gram(y)
    assert cka(x, y) == pytest.approx(ratio(hsic_song, k, m), abs=1e-13)
    assert cka(x, y, unbiased=False) == pytest.approx(ratio(hsic_biased, k, m), abs=1e-13)


@pytest.mark.parametrize("bandwidth", [0.2, 0.4, 0.8])
@pytest.mark.parametrize("unbiased", [True, False])
def test_rbf(bandwidth: float, unbiased: bool) -> None:
    x, y = features()
    grams = [rbf_gram(f, bandwidth * median_distance(f)) for f in (x, y)]
    expected = minibatch_cka(grams[:1], grams[1:], unbiased)
    found = cka(x, y, kernel="rbf", bandwidth=bandwidth, unbiased=unbiased)
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_bandwidth_stays_as_the_first_batch_set_it() -> None:
    acc = MinibatchCKA(kernel="rbf", dtype=torch.float64)
    batches = [features(20, seed=seed) for seed in range(3)]
    batches[1] = tuple(5.0 * f for f in batches[1])
    sigmas = [0.4 * median_distance(f) for f in batches[0]]
    for x, y in batches:
        acc.update({"x": x, "y": y})
    grams = [[rbf_gram(b[i], sigmas[i]) for b in batches] for i in range(2)]
    assert acc.compute().loc["x", "y"] == pytest.approx(minibatch_cka(*grams), abs=1e-12)


def test_minibatches_of_unequal_size() -> None:
    acc, grams = MinibatchCKA(dtype=torch.float64), ([], [])
    for n in (20, 7, 33):
        x, y = features(n, seed=n)
        acc.update({"x": x, "y": y})
        grams[0].append(linear_gram(x))
        grams[1].append(linear_gram(y))
    frame = acc.compute()
    assert frame.loc["x", "y"] == frame.loc["y", "x"] == pytest.approx(minibatch_cka(*grams))
    assert frame.loc["x", "x"] == pytest.approx(1.0)


def test_merging_is_one_process() -> None:
    batches = [dict(zip("xy", features(16, seed=seed), strict=True)) for seed in range(6)]
    whole, parts = MinibatchCKA(), [MinibatchCKA() for _ in range(3)]
    for i, batch in enumerate(batches):
        whole.update(batch)
        parts[i % 3].update(batch)
    before = [part.compute() for part in parts]
    merged = MinibatchCKA()
    merged.merge_state(parts)
    np.testing.assert_allclose(merged.compute(), whole.compute(), atol=1e-12)
    np.testing.assert_allclose(merged.stderr(), whole.stderr(), atol=1e-7)
    for part, old in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part.compute(), old)
    merged.update(batches[0])
    whole.update(batches[0])
    np.testing.assert_allclose(merged.compute(), whole.compute(), atol=1e-12)
    merged.reset()
    with pytest.raises(ValueError, match="no batch"):
        merged.compute()


def test_merging_does_not_share_state() -> None:
    first, second = MinibatchCKA(), MinibatchCKA()
    first.update(dict(zip("xy", features(16, seed=0), strict=True)))
    second.merge_state([first])
    second.update(dict(zip("xy", features(16, seed=1), strict=True)))
    alone = MinibatchCKA()
    alone.update(dict(zip("xy", features(16, seed=0), strict=True)))
    np.testing.assert_array_equal(first.compute(), alone.compute())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unbiased": False}, '"linear, unbiased" and "linear, biased"'),
        ({"kernel": "rbf"}, '"linear, unbiased" and "rbf of bandwidth 0.4, unbiased"'),
        ({"bandwidth": 0.8}, None),  # which a linear kernel does not have
    ],
)
def test_what_is_merged_is_one_measure(options: dict[str, Any], message: str | None) -> None:
    batch = dict(zip("xy", features(16), strict=True))
    first, same, other = MinibatchCKA(), MinibatchCKA(), MinibatchCKA(**options)
    for acc in (first, same, other):
        acc.update(batch)
    before = first.compute()
    if message is None:
        first.merge_state([same, other])
        return
    with pytest.raises(ValueError, match=message):
        first.merge_state([same, other])
    np.testing.assert_array_equal(first.compute(), before)
    with pytest.raises(ValueError, match=message):
        MinibatchCKA().merge_state([other])


@pytest.mark.parametrize("shape", [(12,), (12, 3), (12, 3, 4), (12, 3, 4, 5)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    y = torch.randn(12, 5, dtype=torch.float64)
    assert cka(x, y) == pytest.approx(ratio(hsic_song, linear_gram(x), linear_gram(y)), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_dtypes(dtype: torch.dtype) -> None:
    x = (torch.randn(20, 5, dtype=torch.float64) * 4).to(dtype)
    y = torch.randn(20, 5, dtype=torch.float64)
    expected = ratio(hsic_song, linear_gram(x.double()), linear_gram(y))
    assert cka(x, y) == pytest.approx(expected, abs=1e-12)


def test_requires_grad_is_no_obstacle() -> None:
    x = torch.randn(20, 5, requires_grad=True)
    assert cka(x, x) == pytest.approx(1.0)


def test_constant_features_are_undefined() -> None:
    x, _ = features()
    assert np.isnan(cka(x, np.full((40, 3), 2.7)))
    assert np.isnan(cka(x, np.full((40, 3), 2.7), unbiased=False))
    for constant in (0.0, 2.7):
        assert np.isnan(cka(x, np.full((40, 3), constant), kernel="rbf"))


@pytest.mark.parametrize("unbiased", [True, False])
def test_nan_features_are_undefined(unbiased: bool) -> None:
    x, y = features()
    y[3, 2] = np.nan
    assert np.isnan(cka(x, y, unbiased=unbiased))


def test_bad_arguments() -> None:
    x, y = features()
    with pytest.raises(ValueError, match="40 samples, y has 39"):
        cka(x, y[:-1])
    with pytest.raises(ValueError, match="too few"):
        cka(x[:3], y[:3])
    assert np.isfinite(cka(x[:3], y[:3], unbiased=False))
    with pytest.raises(ValueError, match="kernel"):
        cka(x, y, kernel="cosine")
    acc = MinibatchCKA()
    acc.update({"x": x, "y": y})
    with pytest.raises(ValueError, match="expected features x, y"):
        acc.update({"x": x, "z": y})


@pytest.mark.parametrize("shape", [(40, 0), (0, 5), (40, 3, 0), ()])
def test_features_that_hold_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r'features "x" of shape .* hold nothing'):
        cka(np.empty(shape), np.empty(shape))


def test_complex_features_do_not_lose_their_imaginary_part() -> None:
    x, y = features()
    z = torch.complex(*torch.as_tensor(x).chunk(2, dim=1))
    with pytest.raises(ValueError, match=r'"y" are complex: .*view_as_real'):
        cka(x, z)
    assert cka(torch.view_as_real(z), y) == pytest.approx(cka(x, y))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("block", [None, 8])
def test_a_reduction_that_keeps_nothing(kernel: str, precision: str, block: int | None) -> None:
    """Its Gram is zero, not what stood in memory before."""
    options = {"kernel": kernel, "precision": precision, "hsic_batch_size": block}
    result = run({"a": zoo.mlp()}, zoo.vectors(), reduce=lambda x: x[:, :0], **options)
    assert result.matrix("a", "a").isna().all(axis=None)
    assert set(result.reasons("a")) == {"always the same output"}


def test_bias_at_small_samples() -> None:
    """Murphy et al. 2024 (arXiv 2405.01012): biased CKA of independent normals lies."""
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(50, 500)), rng.normal(size=(50, 500))) for _ in range(20)]
    biased = [cka(x, y, unbiased=False) for x, y in pairs]
    unbiased = [cka(x, y) for x, y in pairs]
    assert np.mean(biased) > 0.85
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / len(pairs) ** 0.5


def test_one_outlier() -> None:
    """Davari et al. 2022 (arXiv 2210.16156): one far point drags linear CKA, RBF hardly."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 20))
    y = x.copy()
    y[0] += 100 * np.linalg.norm(x, axis=1).mean() / 20**0.5
    assert cka(x, y) < 0.5
    assert cka(x, y, kernel="rbf") > 0.95
