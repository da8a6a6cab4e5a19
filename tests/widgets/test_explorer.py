"""CKAExplorer without a page: before a run, its traits, and what its views are told."""

import base64
import threading
import time

import numpy as np
import pytest
import torch
import traitlets
from explorers import CELL, Net, Slow, ensembles, explore, hidden, until
from torch import nn

import cka_widget as cw
from cka_widget.widgets import explorer as explorer_module


# before the run -----------------------------------------------------------------------------------
def test_before_the_first_run_it_says_what_will_be_computed():
    explorer = explore(ensembles())
    plan = explorer._views.plan.value
    assert explorer.state == "idle"
    assert explorer.result is None
    assert not hidden(explorer._views.empty)
    assert hidden(explorer._views.result)
    for words in ("Ready to compare", "3 rows × 3 columns", "3 and 4", "256 samples", "about"):
        assert words in plan
    assert explorer._views.pickers["A"].particles == 3


def test_modules_that_never_ran_and_aliases_are_not_ticked():
    explorer = explore()
    assert explorer.layers["A"] == ["body", "body.0", "head"]
    status = {n["name"]: n["status"] for n in explorer.pickers["A"].nodes}
    assert status["spare"] == "never ran"
    assert status["body.1"] == "alias"


def test_construction_uses_nothing_up():
    model = Net().train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    explore({"A": model}, [torch.randn(32, 6)])
    torch.manual_seed(7)
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_shuffled_data_loader_draws_the_same_batches_as_without_the_explorer():
    data = torch.utils.data.TensorDataset(torch.randn(64, 6))
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    torch.manual_seed(3)
    expected = torch.cat([batch for (batch,) in loader])
    models = {"A": Net()}
    torch.manual_seed(3)
    explore(models, loader)
    assert torch.equal(torch.cat([batch for (batch,) in loader]), expected)


def test_a_one_shot_iterator_keeps_its_first_batch():
    explorer = explore(loader=iter(Slow(6)))
    explorer.run(block=True)
    assert explorer.result.samples == 6 * 32


def test_a_choice_of_layers_and_a_misspelt_one():
    explorer = explore(layers={"A": ["head"], "B": "body.*"})
    assert explorer.layers["A"] == ["head"]
    explorer.run(block=True)
    assert explorer.result.layers("A") == ["head"]
    with pytest.raises(ValueError, match="did you mean"):
        explore(layers={"A": ["haed"]})


# what is on screen --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished():
    explorer = explore(ensembles())
    explorer.run(block=True)
    return explorer


def test_selection_goes_both_ways_between_names_and_indices(finished):
    finished.pair = ("A", "B")
    finished.selection = CELL
    rows, cols = finished.heatmap.row_labels, finished.heatmap.col_labels
    assert finished.heatmap.selected == [rows.index("head"), cols.index("body.0")]
    finished.heatmap.set_state({"selected": [1, 2]})
    assert finished.selection == cw.Cell(cw.LayerKey("A", rows[1]), cw.LayerKey("B", cols[2]))
    assert rows[1] in finished._views.drill.header.value
    finished.heatmap.set_state({"selected": []})
    assert finished.selection is None
    assert "No cell selected" in finished._views.drill.header.value


def test_hover_is_told_in_names(finished):
    finished.pair = ("A", "B")
    finished.heatmap.set_state({"hovered": [0, 1]})
    assert finished.hover.row.model == "A"
    finished.heatmap.set_state({"hovered": []})
    assert finished.hover is None


def test_plain_tuples_do_and_unknown_names_do_not(finished):
    finished.selection = (("A", "head"), ("B", "head"))
    assert isinstance(finished.selection, cw.Cell)
    with pytest.raises(traitlets.TraitError, match='did you mean "head"'):
        finished.selection = (("A", "haed"), ("B", "head"))
    with pytest.raises(traitlets.TraitError, match="no model"):
        finished.selection = (("Z", "head"), ("B", "head"))
    with pytest.raises(traitlets.TraitError, match="a selection is"):
        finished.selection = [1, 2]
    finished.selection = None


