"""The numbers behind one cell, as arrays."""

import numpy as np
import pytest
from fake_result import ENSEMBLES, FakeResult, cell

from cka_widget.result.cell.cell_scores import cell_scores, particle_map, profiles, within
from cka_widget.widgets.drilldown.drilldown import DrillDown


@pytest.fixture
def result():
    return FakeResult(ENSEMBLES, odd=("deep <b>", 3))


def test_between_two_ensembles_every_pair_counts(result):
    data = cell_scores(result, cell("wide", "block", "deep <b>", "fc"))
    assert data.scores.shape == (4, 5)
    assert data.pairs.sum() == 20
    assert data.value == pytest.approx(data.scores.mean())
    assert [(odd.axis, odd.particle) for odd in data.odd] == [("col", 3)]
    assert data.is_odd(0, 3)
    assert not data.is_odd(3, 0)


@pytest.mark.parametrize(("row", "col", "pairs"), [("fc", "fc", 10), ("block", "fc", 20)])
def test_within_one_ensemble_nobody_is_paired_with_itself(result, row, col, pairs):
    data = cell_scores(result, cell("deep <b>", row, "deep <b>", col))
    assert data.pairs.sum() == pairs
    assert not data.pairs.diagonal().any()
    assert data.value == pytest.approx(data.pair_scores.mean())
    assert {odd.particle for odd in data.odd} == {3}
    assert data.is_odd(3, 0)
    assert data.is_odd(0, 3)


def test_profiles_run_along_either_side_with_the_mean_of_each_particle(result):
    where = cell("wide", "block", "deep <b>", "fc")
    along_col, along_row = profiles(result, where)
    assert (along_col.model, along_row.model) == ("deep <b>", "wide")
    assert along_col.scores.shape == (5, 3)
    assert along_row.scores.shape == (4, 3)
    assert (along_col.here, along_row.here) == (2, 1)
    block = result.particles("wide", "deep <b>", row="block", col="conv").to_numpy()
    np.testing.assert_allclose(along_col.scores[:, 0], block.mean(0))
    np.testing.assert_allclose(along_col.mean, along_col.scores.mean(0))
    assert along_col.mean[2] == pytest.approx(cell_scores(result, where).value)


@pytest.mark.parametrize(("a", "b"), [("wide", "deep <b>"), ("wide", "wide")])
def test_profiles_leave_out_pairs_of_a_particle_with_itself(result, a, b):
    for profile, (held, moving) in zip(
        profiles(result, cell(a, "block", b, "fc")),
        [((a, "block"), b), ((b, "fc"), a)],
        strict=True,
    ):
        for at, layer in enumerate(result.names):
            block = result.particles(held[0], moving, row=held[1], col=layer).to_numpy().copy()
            if a == b:
                np.fill_diagonal(block, np.nan)
            np.testing.assert_allclose(profile.scores[:, at], np.nanmean(block, 0))
            assert profile.mean[at] == pytest.approx(np.nanmean(block))


def test_tables_of_a_pair_serve_all_its_cells(result, monkeypatch):
    drill, asked = DrillDown(), []
    for name in ("matrix", "stderr", "spread", "null", "above_chance"):
        table = getattr(result, name)
        monkeypatch.setattr(
            result, name, lambda *names, n=name, t=table: (asked.append(n), t(*names))[1]
        )
    drill.show(result, cell("wide", "block", "deep <b>", "conv"))
    assert set(asked) == {"matrix", "stderr", "spread", "null", "above_chance"}
    asked.clear()
    drill.show(result, cell("wide", "fc", "deep <b>", "block"))
    assert asked == []
    drill.show(result, cell("deep <b>", "block", "wide", "fc"))
    assert "matrix" in asked
    asked.clear()
    later = FakeResult(ENSEMBLES, seed=1)
    drill.show(later, cell("deep <b>", "block", "wide", "fc"))
    assert asked == []
    assert f"{later.matrix('wide', 'deep <b>').at['fc', 'block']:.3f}" in drill.header.value


def test_within_compares_members_of_the_same_side(result):
    groups = within(cell_scores(result, cell("wide", "block", "deep <b>", "fc")))
    assert [len(group.scores) for group in groups] == [6, 10]
    assert [int(group.odd.sum()) for group in groups] == [0, 4], "the odd one and its partners"
    assert within(cell_scores(result, cell("wide", "block", "wide", "fc"))) == []


def test_map_holds_both_sides_and_puts_the_odd_one_far_away(result):
    where = cell("wide", "block", "deep <b>", "fc")
    plane = particle_map(result, cell_scores(result, where))
    assert plane.coords.shape == (9, 2)
    assert plane.split == 4
    apart = np.linalg.norm(plane.coords - np.median(plane.coords, 0), axis=1)
    assert apart.argmax() == 4 + 3


def test_map_of_one_ensemble_at_one_layer_shows_each_particle_once(result):
    plane = particle_map(result, cell_scores(result, cell("wide", "fc", "wide", "fc")))
    assert plane.coords.shape == (4, 2)
    assert plane.split == 4
