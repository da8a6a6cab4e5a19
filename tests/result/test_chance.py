"""The permutation null against all permutations, and what it calls above chance.

benchmarks/above_chance.py has the rates in full.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import zoo
from checks import run
from oracles import hsic_song, linear_gram, rbf_gram
from torch import nn

from cka_widget.engine.summing import permutations
from cka_widget.result.result import CKAResult


@pytest.mark.parametrize("gram", [linear_gram, lambda x: rbf_gram(x, 1.5)])
@pytest.mark.parametrize("m", [4, 5, 6])
def test_mean_and_variance_over_all_permutations(gram: object, m: int) -> None:
    rng = np.random.default_rng(m)
    k, other = (gram(rng.standard_normal((m, d)) ** 3) for d in (2, 3))
    every = [hsic_song(k, other[np.ix_(p, p)]) for p in itertools.permutations(range(m))]
    scale = hsic_song(k, k) * hsic_song(other, other)
    assert np.mean(every) == pytest.approx(0, abs=1e-12 * np.sqrt(scale))
    assert np.var(every) == pytest.approx(2 * scale / (m * (m - 3)))


def uneven(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Features of which few samples make most of the Gram."""
    return rng.standard_normal((m, d)) * np.exp(1.5 * rng.standard_normal((m, 1)))


@pytest.mark.parametrize("m", [4, 5, 6, 7, 8])
def test_fourth_cumulant_over_all_permutations(m: int) -> None:
    """Of one block; 8 samples have every pattern in which four pairs can share samples."""
    rng = np.random.default_rng(m)
    features = [uneven(rng, m, d) for d in (1, 3)]
    k, other = (linear_gram(x) for x in features)
    orders = itertools.permutations(range(m))
    every = np.array([hsic_song(k, other[np.ix_(p, p)]) for p in orders])
    result = cka_result(features, [m])
    expected = m**4 * (np.mean(every**4) - 3 * np.mean(every**2) ** 2)
    assert result.sums.chance2[0, 1] == pytest.approx(m**2 * np.mean(every**2), rel=1e-5)
    assert result.sums.chance4[0, 1] == pytest.approx(max(expected, 0), rel=1e-4, abs=1e-9)


def test_fourth_cumulant_against_random_permutations() -> None:
    """Of a block as large as usual, whose cumulant few samples make."""
    rng = np.random.default_rng(3)
    m = 24
    features = [uneven(rng, m, d) for d in (1, 2)]
    sums = cka_result(features, [m]).sums
    a, b = (u_centred(linear_gram(x)) for x in features)
    orders = rng.permuted(np.tile(np.arange(m), (200_000, 1)), axis=1)
    h = np.concatenate(
        [
            np.einsum("ij,pij->p", a, b[p[:, :, None], p[:, None, :]]) / (m * (m - 3))
            for p in np.array_split(orders, 100)
        ]
    )
    expected = m**4 * (np.mean(h**4) - 3 * np.mean(h**2) ** 2)
    assert expected > 10 * sums.chance2[0, 1] ** 2  # far from a normal's
    assert sums.chance4[0, 1] == pytest.approx(expected, rel=0.1)


def u_centred(k: np.ndarray) -> np.ndarray:
    """By the definition, sample by sample (Szekely and Rizzo 2014)."""
    m = len(k)
    k = k - np.diag(np.diag(k))
    out = np.zeros_like(k)
    for i, j in itertools.permutations(range(m), 2):
        out[i, j] = k[i, j] - k[i].sum() / (m - 2) - k[:, j].sum() / (m - 2)
        out[i, j] += k.sum() / ((m - 1) * (m - 2))
    return out


class Given(nn.Module):
    """Layers that give out their slices of the input."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths
        self.layers = nn.ModuleList(nn.Identity() for _ in widths)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [f(part) for f, part in zip(self.layers, x.split(self.widths, 1), strict=True)]


def cka_result(features: list[np.ndarray], sizes: list[int], **options: object) -> CKAResult:
    """A run that sees these features (n, d) as layers, in blocks of these sizes."""
    x = torch.tensor(np.concatenate(features, 1), dtype=torch.float32)
    models = {"a": Given([f.shape[1] for f in features])}
    return run(models, list(x.split(sizes)), layers="layers.*", **options)


@pytest.mark.parametrize("kind", ["even", "uneven", "rare"])
@pytest.mark.parametrize("m", [100, 128, 256])
def test_some_samples_stand_for_a_large_block(
    monkeypatch: pytest.MonkeyPatch, m: int, kind: str
) -> None:
    rng = np.random.default_rng(m)
    features = [uneven(rng, m, 1 + k // 2) for k in range(6)]
    if kind == "even":
        features = [rng.standard_normal((m, 1 + k // 2)) for k in range(6)]
    if kind == "rare":
        features = [rng.standard_normal((m, 4)) * (rng.random((m, 1)) < 0.08) for k in range(6)]
    some = cka_result(features, [m]).sums
    monkeypatch.setattr(permutations, "_WHOLE", m)
    every = cka_result(features, [m]).sums
    np.testing.assert_allclose(some.chance2, every.chance2)
    ratio = (some.chance4 / every.chance4)[np.triu_indices(6, 1)]
    assert (ratio > 0.4).all()
    assert (ratio < 2.5).all()
    assert np.median(ratio) == pytest.approx(1, abs=0.25)


class Halves(nn.Module):
    """Two layers that see nothing in common."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left = nn.Linear(8, width)
        self.right = nn.Linear(8, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x[:, :8]) + self.right(x[:, 8:])


