"""Ensembles: every particle is a row of the same table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import zoo
from checks import TOLERANCE, largest_error, run
from oracles import reference_compare
from torch import nn
from torch.func import stack_module_state

from cka_widget.engine.models.particles import StackedParticles


def ensembles() -> dict[str, list[nn.Module]]:
    return {
        "wide": [zoo.mlp(seed, width=20) for seed in range(3)],
        "deep": [zoo.mlp(10 + seed, depth=3) for seed in range(4)],
    }


def test_means_over_particle_pairs() -> None:
    models, batches = ensembles(), zoo.vectors()
    result = run(models, batches)
    reference = reference_compare(models, batches)
    assert largest_error(result, reference) <= TOLERANCE
    assert result.n_particles("wide") == 3
    assert result.n_particles("deep") == 4


def test_within_an_ensemble_only_different_particles_count() -> None:
    models, batches = {"e": ensembles()["wide"]}, zoo.vectors()
    diagonal = np.diag(run(models, batches).matrix("e", "e"))
    assert (diagonal < 0.999).all(), "no particle was compared with itself"
    same = run({"e": [zoo.mlp(0), zoo.mlp(0)]}, batches)
    np.testing.assert_allclose(np.diag(same.matrix("e", "e")), 1.0, atol=1e-5)


def test_particles_along_a_row_are_those_of_each_of_its_cells() -> None:
    result = run(ensembles(), zoo.vectors())
    along = result.particles_along("deep", "wide", row="2")
    cells = [result.particles("deep", "wide", row="2", col=col) for col in result.layers("wide")]
    np.testing.assert_array_equal(along, np.stack(cells, axis=-1))
    with pytest.raises(KeyError, match='no layer "nope"'):
        result.particles_along("deep", "wide", row="nope")


@pytest.mark.parametrize(("a", "b"), [("wide", "deep"), ("deep", "wide"), ("deep", "deep")])
def test_every_particle_pair(a: str, b: str) -> None:
    models, batches = ensembles(), zoo.vectors()
    result, reference = run(models, batches), reference_compare(models, batches)
    found = result.particles(a, b, row="0", col="2")
    assert found.shape == (len(models[a]), len(models[b]))
    for p, q in itertools.product(found.index, found.columns):
        expected = reference.pair((a, p, "0"), (b, q, "2"))
        assert found.loc[p, q] == pytest.approx(expected, abs=TOLERANCE)


def test_the_spread_over_pairs() -> None:
    models, batches = ensembles(), zoo.vectors()
    result = run(models, batches)
    pairs = result.particles("wide", "deep", row="0", col="2").to_numpy()
    assert result.spread("wide", "deep").loc["0", "2"] == pytest.approx(pairs.std(ddof=1))
    own = result.particles("deep", "deep", row="0", col="2").to_numpy()
    different = own[~np.eye(4, dtype=bool)]
    assert result.spread("deep", "deep").loc["0", "2"] == pytest.approx(different.std(ddof=1))


def test_an_ensemble_against_a_single_model() -> None:
    models, batches = {"e": ensembles()["wide"], "one": zoo.mlp(7)}, zoo.vectors()
    result = run(models, batches)
    assert largest_error(result, reference_compare(models, batches)) <= TOLERANCE
    assert result.particles("e", "one", row="0", col="0").shape == (3, 1)
    np.testing.assert_allclose(np.diag(result.matrix("one", "one")), 1.0, atol=1e-6)


@pytest.mark.parametrize("container", [list, tuple, nn.ModuleList])
def test_ways_to_write_an_ensemble(container: type) -> None:
    particles, batches = ensembles()["wide"], zoo.vectors()
    expected = run({"e": particles}, batches).matrix("e", "e")
    np.testing.assert_array_equal(
        run({"e": container(particles)}, batches).matrix("e", "e"), expected
    )


def test_a_sequential_is_one_model() -> None:
    assert run({"a": nn.Sequential(zoo.mlp(), nn.ReLU())}, zoo.vectors()).n_particles("a") == 1


def test_the_same_particle_twice() -> None:
    model = zoo.Counting(zoo.mlp())
    result = run({"e": [model, model]}, zoo.vectors())
    np.testing.assert_allclose(np.diag(result.matrix("e", "e")), 1.0, atol=1e-6)


def test_stacked_particles() -> None:
    particles, batches = ensembles()["wide"], zoo.vectors()
    params, buffers = stack_module_state(particles)
    base = zoo.mlp(99, width=20).to("meta")
    result = run({"e": StackedParticles(base, params, buffers)}, batches)
    reference = reference_compare({"e": particles}, batches)
    assert result.n_particles("e") == 3
    assert largest_error(result, reference) <= TOLERANCE
    with pytest.raises(ValueError, match="share their first size"):
        StackedParticles(base, {**params, "0.bias": params["0.bias"][:2]}, buffers)


def test_stacked_particles_with_buffers() -> None:
    particles = [zoo.resnet18(seed, width=4) for seed in range(2)]
    params, buffers = stack_module_state(particles)
    batches = zoo.images(32, 8, 16)
    result = run({"e": StackedParticles(particles[0], params, buffers)}, batches)
    assert largest_error(result, reference_compare({"e": particles}, batches)) <= TOLERANCE


def test_stacked_particles_have_buffers_of_their_own() -> None:
    """The base's running statistics would silently stand in for every particle's."""
    particles = [zoo.resnet18(seed, width=4) for seed in range(2)]
    params, buffers = stack_module_state(particles)
    with pytest.raises(ValueError, match=r'"bn1\.num_batches_tracked" .* both params and buffers'):
        StackedParticles(particles[0], params)
    kept = {name: tensor for name, tensor in params.items() if name != "bn1.weight"}
    with pytest.raises(ValueError, match=r'"bn1\.weight" of the base is not given, 1 missing'):
        StackedParticles(particles[0], kept, buffers)
    with pytest.raises(ValueError, match=r'"head\.bias" is no parameter or buffer of the base'):
        StackedParticles(particles[0], {**params, "head.bias": params["fc.bias"]}, buffers)


def test_a_tied_weight_is_stacked_under_one_name() -> None:
    def tied(seed: int) -> nn.Module:
        net = nn.Sequential(zoo.seeded(nn.Linear, 8, 8, seed=seed), nn.Tanh(), nn.Linear(8, 8))
        net[2].weight = net[0].weight
        return net

    particles, batches = [tied(0), tied(1)], zoo.vectors()
    result = run({"e": StackedParticles(tied(2), *stack_module_state(particles))}, batches)
    assert largest_error(result, reference_compare({"e": particles}, batches)) <= TOLERANCE


@pytest.mark.parametrize("shape", [(0, 5), ()])
def test_stacked_particles_that_are_none(shape: tuple[int, ...]) -> None:
    base = nn.Linear(8, 5)
    params, _ = stack_module_state([base, base])
    with pytest.raises(ValueError, match=r'"bias" of shape .* holds no particles; stack'):
        StackedParticles(base, {**params, "bias": torch.zeros(shape)})


@pytest.mark.parametrize("vmap", [False, True])
def test_stacked_particles_leave_a_shared_module_as_it_was(vmap: bool) -> None:
    particles, batches = [zoo.seeded(zoo.SharedModule, seed=s) for s in (0, 1)], zoo.vectors()
    base = zoo.seeded(zoo.SharedModule, seed=2)
    before = zoo.state_of(base)
    stacked = StackedParticles(base, *stack_module_state(particles))
    result = run({"e": stacked}, batches, vmap=vmap)
    zoo.assert_same_state(before, base)
    assert largest_error(result, reference_compare({"e": particles}, batches)) <= TOLERANCE


def test_a_particle_axis_of_no_model() -> None:
    models = {"e": zoo.seeded(zoo.ParticleAxis, 3), "b": zoo.mlp()}
    with pytest.raises(ValueError, match='"E", which is no model; the models are e, b'):
        run(models, zoo.vectors(), particle_axis={"E": 0})


def test_a_leading_particle_axis() -> None:
    model, batches = zoo.seeded(zoo.ParticleAxis, 3), zoo.vectors()
    result = run({"e": model}, batches, particle_axis=0)
    assert result.n_particles("e") == 3
    assert result.layers("e") == ["lin", "act", "head"]
    for p, q in itertools.product(range(3), repeat=2):
        single = {}
        for name, index in (("p", p), ("q", q)):
            single[name] = nn.Sequential(model, zoo.Returns(lambda x, index=index: x[index]))
        expected = reference_compare(single, batches).pair(("p", 0, "1"), ("q", 0, "1"))
        found = result.particles("e", "e", row="head", col="head").iat[p, q]
        assert found == pytest.approx(expected, abs=TOLERANCE)


def test_one_dead_particle() -> None:
    particles = ensembles()["wide"]
    nn.init.zeros_(particles[1][2].weight)
    result = run({"e": particles, "one": zoo.mlp(5)}, zoo.vectors())
    scores = result.particles("e", "one", row="2", col="2")[0]
    assert np.isnan(scores[1])
    assert np.isfinite(scores[[0, 2]]).all()
    assert result.why("e", "one", "2", "2") == "e 2: particle 1: always the same output"


def test_particles_of_different_architectures_are_refused() -> None:
    mixed = [zoo.mlp(0), zoo.mlp(1, depth=3)]
    with pytest.raises(ValueError, match=r'particles of model "e" differ.*"5"'):
        run({"e": mixed}, zoo.vectors())
    result = run({"e": mixed}, zoo.vectors(), layers=["0", "2"])
    assert (
        largest_error(result, reference_compare({"e": mixed}, zoo.vectors(), {"e": ["0", "2"]}))
        <= TOLERANCE
    )


def test_particles_of_different_width_are_welcome() -> None:
    models = {"e": [zoo.mlp(0, width=5), zoo.mlp(1, width=30)]}
    batches = zoo.vectors()
    assert largest_error(run(models, batches), reference_compare(models, batches)) <= TOLERANCE


def test_tidy_frame() -> None:
    models, batches = {"e": ensembles()["wide"], "one": zoo.mlp(5)}, zoo.vectors()
    result = run(models, batches)
    frame = result.to_frame()
    assert list(frame.columns) == [
        "model_row", "particle_row", "layer_row", "model_col", "particle_col", "layer_col",
        "cka", "stderr",
    ]  # fmt: skip
    rows = 3 * len(result.layers("e")) + len(result.layers("one"))
    assert len(frame) == rows * (rows + 1) // 2
    one = frame.query("model_row == 'e' and model_col == 'one' and layer_row == '0'")
    one = one[one.layer_col == "4"].set_index("particle_row").cka
    expected = result.particles("e", "one", row="0", col="4")[0]
    np.testing.assert_array_equal(one.loc[[0, 1, 2]], expected)


def test_forty_particles() -> None:
    models = {"e": [zoo.mlp(seed, width=6) for seed in range(40)]}
    result = run(models, zoo.vectors(), layers=["0", "4"])
    scores = result.particles("e", "e", row="4", col="4").to_numpy()
    np.testing.assert_allclose(np.diag(scores), 1.0, atol=1e-6)
    np.testing.assert_allclose(scores, scores.T, atol=1e-12)
    expected = scores[~np.eye(40, dtype=bool)].mean()
    assert result.matrix("e", "e").loc["4", "4"] == pytest.approx(expected)


def test_particles_share_nothing_but_the_batch() -> None:
    """Random layers do not make particles alike: each draws its own numbers."""
    noisy = [nn.Sequential(zoo.Returns(lambda x: torch.randn(len(x), 5))) for _ in range(2)]
    result = run({"e": noisy}, zoo.vectors(256, batch=64))
    assert abs(result.matrix("e", "e").iat[0, 0]) < 0.2
