"""Invariances, by hypothesis: what must not change does not, whatever the shapes and splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("hypothesis")

import zoo
from checks import largest_error, run
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import cka as exact
from oracles import reference_compare
from torch import nn

from cka_widget.engine.functional import MinibatchCKA, cka
from cka_widget.result.combine import concat

sizes = st.integers(4, 40)
widths = st.integers(1, 30)
seeds = st.integers(0, 2**32 - 1)
kernels = st.sampled_from(["linear", "rbf"])


def pair(n: int, p: int, q: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + rng.normal(size=p) * rng.choice([0.0, 1.0, 30.0])
    y = x @ rng.normal(size=(p, q)) * rng.choice([0.0, 1.0]) + rng.normal(size=(n, q))
    return x, y


def equal(a: float, b: float, tolerance: float = 1e-8) -> None:
    """Undefined alike, or close; where a self-HSIC is near zero both are large and ill-defined."""
    if np.isnan(a) or np.isnan(b) or abs(a) > 3:
        return
    assert a == pytest.approx(b, abs=tolerance)


@given(sizes, widths, widths, seeds)
def test_the_closed_form(n: int, p: int, q: int, seed: int) -> None:
    x, y = pair(n, p, q, seed)
    equal(exact(x, y), cka(x, y))
    equal(exact(x, y, unbiased=False), cka(x, y, unbiased=False))


@given(sizes, widths, widths, seeds, kernels, st.booleans())
def test_invariances(n: int, p: int, q: int, seed: int, kernel: str, unbiased: bool) -> None:
    x, y = pair(n, p, q, seed)
    rng = np.random.default_rng(seed)
    options = {"kernel": kernel, "unbiased": unbiased}
    expected = cka(x, y, **options)
    rotation, _ = np.linalg.qr(rng.normal(size=(p, p)))
    order = rng.permutation(n)
    equal(expected, cka(y, x, **options))
    equal(expected, cka(x[order], y[order], **options))
    equal(expected, cka(x @ rotation, y, **options))
    equal(expected, cka(x * rng.uniform(1e-3, 1e3), y, **options))
    equal(expected, cka(x + rng.normal(size=p), y, **options), 1e-7)
    equal(expected, cka(x, np.concatenate([y, np.zeros((n, 3))], axis=1), **options))


@given(sizes, widths, seeds)
def test_itself(n: int, p: int, seed: int) -> None:
    x, _ = pair(n, p, 1, seed)
    value = cka(x, x)
    assert np.isnan(value) or value == pytest.approx(1.0, abs=1e-12)
    assert cka(x, x, unbiased=False) == pytest.approx(1.0, abs=1e-12)


@given(st.integers(4, 40), widths, widths, seeds)
def test_biased_lies_between_zero_and_one(n: int, p: int, q: int, seed: int) -> None:
    x, y = pair(n, p, q, seed)
    assert -1e-12 <= cka(x, y, unbiased=False) <= 1 + 1e-12


@given(st.lists(st.integers(4, 20), min_size=2, max_size=6), seeds, st.randoms())
def test_order_and_grouping_of_batches_do_not_matter(
    lengths: list[int], seed: int, random: object
) -> None:
    batches = [dict(zip("xy", pair(n, 4, 5, seed + n), strict=True)) for n in lengths]
    whole = MinibatchCKA(dtype=torch.float64)
    for batch in batches:
        whole.update(batch)
    random.shuffle(batches)
    cut = random.randint(1, len(batches) - 1)
    parts = [MinibatchCKA(dtype=torch.float64) for _ in range(2)]
    for part, group in zip(parts, (batches[:cut], batches[cut:]), strict=True):
        for batch in group:
            part.update(batch)
    parts[0].merge_state(parts[1:])
    np.testing.assert_allclose(parts[0].compute(), whole.compute(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(parts[0].stderr(), whole.stderr(), rtol=1e-4, atol=1e-6)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.sampled_from([None, 4, 6, 16]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seeds,
)
@settings(max_examples=40)
def test_compare_is_the_oracle(
    lengths: list[int], block: int | None, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    batches = [torch.randn(n, 8, generator=generator).to(dtype) for n in lengths]
    models = {
        "a": zoo.mlp(seed % 97, depth=1).to(dtype),
        "b": zoo.seeded(zoo.Shifted, 5.0).to(dtype),
    }
    result = run(models, batches, hsic_batch_size=block)
    if sum(n for n in lengths if n >= 4) < 40:
        return  # single blocks of few samples: compared above in float64
    reference = reference_compare(models, batches)
    assert largest_error(result, reference, [("a", "b")], block=block) <= 1e-3
    assert result.samples == sum(n for n in lengths if n >= 4)


@given(st.integers(1, 11), st.booleans(), seeds)
@settings(max_examples=12)
def test_merged_results_are_the_whole(cut: int, ensemble: bool, seed: int) -> None:
    batches = zoo.vectors(192, batch=16, seed=seed % 2**31)
    models = {"a": [zoo.mlp(0), zoo.mlp(1)] if ensemble else zoo.mlp(0), "b": zoo.mlp(2)}
    whole = run(models, batches)
    parts = run(models, batches[:cut]), run(models, batches[cut:])
    merged = parts[0].merge(parts[1])
    turned = parts[1].merge(parts[0])
    for a, b in (("a", "b"), ("a", "a"), ("b", "a")):
        for found in (merged, turned):
            np.testing.assert_allclose(found.matrix(a, b), whole.matrix(a, b), atol=1e-6)
            if not ensemble:  # an ensemble's is linearised at the running mean: see its test
                np.testing.assert_allclose(found.stderr(a, b), whole.stderr(a, b), atol=1e-5)
    assert merged.samples == whole.samples
    assert merged.blocks == whole.blocks
    assert parts[0].samples == 16 * cut, "inputs stay as they were"


def test_permuting_samples_within_batches_changes_nothing() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.seeded(zoo.InPlaceChain)}, zoo.vectors()
    turned = [batch[torch.randperm(len(batch))] for batch in batches]
    expected = run(models, batches).matrix("a", "b")
    np.testing.assert_allclose(run(models, turned).matrix("a", "b"), expected, atol=1e-5)


def test_concatenated_layers_are_the_whole() -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors()
    names = run(models, batches).layers("a")
    parts = [
        run(models, batches, layers={"a": part, "b": names}) for part in (names[:2], names[2:])
    ]
    joined, whole = concat(parts), run(models, batches)
    assert sorted(joined.layers("a")) == sorted(names)
    rows = joined.layers("a")
    expected = whole.matrix("a", "b").loc[rows, joined.layers("b")]
    np.testing.assert_allclose(joined.matrix("a", "b"), expected, atol=1e-6)
    apart = joined.matrix("a", "a").loc[names[0], names[2]]
    assert np.isnan(apart)
    assert joined.why("a", "a", names[0], names[2]) == "never computed together"


def test_merge_refuses_what_does_not_fit() -> None:
    a, b = run({"a": zoo.mlp(0)}, zoo.vectors()), run({"b": zoo.mlp(0)}, zoo.vectors())
    with pytest.raises(ValueError, match="same models"):
        a.merge(b)
    with pytest.raises(ValueError, match="same"):
        a.merge(run({"a": zoo.mlp(0)}, zoo.vectors(), unbiased=False))


def test_a_layer_orthogonally_mapped_is_the_same_layer() -> None:
    rotation = nn.Linear(16, 16, bias=False)
    nn.init.orthogonal_(rotation.weight)
    model = nn.Sequential(zoo.seeded(nn.Linear, 8, 16), rotation)
    matrix = run({"a": model}, zoo.vectors()).matrix("a", "a")
    assert matrix.loc["0", "1"] == pytest.approx(1.0, abs=1e-5)