def test_selecting_within_one_ensemble_turns_the_page(finished):
    finished.selection = (("B", "head"), ("B", "body.0"))
    assert finished.pair == ("B", "B")
    assert finished.heatmap.row_name == finished.heatmap.col_name == "B"
    assert finished.heatmap.row_color == finished.heatmap.col_color == "b"
    assert "12 particle pairs" in finished._views.drill.header.value
    finished.pair, finished.selection = ("A", "B"), None


def test_a_cell_of_another_pair_comes_back_with_its_pair(finished):
    finished.pair, finished.selection = ("A", "B"), CELL
    header = finished._views.drill.header
    assert "body.0" in header.value
    finished.pair = ("B", "B")
    assert "No cell selected" in header.value
    assert finished.heatmap.selected == []
    finished.pair = ("A", "B")
    assert "body.0" in header.value
    finished.selection = None


def test_no_layer_ticked_says_whose(finished):
    before = finished.layers
    finished.layers = {"A": []}
    assert finished.heatmap.reason == 'No layer of "A" is ticked'
    finished.layers = before
    assert finished.heatmap.reason == ""


def test_modules_alone_are_compared_by_their_outputs():
    explorer = explore({"one": nn.Linear(6, 3), "net": Net()})
    assert explorer.layers["one"] == ["(output)"]
    assert "1 row" in explorer._views.plan.value
    explorer.run(block=True)
    assert explorer.heatmap.row_labels == ["(output)"]
    explorer.selection = (("one", "(output)"), ("net", "head"))
    assert explorer.heatmap.selected == [0, explorer.heatmap.col_labels.index("head")]
    explorer.layers = {"one": []}
    with pytest.raises(ValueError, match='tick at least one layer of "one"'):
        explorer.run()
    explorer.layers = {"one": ["(output)"]}
    explorer.run(block=True)
    assert explorer.result.layers("one") == ["(output)"]


def test_statistic_shows_mean_spread_and_error(finished):
    finished.pair = ("A", "B")
    for statistic, frame in (("spread", "spread"), ("stderr", "stderr"), ("mean", "matrix")):
        finished.statistic = statistic
        expected = getattr(finished.result, frame)("A", "B")
        np.testing.assert_allclose(finished.heatmap.array(), expected, atol=1e-6)
        assert finished._views.toolbar.statistic.value == statistic
    assert not finished.heatmap.auto_range


def test_single_models_have_no_spread():
    explorer = explore()
    with pytest.raises(traitlets.TraitError, match="is that of ensembles"):
        explorer.statistic = "spread"
    assert explorer.statistic == explorer._views.toolbar.statistic.value == "mean"


def test_the_statistics_old_name_works_with_a_warning(finished):
    told = []
    with pytest.warns(FutureWarning, match='"metric" is called "statistic" now') as warned:
        finished.metric = "spread"
    assert len(warned) == 1
    assert warned[0].filename == __file__
    with pytest.warns(FutureWarning) as warned:
        assert finished.metric == finished.statistic == "spread"
    assert [one.filename for one in warned] == [__file__]
    with pytest.warns(FutureWarning) as warned:
        finished.observe(told.append, "metric")
    assert [one.filename for one in warned] == [__file__]
    finished.statistic = "mean"
    assert [(change["name"], change["new"]) for change in told] == [("metric", "mean")]
    finished.unobserve(told.append, "metric")
    with pytest.warns(FutureWarning), pytest.raises(traitlets.TraitError, match="statistic"):
        finished.metric = "median"


def test_the_statistic_can_be_chosen_at_first_also_by_its_old_name():
    assert explore(ensembles(), statistic="spread").statistic == "spread"
    with pytest.warns(FutureWarning, match='"metric"') as warned:
        explorer = explore(ensembles(), metric="stderr")
    # Older traitlets have warnings of their own.
    assert [w.category for w in warned].count(FutureWarning) == 1
    assert explorer.statistic == explorer._views.toolbar.statistic.value == "stderr"


def test_a_turned_pair_has_no_button_and_each_button_turns_it_back(finished):
    finished.pair = ("B", "A")
    assert finished._views.toolbar.pair.value is None
    assert finished.heatmap.row_name == "B"
    finished._views.toolbar.pair.value = ("A", "B")
    assert finished.pair == ("A", "B")


