"""Several measures in one explorer: the one that is chosen is what the screen tells of."""

import json
import re

import numpy as np
import pytest
import traitlets
from explorers import CELL, Net, Slow, ensembles, explore

import cka_widget as cw
from cka_widget.widgets.elements.export_menu import _page
from cka_widget.widgets.look.format import plus_minus

MEASURES = ["cka", "rsa", cw.MutualKNN(k=3)]
NAMES = ("cka", "rsa", "mutual_knn")
CHANCE = 3 / 31  # k / (m - 1) in batches of 32


@pytest.fixture(scope="module")
def finished():
    explorer = explore(ensembles(), measures=MEASURES)
    explorer.run(block=True)
    return explorer


def in_toolbar(explorer):
    what = explorer._views.toolbar.children[0]
    return explorer._views.toolbar.measure in what.children


def test_the_chosen_measure_is_on_screen(finished):
    names = []
    for measure in (*NAMES, "cka"):
        finished.measure = measure
        assert finished._views.toolbar.measure.value == measure
        for statistic, frame in (("spread", "spread"), ("stderr", "stderr"), ("mean", "matrix")):
            finished.statistic = statistic
            expected = getattr(finished.result, frame)("A", "B", measure=measure)
            np.testing.assert_allclose(finished.heatmap.array(), expected, atol=1e-6)
        errors = finished.result.stderr("A", "B", measure=measure)
        np.testing.assert_allclose(finished.heatmap.stderr_array(), errors, atol=1e-6)
        names.append(finished.heatmap.value_name)
    assert names == ["CKA", finished.result.of("rsa").measure.title, "mutual 3-NN", "CKA"]


def test_the_toolbar_offers_several_and_not_one(finished):
    assert in_toolbar(finished)
    assert [name for _, name in finished._views.toolbar.measure.options] == list(NAMES)
    finished._views.toolbar.measure.value = "rsa"
    assert finished.measure == "rsa"
    finished.measure = ""
    assert finished.measure == "cka"
    alone = explore()
    assert not in_toolbar(alone)
    assert alone.measure == "cka"


def test_the_colour_bar_says_which_and_what_chance_gives(finished):
    heatmap = finished.heatmap
    finished.measure = "mutual_knn"
    assert heatmap.bar_title == "mutual 3-NN (by chance .097)"
    assert heatmap.chance == pytest.approx(CHANCE)
    finished.statistic = "spread"
    assert heatmap.bar_title == "spread of mutual 3-NN"
    assert heatmap.chance is None
    finished.statistic, finished.measure = "mean", "cka"
    assert (heatmap.bar_title, heatmap.chance) == ("CKA", None)


def test_cka_alone_goes_without_a_title():
    explorer = explore()
    explorer.run(block=True)
    assert (explorer.heatmap.bar_title, explorer.heatmap.chance) == ("", None)
    explorer.statistic = "stderr"
    assert explorer.heatmap.bar_title == "standard error of CKA"


def test_the_drill_down_and_the_state_line_follow(finished):
    finished.selection = CELL
    for measure in NAMES:
        finished.measure = measure
        value = finished.result.matrix("A", "B", measure=measure).loc["head", "body.0"]
        header = finished._views.drill.header.value
        assert f"{value:.2f}" in header
        assert ("above chance" in header) == (measure == "cka")  # only there chance is known
        worst = finished.result.stderr("A", "B", measure=measure).to_numpy().max()
        assert plus_minus(worst) in finished._views.line.line.value
    finished.selection, finished.measure = None, "cka"


def test_an_unknown_measure_is_refused_with_the_nearest(finished):
    with pytest.raises(traitlets.TraitError, match='did you mean "mutual_knn"'):
        finished.measure = "mutual_nn"
    assert finished.measure == finished._views.toolbar.measure.value == "cka"
    with pytest.raises(traitlets.TraitError, match="there are cka, rsa, mutual_knn"):
        finished.measure = "qqq"


def test_unknown_measures_are_refused_when_the_explorer_is_made():
    with pytest.raises(ValueError, match='did you mean "rsa"'):
        explore(measures=["cka", "rsb"])
    with pytest.raises(TypeError, match='did you mean "measures"'):
        explore(measure="rsa")


def test_a_choice_before_the_run_holds_after_it_and_after_the_next():
    explorer = explore(measures=MEASURES)
    explorer.measure = "rsa"
    for _ in range(2):
        explorer.run(block=True)
        assert explorer.measure == "rsa"
        expected = explorer.result.matrix("A", "B", measure="rsa")
        np.testing.assert_allclose(explorer.heatmap.array(), expected, atol=1e-6)


def test_more_layers_and_more_data_keep_every_measure():
    explorer = explore(measures=MEASURES, more_data=Slow(3))
    everything = explorer.layers
    explorer.layers = {"A": ["head"], "B": ["head"]}
    explorer.measure = "mutual_knn"
    explorer.run(block=True)
    explorer.add_data(block=True)
    assert explorer.result.samples == 11 * 32
    explorer.layers = everything
    explorer.run(block=True)
    for measure in NAMES:
        explorer.measure = measure
        at = explorer.heatmap.row_labels.index("head"), explorer.heatmap.col_labels.index("head")
        shown = explorer._known.run_of(cw.Cell(cw.LayerKey("A", "head"), cw.LayerKey("B", "head")))
        expected = shown.result.matrix("A", "B", measure=measure).loc["head", "head"]
        assert explorer.heatmap.array()[at] == pytest.approx(expected, abs=1e-6)


def test_before_the_run_it_says_what_is_computed():
    assert "centered kernel alignment (CKA)" in explore()._views.plan.value
    several = explore(measures=MEASURES)
    assert "3 measures: CKA; RSA" in several._views.plan.value
    assert several._study.setting("cpu") == "cpu · 3 measures"
    assert explore(measures=["cka"])._study.setting("cpu") == "cpu · CKA"


def test_the_goal_is_one_of_the_measure_on_screen():
    explorer = explore(
        {"A": Net(), "B": Net(seed=1)}, Slow(40), measures=["cka", cw.MutualKNN(k=3)]
    )
    explorer.measure = "mutual_knn"
    explorer.stop_at_stderr = 0.02
    explorer.run(block=True)
    assert explorer.state == "done"
    assert explorer.result.batches < 40
    assert explorer.result.of("mutual_knn").worst_stderr() <= 0.02


def test_pictures_and_pages_show_the_measure_on_screen(finished):
    finished.measure = "mutual_knn"
    drawing = finished._drawing()
    drawing.canvas.draw()  # the colour bar is an inset, which is no child of the figure
    labels = [inset.get_ylabel() for axes in drawing.axes for inset in axes.child_axes]
    assert labels == ["mutual 3-NN (by chance .097)"]
    page = _page(finished.result, *finished._shown(), finished._study.trees).decode()
    data = json.loads(re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.S)[1])
    assert data["start"]["measure"] == NAMES.index("mutual_knn")
    assert [one["title"] for one in data["measures"]][::2] == ["CKA", "mutual 3-NN"]
    finished.measure = "cka"
