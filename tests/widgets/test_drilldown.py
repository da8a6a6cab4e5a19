"""The drill-down of one cell: arrays first, then what the widgets are told."""

import numpy as np
import pandas as pd
import pytest
from explorers import sends_without_kernel

from cka_widget.engine.keys import Cell, LayerKey
from cka_widget.widgets.cell_scores import cell_scores, particle_map, profiles, within
from cka_widget.widgets.charts import _centred
from cka_widget.widgets.drilldown import ASKED_FOR, DrillDown


class FakeResult:
    """Layers x particles of scores, as a CKAResult answers for them."""

    def __init__(self, sizes, layers=("conv", "block", "fc"), odd=None, seed=0):
        self.sizes, self.names, self.warnings, self.samples = sizes, list(layers), (), 640
        rng = np.random.default_rng(seed)
        self.keys = [(m, p, l) for m, n in sizes.items() for p in range(n) for l in layers]
        depth = np.array([self.names.index(l) for _, _, l in self.keys])
        base = (
            0.85
            - 0.15 * np.abs(depth[:, None] - depth)
            + 0.01 * rng.standard_normal((len(depth),) * 2)
        )
        for i, (m, p, _) in enumerate(self.keys):
            if odd == (m, p):
                base[i, :] = base[:, i] = 0.2
        self.table = (base + base.T) / 2
        np.fill_diagonal(self.table, 1.0)

    models = property(lambda self: tuple(self.sizes))

    def layers(self, model):
        return self.names

    def n_particles(self, model):
        return self.sizes[model]

    def particles(self, a, b, *, row, col):
        def pick(model, layer):
            return [i for i, (m, _, l) in enumerate(self.keys) if (m, l) == (model, layer)]

        return pd.DataFrame(self.table[np.ix_(pick(a, row), pick(b, col))])

    def particles_along(self, a, b, *, row):
        return np.stack([self.particles(a, b, row=row, col=col) for col in self.names], -1)

    def particles_stderr(self, a, b, *, row, col):
        return self.particles(a, b, row=row, col=col) * 0 + 0.01

    def _over(self, a, b, reduce):
        out = np.zeros((len(self.names),) * 2)
        for r, row in enumerate(self.names):
            for c, col in enumerate(self.names):
                block = self.particles(a, b, row=row, col=col).to_numpy()
                own = a == b and len(block) > 1
                keep = ~np.eye(len(block), dtype=bool) if own else np.ones_like(block, bool)
                out[r, c] = reduce(block[keep])
        return pd.DataFrame(out, self.names, self.names)

    def matrix(self, a, b):
        return self._over(a, b, np.mean)

    def spread(self, a, b):
        return self._over(a, b, np.std)

    def stderr(self, a, b):
        return self.matrix(a, b) * 0 + 0.0213

    def null(self, a, b):
        return self.matrix(a, b) * 0 + 0.0123

    def above_chance(self, a, b):
        return self.matrix(a, b) > 0.5

    def why(self, a, b, row, col):
        return f"{a} {row}: never ran"


def cell(a, row, b, col):
    return Cell(LayerKey(a, row), LayerKey(b, col))


ENSEMBLES = {"wide": 4, "deep <b>": 5}


@pytest.fixture
def result():
    return FakeResult(ENSEMBLES, odd=("deep <b>", 3))


def shown(drill):
    return {name for name, p in drill._panels.items() if "cka-folded" not in p._dom_classes}


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
    groups = within(result, cell("wide", "block", "deep <b>", "fc"))
    assert [len(group.scores) for group in groups] == [6, 10]
    assert within(result, cell("wide", "block", "wide", "fc")) == []


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


def test_panel_names_cell_score_pairs_and_the_odd_one_as_text_not_markup(result):
    drill = DrillDown()
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    value = result.matrix("wide", "deep <b>").at["block", "fc"]
    assert f"<strong>{value:.3f}</strong>" in drill.header.value
    assert "± 0.021" in drill.header.value
    assert "20 particle pairs" in drill.header.value
    assert "deep &lt;b&gt; #3" in drill.odd.value
    assert "is the odd one out" in drill.odd.value
    assert "<b>deep <b>" not in drill.odd.value + drill.table.value
    assert drill.matrix.shape == [4, 5]
    assert drill.matrix.flag_cols == [3]
    assert shown(drill) == {"matrix", "pairs", "col", "row", "plane", "table"}


@pytest.mark.parametrize(("level", "words"), [(0.8, "above chance"), (0.1, "not above chance")])
def test_chance_is_said_in_words(level, words):
    result = FakeResult({"a": 1, "b": 1})
    result.table[:] = level
    drill = DrillDown()
    drill.show(result, cell("a", "fc", "b", "fc"))
    assert f">{words} (null 0.000 ± 0.012)" in drill.header.value


def test_agreement_is_said_in_words():
    drill = DrillDown()
    drill.show(FakeResult({"wide": 4, "deep": 5}), cell("wide", "fc", "deep", "fc"))
    assert "No particle stands out: pairs lie between" in drill.odd.value
    assert drill.matrix.flag_rows == drill.matrix.flag_cols == []


def test_ordering_by_similarity_moves_the_odd_one_to_the_end_and_back(result):
    drill = DrillDown()
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    drill.sort.value = True
    assert drill.matrix.col_labels[-1] == "#3"
    assert drill.matrix.flag_cols == [4]
    np.testing.assert_allclose(drill.matrix.array()[:, 4], 0.2, atol=1e-6)
    drill.sort.value = False
    assert drill.matrix.col_labels == ["#0", "#1", "#2", "#3", "#4"]


