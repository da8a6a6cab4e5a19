"""The drill-down of one cell: what the widgets are told."""

import numpy as np
import pytest
from explorers import sends_without_kernel
from fake_result import ENSEMBLES, FakeResult, cell

from cka_widget.widgets.drilldown.charts import GAP, LETTERS, NAMES, _centred, _fit
from cka_widget.widgets.drilldown.drilldown import ASKED_FOR, DrillDown
from cka_widget.widgets.look.style import color


@pytest.fixture
def result():
    return FakeResult(ENSEMBLES, odd=("deep <b>", 3))


def shown(drill):
    return {name for name, p in drill._panels.items() if "cka-folded" not in p._dom_classes}


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


@pytest.mark.parametrize("level", [0.8, 0.1])
@pytest.mark.parametrize("classes", [0, 1, 10])
def test_above_chance_of_labelled_data_may_be_the_classes(level, classes):
    result = FakeResult({"a": 1, "b": 1})
    result.table[:] = level
    result.provenance = {"classes": classes}
    drill = DrillDown()
    drill.show(result, cell("a", "fc", "b", "fc"))
    told = "both layers tell the classes apart" in drill.header.value
    assert told == (level == 0.8 and classes == 10)


def test_layers_that_are_numbers_are_told_with_their_model():
    drill = DrillDown()
    drill.show(FakeResult({"a": 1, "b": 1}, layers=("0", "fc")), cell("a", "0", "b", "fc"))
    assert ">a 0</b>" in drill.header.value
    assert ">fc</b>" in drill.header.value


def test_of_three_it_is_said_what_can_be_seen():
    drill, result = DrillDown(), FakeResult({"<i>": 3, "b": 3})
    own = [i for i, (model, _, _) in enumerate(result.keys) if model == "<i>"]
    for at, fall in ((own[3:6], 0.3), (own[:3], 0.1)):  # all layers of #1 and of #0
        rest = [i for i in range(len(result.keys)) if i not in at]
        result.table[np.ix_(at, rest)] -= fall
        result.table[np.ix_(rest, at)] -= fall
    seen = "agree more with each other than with #1; three particles are too few to call one odd."
    drill.show(result, cell("<i>", "fc", "<i>", "fc"))
    assert f"#0 and #2 {seen}" in drill.odd.value
    drill.show(result, cell("<i>", "fc", "b", "fc"))
    assert "&lt;i&gt; #1 agrees less with b than #0 and #2 do; three" in drill.odd.value
    assert "cka-alarm" not in drill.odd.value
    assert drill.matrix.flag_rows == drill.matrix.flag_cols == []


def test_agreement_is_said_in_words():
    drill = DrillDown()
    drill.show(FakeResult({"wide": 4, "deep": 5}), cell("wide", "fc", "deep", "fc"))
    assert "No single particle stands out: pairs lie between" in drill.odd.value
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


def test_an_order_is_offered_from_three_particles_on():
    drill = DrillDown()
    for sizes, offered in (({"a": 2, "b": 2}, False), ({"a": 2, "b": 3}, True)):
        drill.sort.value = False
        result = FakeResult(sizes)
        drill.show(result, cell("a", "fc", "b", "fc"))
        assert ("cka-hidden" not in drill.sort._dom_classes) == offered
        drill.sort.value = True
        assert len(drill.matrix.row_labels) == 2
    drill.show(FakeResult({"a": 2, "b": 2}), cell("a", "fc", "b", "fc"))
    assert drill.matrix.col_labels == ["#0", "#1"], "an order that cannot be undone"


def test_names_of_lanes_fit_whatever_their_length():
    assert _fit("shallow CNN") == "shallow CNN"
    for name in ("W" * 30, "模型" * 12, "a rather long name of an ensemble", "i" * 80):
        cut = _fit(name)
        assert "…" in cut
        assert len(cut) > 4
        assert len(cut) * 0.65 * LETTERS <= NAMES - GAP


def test_the_odd_one_is_named_at_its_curve_and_in_its_own_ensemble(result):
    drill = DrillDown()
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    pairs, along, other = (drill.charts[name] for name in ("pairs", "col", "row"))
    assert list(pairs.names.text) == ["between", "wide", "deep <b>"]
    assert len({str(tint) for tint in pairs.names.colors}) == 3, "in the models' colours"
    assert list(along.name.text) == ["deep <b> #3"]
    assert along.name.visible
    assert not other.name.visible
    assert len(pairs.odd.x) == 4 + 4, "its pairs with the others of its ensemble are odd too"
    assert len(pairs.inner[1].x) == 6
    drill.show(FakeResult(ENSEMBLES), cell("wide", "block", "deep <b>", "fc"))
    assert not along.name.visible
    assert not pairs.odd.visible


def test_all_charts_follow_the_verdict_of_the_cell(result):
    """A particle that is odd inside its ensemble alone is coloured there, and nowhere else."""
    rows = [i for i, (model, _, _) in enumerate(result.keys) if model == "deep <b>"]
    cols = [i for i, (model, _, _) in enumerate(result.keys) if model == "wide"]
    result.table[np.ix_(rows, cols)] = result.table[np.ix_(cols, rows)] = 0.8
    drill = DrillDown()
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    pairs, along, plane = (drill.charts[name] for name in ("pairs", "col", "plane"))
    orange = color("odd")
    assert "No single particle stands out" in drill.odd.value
    assert not pairs.odd.visible
    assert not along.odd.visible
    assert orange not in [tint for group in plane.groups for tint in group.colors]
    assert drill.matrix.flag_cols == []
    drill.show(result, cell("deep <b>", "fc", "deep <b>", "fc"))
    assert "deep &lt;b&gt; #3" in drill.odd.value
    assert list(plane.groups[0].colors).count(orange) == 1
    assert drill.matrix.flag_cols == [3]
    assert len(pairs.odd.x) == 4


def test_charts_are_told_in_words(result):
    drill = DrillDown()
    drill.show(result, cell("wide", "block", "deep <b>", "fc"))
    assert "20 pair scores from 0.2" in drill.header.value
    assert "along deep &lt;b&gt;&#x27;s depth highest at " in drill.header.value
    drill.show(FakeResult({"a": 1, "b": 1}), cell("a", "block", "b", "fc"))
    assert "pair scores" not in drill.header.value


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