def test_best_match_and_range_are_those_of_cka(finished):
    bar = finished._views.toolbar
    bar.best.value = True
    finished.statistic = "stderr"
    assert bar.best.disabled
    assert bar.range.disabled
    assert not finished.heatmap.best_match
    finished.statistic = "spread"
    finished.statistic = "mean"
    assert finished.heatmap.best_match
    assert not (bar.best.disabled)
    assert not (bar.range.disabled)
    bar.best.value = False


def test_unticking_hides_rows_at_once_and_ticking_brings_them_back(finished):
    finished.pair, everything = ("A", "B"), finished.layers
    rows = list(finished.heatmap.row_labels)
    finished._views.pickers["A"].set_state({"checked": ["head"]})
    assert finished.heatmap.row_labels == ["head"]
    assert finished.heatmap.shape[0] == 1
    finished.layers = {"A": ["head", "spare"]}
    assert finished.heatmap.row_labels == ["head", "spare"]
    assert np.isnan(finished.heatmap.array()[1]).all()
    assert finished.heatmap.row_reasons == ["", "never ran"]
    assert "A spare: never ran" in finished._views.legend.value
    assert finished._views.pickers["A"].checked == ["head", "spare"]
    finished.layers = everything
    assert finished.heatmap.row_labels == rows
    assert finished._views.legend.value == ""


def test_two_explorers_linked_move_together(finished):
    other = explore(ensembles())
    other.run(block=True)
    link = traitlets.link((finished, "selection"), (other, "selection"))
    finished.selection = (("A", "head"), ("B", "head"))
    assert other.selection == finished.selection
    other.heatmap.set_state({"selected": [0, 0]})
    assert finished.selection == other.selection
    assert finished.heatmap.selected == [0, 0]
    link.unlink()
    finished.selection = None


def test_theme_reaches_every_view(finished):
    finished.theme = "dark"
    views = finished._views
    assert {views.heatmap.theme, views.drill.matrix.theme} == {"dark"}
    assert {picker.theme for picker in finished.pickers.values()} == {"dark"}
    finished.theme = "auto"


def test_one_entry_is_compared_with_itself_and_three_by_two():
    alone = explore({"E": [Net(seed=i) for i in range(3)]})
    assert alone.pair == ("E", "E")
    assert "itself" in alone._views.header.title.value
    alone.run(block=True)
    assert alone.heatmap.row_name == alone.heatmap.col_name == "E"
    three = explore({name: Net(seed=i) for i, name in enumerate("ABC")})
    three.run(block=True)
    assert three.pair == ("A", "B")
    three._views.toolbar.cols.value = "C"
    assert three.pair == ("A", "C")
    assert three.heatmap.col_name == "C"
    assert list(three._views._column.children) == [three.pickers["A"], three.pickers["C"]]


def test_each_model_keeps_its_colour():
    explorer = explore({name: Net(seed=i) for i, name in enumerate("ABCDEF")})
    colors = dict(zip("ABCDEF", "abcdea", strict=True))
    for pair in ("AB", "BA", "CE", "EC", "DF", "DD"):
        explorer.pair = tuple(pair)
        title = explorer._views.header.title.value
        assert [explorer.pickers[name].color for name in pair] == [colors[name] for name in pair]
        assert f'cka-{colors[pair[0]]}"><span>{pair[0]}<' in title


def test_names_are_text_never_markup():
    explorer = explore({"<img src=x>": Net(), "b & c": Net(seed=1)})
    explorer.run(block=True)
    explorer.selection = (("<img src=x>", "head"), ("b & c", "head"))
    views = explorer._views
    written = views.header.title.value + views.drill.header.value + views.legend.value
    assert "<img" not in written
    assert "&lt;img src=x&gt;" in written


