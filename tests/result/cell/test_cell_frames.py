"""What a script asks of one cell: odd particles, their map, and profiles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from checks import run
from torch import nn

from cka_widget.result.cell.cell_scores import cell_scores
from cka_widget.result.keys import Cell, LayerKey
from cka_widget.result.result import CKAResult

FEATURES, ODD = 12, 2


def particle(seed: int, columns: slice) -> nn.Module:
    """Two layers that see those columns of the input, and all that they see alike."""
    torch.manual_seed(seed)
    one, two = nn.Linear(FEATURES, 40), nn.Linear(40, 40)
    with torch.no_grad():
        kept = one.weight[:, columns].clone()
        one.weight.zero_()
        one.weight[:, columns] = kept
    return nn.Sequential(one, two)


@pytest.fixture(scope="module")
def result() -> CKAResult:
    """An ensemble whose particle 2 looks at other inputs, one of three, and a single model."""
    left, right = slice(0, 6), slice(6, 12)
    models = {
        "many": [particle(i, right if i == ODD else left) for i in range(6)],
        "three": [particle(10 + i, left) for i in range(3)],
        "one": particle(20, left),
    }
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(32, FEATURES, generator=generator) for _ in range(6)]
    return run(models, data, measures=["cka", "rsa"])


@pytest.mark.parametrize("measure", [None, "rsa"])
def test_the_odd_particle_is_named_on_its_side(result: CKAResult, measure: str | None) -> None:
    for rows, cols, axis in (("many", "three", "row"), ("three", "many", "col")):
        (odd,) = result.odd_particles(rows, cols, row="0", col="1", measure=measure)
        assert (odd.axis, odd.particle) == (axis, ODD)
        scores = result.particles(rows, cols, row="0", col="1", measure=measure).to_numpy()
        scores = scores if axis == "row" else scores.T
        assert odd.score == pytest.approx(scores[ODD].mean())
        assert odd.others == pytest.approx(np.delete(scores, ODD, 0).mean())
    (odd,) = result.odd_particles("many", "many", row="1", col="1", measure=measure)
    assert (odd.axis, odd.particle) == ("row", ODD)
    assert result.odd_particles("three", "one", row="0", col="0", measure=measure) == []


def test_the_panel_calls_the_same_particles_odd(result: CKAResult) -> None:
    for rows, cols in itertools.product(result.models, repeat=2):
        for row, col in itertools.product("01", repeat=2):
            panel = cell_scores(result, Cell(LayerKey(rows, row), LayerKey(cols, col)))
            assert result.odd_particles(rows, cols, row=row, col=col) == panel.odd


@pytest.mark.parametrize("measure", [None, "rsa"])
def test_a_triangle_of_particles_keeps_its_angles(result: CKAResult, measure: str | None) -> None:
    where = {"row": "1", "col": "1", "measure": measure}
    plane = result.particle_map("three", "three", **where)
    scores = result.particles("three", "three", **where).to_numpy()
    assert list(plane.columns) == ["x", "y"]
    assert list(plane.index) == [("three", "1", i) for i in range(3)]
    assert plane.attrs["share"] == pytest.approx(1)
    for i, j in itertools.combinations(range(3), 2):
        distance = np.linalg.norm(plane.iloc[i] - plane.iloc[j])
        assert distance == pytest.approx(np.arccos(scores[i, j]), abs=1e-6)


def test_a_map_has_both_sides_and_the_odd_particle_far_off(result: CKAResult) -> None:
    plane = result.particle_map("many", "three", row="0", col="1")
    assert list(plane.loc["many", "0"].index) == list(range(6))
    assert list(plane.loc["three", "1"].index) == list(range(3))
    away = np.linalg.norm(plane - plane.median(), axis=1)
    assert plane.index[away.argmax()] == ("many", "0", ODD)
    assert len(result.particle_map("many", "many", row="0", col="1")) == 12


def test_a_map_needs_three_particles(result: CKAResult) -> None:
    for layer, n in (("0", 1), ("1", 2)):
        with pytest.raises(ValueError, match=f"three particles, and this cell has {n}$"):
            result.particle_map("one", "one", row="0", col=layer)
    with pytest.raises(KeyError, match='no model "two" in this result'):
        result.particle_map("one", "two", row="0", col="0")


@pytest.mark.parametrize("measure", [None, "rsa"])
def test_a_profile_is_a_row_or_a_column_of_the_matrix(
    result: CKAResult, measure: str | None
) -> None:
    along = result.profile("three", "many", row="0", measure=measure)
    down = result.profile("many", "three", col="0", measure=measure)
    assert along.index.name == down.index.name == "many"
    assert list(along.columns) == ["score", "stderr", "spread", *(f"#{i}" for i in range(6))]
    for found, table in (("score", "matrix"), ("stderr", "stderr"), ("spread", "spread")):
        whole = getattr(result, table)("three", "many", measure=measure)
        np.testing.assert_array_equal(along[found], whole.loc["0"])
        np.testing.assert_allclose(down[found], whole.loc["0"], rtol=1e-12)
    for layer, i in itertools.product("01", range(6)):
        pairs = result.particles("three", "many", row="0", col=layer, measure=measure)
        assert along.at[layer, f"#{i}"] == pytest.approx(pairs[i].mean())


def test_a_profile_leaves_out_each_particle_with_itself(result: CKAResult) -> None:
    profile = result.profile("three", "three", row="0")
    pairs = result.particles("three", "three", row="0", col="0").to_numpy()
    assert profile.at["0", "#1"] == pytest.approx((pairs[0, 1] + pairs[2, 1]) / 2)
    assert list(result.profile("three", "one", row="0").columns) == ["score", "stderr", "spread"]


def test_a_profile_says_what_it_needs(result: CKAResult) -> None:
    for both in ({}, {"row": "0", "col": "0"}):
        with pytest.raises(ValueError, match="one row or one column: give row= or col="):
            result.profile("three", "one", **both)
    with pytest.raises(KeyError, match='no layer "2"'):
        result.profile("three", "one", row="2")
    with pytest.raises(KeyError, match='no measure "rsb" in this result; did you mean'):
        result.profile("three", "one", row="1", measure="rsb")


def test_layers_may_be_asked_for_by_an_alias() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    models = {"a": [Wrapped() for _ in range(3)]}
    found = run(models, [torch.randn(16, 4) for _ in range(6)])
    (label,) = found.layers("a")
    (alias, *_) = (name for name in found.rows[0].aliases if name != label)
    for asked in (found.particle_map, found.odd_particles):
        one, other = asked("a", "a", row=alias, col=label), asked("a", "a", row=label, col=label)
        assert (one == other) if isinstance(one, list) else one.equals(other)
    assert found.profile("a", "a", row=alias).equals(found.profile("a", "a", row=label))