def chance(width: int, seed: int, blocks: int = 10) -> CKAResult:
    models = {"a": zoo.seeded(Halves, width, seed=seed)}
    batches = zoo.vectors(32 * blocks, d=16, batch=32, seed=1000 + seed)
    return run(models, batches, layers=["left", "right"])


@pytest.mark.parametrize("width", [1, 12])
def test_unrelated_features_vary_as_the_null_says(width: int) -> None:
    results = [chance(width, seed) for seed in range(300)]
    scores = [r.matrix("a", "a").loc["left", "right"] for r in results]
    deviations = [r.null("a", "a").loc["left", "right"] for r in results]
    assert np.mean(scores) == pytest.approx(0, abs=4 * np.mean(deviations) / np.sqrt(300))
    assert np.std(scores) == pytest.approx(np.mean(deviations), rel=0.12)
    p = [r.p_values("a", "a").loc["left", "right"] for r in results]
    assert np.mean(np.less(p, 0.05)) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    if width == 1:  # there the chi-square is no bound but the shape
        distance = np.abs(np.sort(p) - np.linspace(0, 1, len(p))).max()
        assert distance < 1.95 / np.sqrt(len(p))  # Kolmogorov and Smirnov's test at 0.001


def test_what_is_above_chance() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1), "dead": zoo.seeded(zoo.Dead)}
    result = run(models, zoo.vectors(640, batch=32))
    assert result.above_chance("a", "b").all(axis=None)
    assert not chance(6, 0).above_chance("a", "a").loc["left", "right"]
    undefined = result.matrix("a", "dead").isna()
    assert undefined.any(axis=None)
    assert not result.above_chance("a", "dead")[undefined].any(axis=None)
    assert result.null("a", "dead").isna().equals(undefined)


@pytest.mark.parametrize("alpha", [1e-9, 0.01, 0.5, 0.99])
def test_above_chance_is_a_level_of_p(alpha: float) -> None:
    """With Bonferroni's divisor, the defined cells."""
    result = run({"a": zoo.seeded(zoo.Dead), "b": zoo.mlp(0)}, zoo.vectors(160, batch=32))
    p = result.p_values("a", "b")
    cells = p.notna().to_numpy().sum()
    expected = p <= alpha / cells
    assert result.above_chance("a", "b", alpha).equals(expected)
    assert p.dtypes.eq(float).all()
    some = result.above_chance("a", "b", float(p.stack().median() * cells))
    assert 0 < some.to_numpy().sum() < cells


def test_levels_out_of_range() -> None:
    with pytest.raises(ValueError, match="alpha=5 must be between 0 and 1"):
        run({"a": zoo.mlp(0)}, zoo.vectors()).above_chance("a", "a", 5)


def test_ensembles_are_bounded_by_their_pairs() -> None:
    result = run({"e": [zoo.mlp(0), zoo.mlp(1)], "f": [zoo.mlp(2)]}, zoo.vectors(320, batch=32))
    single = run({"e": zoo.mlp(0), "f": zoo.mlp(2)}, zoo.vectors(320, batch=32))
    ratio = result.null("e", "f") / single.null("e", "f")
    assert ((ratio > 0.9) & (ratio < 1.1)).all(axis=None)


@pytest.mark.parametrize("sizes", [[32] * 5, [40, 40, 40, 30, 10], [4, 5, 151], [36, 4]])
def test_blocks_of_every_size_count_as_they_are(sizes: list[int]) -> None:
    blocks = zoo.vectors(sum(sizes), batch=sum(sizes))[0].split(sizes)
    net = zoo.mlp(0)
    result = run({"a": net}, list(blocks), layers=["0", "2"])
    self_hsics = []
    for block in blocks:
        first = net[0](block)
        second = net[2](net[1](first))
        grams = [linear_gram(x.detach().numpy()) for x in (first, second)]
        self_hsics.append([hsic_song(k, k) for k in grams])
    d, m = np.array(self_hsics), np.array(sizes, dtype=float)
    variance = (2 * m / (m - 3) * d[:, 0] * d[:, 1]).sum() / np.prod(m @ d)
    assert result.null("a", "a").loc["0", "2"] == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_the_biased_estimator_has_no_such_null() -> None:
    result = run({"a": zoo.mlp(0)}, zoo.vectors(), unbiased=False)
    with pytest.raises(ValueError, match="needs unbiased=True"):
        result.null("a", "a")