def test_a_picture_stands_where_there_is_no_front_end(finished):
    assert "image/png" not in explore()._repr_mimebundle_()
    bundle = finished._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"].startswith("CKAExplorer: A against B, done, 256 samples")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_export_writes_files_and_overwrites_none(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    menu = finished._views.menu
    for button in menu._buttons * 2:
        button.click()
        menu.wait()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"cka.png", "cka-2.png", "cka.svg", "cka.csv", "cka-2.csv"} <= names
    assert "wrote" in menu.message.value
    assert "cka" in (tmp_path / "cka.csv").read_text()


# threads ------------------------------------------------------------------------------------------
def test_page_and_publisher_may_write_at_the_same_time():
    """Clicks arrive on another thread while the run publishes: no update may be lost."""
    explorer = explore(ensembles(), Slow(400, 0.0005))
    explorer.run()
    until(lambda: explorer.heatmap.version > 0)
    errors, stop = [], threading.Event()

    def click():
        rng = np.random.default_rng(0)
        try:
            while not stop.is_set():
                rows, cols = explorer.heatmap.shape
                cell = [int(rng.integers(rows)), int(rng.integers(cols))]
                explorer.heatmap.set_state({"selected": cell, "hovered": cell})
                assert explorer.heatmap.selected == cell
                time.sleep(0.002)
        except Exception as error:
            errors.append(error)

    clicker = threading.Thread(target=click)
    clicker.start()
    state = explorer.wait(180)  # against threads that wait for each other, not a claim of speed
    stop.set()
    clicker.join(10)
    assert errors == []
    assert state == "done"
    np.testing.assert_allclose(
        explorer.heatmap.array(), explorer.result.matrix("A", "B"), atol=1e-6
    )
    row, col = explorer.heatmap.selected
    assert explorer.selection.row.layer == explorer.heatmap.row_labels[row]
    assert explorer.selection.col.layer == explorer.heatmap.col_labels[col]


def test_on_colab_the_run_blocks(monkeypatch):
    monkeypatch.setattr(explorer_module, "_on_colab", lambda: True)
    explorer = explore()
    explorer.run()
    assert explorer.state == "done"


def test_undefined_rows_are_named_with_their_reason_under_the_heatmap():
    class Dead(Net):
        def forward(self, x):
            return super().forward(x) * 0 + self.body[0](x)[:, :3] * 0

    dead = nn.Sequential(nn.Linear(6, 4), Dead((4, 4, 4)))
    explorer = explore({"A": dead, "B": Net()})
    explorer.run(block=True)
    legend = explorer._views.legend.value
    assert "undefined cells" in legend
    assert "always the same output" in legend
    explorer.selection = (("A", "1"), ("B", "head"))
    assert "always the same output" in explorer._views.drill.header.value


def test_one_reason_for_all_layers_is_said_once():
    explorer = explore({"A": Net(), "B": Net()}, loader=[torch.randn(3, 6)])
    explorer.run(block=True)
    legend = explorer._views.legend.value
    assert "(all layers: " in legend
    assert legend.count("sample") == 1


def test_an_alias_shows_the_row_that_has_its_output(finished):
    finished.pair, everything = ("A", "B"), finished.layers
    finished.layers = {"A": ["body.1"]}
    assert finished.heatmap.row_labels == ["body"]
    finished.selection = (("A", "body.1"), ("B", "head"))
    assert finished.selection.row.layer == "body"
    finished.selection = None
    finished.layers = everything


def test_the_goal_can_be_chosen_on_the_page_and_in_python():
    explorer = explore(stop_at_stderr=0.033)
    goal = explorer._views.header.goal
    assert goal.value == 0.033
    goal.value = 0.05
    assert explorer.stop_at_stderr == 0.05
    explorer.stop_at_stderr = None
    assert (goal.value, goal.index) == (0.0, 0)
    assert (explore()._views.header.goal.index, explore().stop_at_stderr) == (0, None)
    with pytest.raises(traitlets.TraitError, match="above 0"):
        explorer.stop_at_stderr = -1.0


def test_a_run_that_fails_at_once_says_that_nothing_was_computed():
    explorer = explore({"A": Net(broken_after=0), "B": Net(seed=1)})
    explorer.run(block=True)
    assert explorer.state == "failed"
    assert "Nothing was computed" in explorer._views.plan.value
    assert hidden(explorer._views.header.export)
