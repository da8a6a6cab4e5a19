"""Error bars: the delta method from running sums is the one from all blocks, and it covers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import zoo
from checks import run
from oracles import delta_stderr, reference_compare

from cka_widget.engine.compare import iter_compare
from cka_widget.engine.functional import MinibatchCKA


@pytest.mark.parametrize("block", [None, 8])
def test_the_delta_method(block: int | None) -> None:
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, zoo.vectors(160, batch=16)
    result = run(models, batches, hsic_batch_size=block)
    reference = reference_compare(models, batches)
    for a, b in (("a", "b"), ("a", "a"), ("b", "a")):
        found = result.stderr(a, b)
        for i, j in itertools.product(found.index, found.columns):
            series = reference.blocks_of((a, 0, i), (b, 0, j), block)
            expected = delta_stderr([series], [block or 16] * len(series))
            assert found.loc[i, j] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_unequal_blocks() -> None:
    data = zoo.vectors(160, batch=160)[0]
    sizes = [40, 8, 16, 32, 24, 4, 36]
    models, batches = {"a": zoo.mlp(0), "b": zoo.mlp(1)}, list(data.split(sizes))
    series = reference_compare(models, batches).blocks_of(("a", 0, "0"), ("b", 0, "2"))
    found = run(models, batches).stderr("a", "b").loc["0", "2"]
    assert found == pytest.approx(delta_stderr([series], sizes), rel=1e-3)


def test_every_particle_pair() -> None:
    models = {"e": [zoo.mlp(0), zoo.mlp(1)], "f": [zoo.mlp(2), zoo.mlp(3), zoo.mlp(4)]}
    batches = zoo.vectors(160, batch=16)
    found = run(models, batches).particles_stderr("e", "f", row="0", col="2")
    reference = reference_compare(models, batches)
    assert found.shape == (2, 3)
    for p, q in itertools.product(range(2), range(3)):
        series = reference.blocks_of(("e", p, "0"), ("f", q, "2"))
        expected = delta_stderr([series], [16] * 10)
        assert found.loc[p, q] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("a", "b"), [("e", "f"), ("e", "e"), ("f", "f"), ("e", "one")])
def test_the_mean_over_pairs(a: str, b: str) -> None:
    """Pairs share data and particles, so their errors do not average out as if independent.

    Running sums linearise each block at the mean so far, which forgets a little at the start.
    """
    models = {
        "e": [zoo.mlp(0), zoo.mlp(1)],
        "f": [zoo.mlp(2), zoo.mlp(3), zoo.mlp(4)],
        "one": zoo.mlp(5),
    }
    batches = zoo.vectors(1600, batch=16)
    found = run(models, batches).stderr(a, b)
    reference = reference_compare(models, batches)
    counts = {name: reference.particles[name] for name in models}
    for i, j in (("0", "0"), ("0", "4"), ("2", "3")):
        pairs = itertools.product(range(counts[a]), range(counts[b]))
        pairs = [(p, q) for p, q in pairs if a != b or p != q]
        series = [reference.blocks_of((a, p, i), (b, q, j)) for p, q in pairs]
        expected = delta_stderr(series, [16] * 100)
        assert found.loc[i, j] == pytest.approx(expected, rel=0.15), (i, j)


def test_none_under_five_blocks() -> None:
    models = {"a": zoo.mlp(0), "e": [zoo.mlp(1), zoo.mlp(2)]}
    for batches, shown in ((4, False), (5, True)):
        result = run(models, zoo.vectors(16 * batches, batch=16))
        for a, b in itertools.product(models, repeat=2):
            assert result.stderr(a, b).notna().all(axis=None) == shown
        frame = result.particles_stderr("e", "e", row="0", col="0")
        assert frame.notna().all(axis=None) == shown


def test_more_data_make_it_smaller() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    few = run(models, zoo.vectors(320, batch=16)).stderr("a", "b").loc["0", "0"]
    many = run(models, zoo.vectors(320 * 16, batch=16, seed=1)).stderr("a", "b").loc["0", "0"]
    assert few / many == pytest.approx(4.0, rel=0.5)


def test_stopping_when_good_enough() -> None:
    models = {"a": zoo.mlp(0), "b": zoo.mlp(1)}
    whole = zoo.vectors(6400, batch=32)
    result = run(models, whole, stop_at_stderr=0.05)
    assert 5 <= result.batches < 200
    worst = max(
        float(np.nanmax(result.stderr(a, b))) for a, b in itertools.product(models, repeat=2)
    )
    assert worst <= 0.05
    snapshots = list(iter_compare(models, whole, stop_at_stderr=0.05))
    assert snapshots[-1].done
    assert snapshots[-1].batches == result.batches
    assert run(models, whole[:20], stop_at_stderr=1e-6).batches == 20


def test_stopping_with_undefined_cells() -> None:
    """A dead layer never gets an error bar; it must not keep the others waiting."""
    models = {"a": zoo.seeded(zoo.Dead), "b": zoo.mlp(1)}
    assert run(models, zoo.vectors(6400, batch=32), stop_at_stderr=0.1).batches < 200


@pytest.mark.parametrize("samples", [8, 32])
def test_intervals_cover(samples: int) -> None:
    """Normals with a known population CKA, |S_xy|^2 / (|S_xx| |S_yy|); 400 runs of 40 blocks."""
    generator = torch.Generator().manual_seed(samples)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    mixing = draw(6, 5) / 6**0.5
    own = mixing.T @ mixing + torch.eye(5, dtype=torch.float64)
    truth = float(mixing.square().sum() / (6**0.5 * own.square().sum().sqrt()))
    hits, runs = 0, 400
    for _ in range(runs):
        acc = MinibatchCKA(hsic_batch_size=samples, dtype=torch.float64)
        x = draw(40 * samples, 6)
        acc.update({"x": x, "y": x @ mixing + draw(len(x), 5)})
        value, error = acc.compute().loc["x", "y"], acc.stderr().loc["x", "y"]
        hits += abs(value - truth) < 1.96 * error
    assert 0.92 <= hits / runs <= 0.98