def test_single_models_show_profiles_and_the_error_bar():
    drill = DrillDown()
    drill.show(FakeResult({"a": 1, "b": 1}), cell("a", "block", "b", "fc"))
    assert shown(drill) == {"col", "row"}
    assert "± 0.021" in drill.header.value
    assert "particle" not in drill.header.value
    assert not drill.charts["col"].each.visible


def test_an_undefined_cell_says_why():
    result = FakeResult({"a": 1, "b": 1})
    result.table[:] = np.nan
    drill = DrillDown()
    drill.show(result, cell("a", "block", "b", "fc"))
    assert "undefined" in drill.header.value
    assert "a block: never ran" in drill.header.value
    assert shown(drill) == set(), "charts without a score"
    result = FakeResult({"a": 1, "b": 1})
    result.table[1] = result.table[:, 1] = np.nan  # a's block
    drill.show(result, cell("a", "block", "b", "fc"))
    assert shown(drill) == {"row"}
    assert not drill.charts["row"].here.visible


@pytest.mark.parametrize("sizes", [{"a": 1, "b": 2}, {"a": 2, "b": 2}, {"a": 3, "b": 1}, {"a": 9}])
def test_every_mix_of_sizes_and_one_layer_models_can_be_drawn(sizes):
    names = list(sizes)
    drill = DrillDown()
    for layers in (("only",), ("conv", "fc")):
        result = FakeResult(sizes, layers)
        for row in layers:
            for col in layers:
                drill.show(result, cell(names[0], row, names[-1], col))
    assert "matrix" in shown(drill)


def test_charts_keep_their_figures_and_marks(result):
    drill = DrillDown()
    where = cell("wide", "block", "deep <b>", "fc")
    drill.show(result, where)
    before = [mark.model_id for mark in drill.charts["col"].figure.marks]
    drill.show(result, cell("wide", "fc", "deep <b>", "conv"))
    assert [mark.model_id for mark in drill.charts["col"].figure.marks] == before


def test_the_map_keeps_distances_and_fills_its_plane():
    coords = np.array([[3.0, 1.0], [5.0, 1.5], [np.nan, np.nan], [4.0, 0.5]])
    placed = _centred(coords, 1.9)
    assert np.isnan(placed[2]).all()
    known = [0, 1, 3]
    apart, kept = (np.linalg.norm(x[known] - x[known][:, None], axis=-1) for x in (coords, placed))
    np.testing.assert_allclose(kept, apart * (kept[0, 1] / apart[0, 1]))
    assert (np.abs(placed[known]) <= [1.9 / 1.25 + 1e-9, 1 / 1.25 + 1e-9]).all()
    assert np.isclose(np.abs(placed[known]).max(0), [1.9 / 1.25, 1 / 1.25]).any()
    assert np.isfinite(_centred(np.zeros((2, 2)), 1.9)).all()


def test_charts_are_made_when_they_are_needed_and_once():
    drill = DrillDown()
    assert drill.charts == {}
    made = drill.prepare(0)
    assert set(drill.charts) == {"col", "row"}
    assert all(figure in (*drill._panels["col"].children, *drill._panels["row"].children)
               for figure in made)  # fmt: skip
    assert len(drill.prepare(3)) == 2
    assert drill.charts["pairs"].figure in drill._panels["pairs"].children
    assert drill.charts["pairs"].figure.layout.height == "156px"
    assert drill.prepare(3) == []


def test_what_was_prepared_keeps_its_size_at_the_first_click(result):
    drill, sizes = DrillDown(), []
    drill.prepare(3)
    drill.charts["pairs"].figure.layout.observe(
        lambda change: sizes.append(change["new"]), "height"
    )
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    assert sizes == []
    drill.show(result, cell("wide", "block", "wide", "fc"))
    assert sizes == ["88px"]


def test_a_folded_table_is_not_worked_out(result):
    drill = DrillDown()
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    assert drill.table.value == ASKED_FOR
    drill.folded.selected_index = 0
    assert drill.table.value.count("<tr") == 21
    drill.show(result, cell("wide", "fc", "wide", "fc"))
    assert drill.table.value.count("<tr") == 7
    drill.folded.selected_index = None
    assert drill.table.value == ASKED_FOR


@sends_without_kernel
def test_another_cell_sends_few_messages(result, monkeypatch):
    drill, sent = DrillDown(), []
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    monkeypatch.setattr(
        "ipywidgets.Widget._send", lambda self, message, buffers=None: sent.append(self)
    )
    drill.show(result, cell("wide", "fc", "deep <b>", "conv"))
    assert 0 < len(sent) <= 20
    assert len(sent) == len(set(sent)), "a widget hears of a cell in one message"
    sent.clear()
    drill.show(result, cell("wide", "fc", "deep <b>", "conv"))
    assert sent == [drill.matrix], "its version rises with each write"


def test_no_cell_leaves_a_sentence(result):
    drill = DrillDown()
    assert "Nothing to show yet" in drill.header.value
    drill.show(result, cell("wide", "fc", "wide", "fc"))
    drill.clear()
    assert "No cell selected" in drill.header.value
    assert shown(drill) == set()


def test_several_odd_ones_are_counted_and_their_scores_pooled():
    result = FakeResult({"a": 4, "b": 16})
    for i, (model, particle, _) in enumerate(result.keys):
        if model == "b" and particle in (2, 6, 10, 14):
            result.table[i, :] = result.table[:, i] = 0.2
    drill = DrillDown()
    drill.show(result, cell("a", "fc", "b", "fc"))
    assert "b #2</b>, <b>b #6</b>, <b>b #10</b> and 1 more stand out: 0.20" in drill.odd.value
    assert "the others have 0.85" in drill.odd.value
