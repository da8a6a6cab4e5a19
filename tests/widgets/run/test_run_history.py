"""Other layers after a run: what was computed stays, and no cell mixes two runs."""

import threading

import numpy as np
import pytest
import torch
from explorers import Net, Slow, ensembles, explore, until
from torch import nn

import cka_widget as cw
from cka_widget.engine.models.layers import split_call
from cka_widget.engine.models.particles import as_passes
from cka_widget.layer_tree import LayerNode, LayerTree
from cka_widget.widgets.comparison import axes as shown_module
from cka_widget.widgets.comparison.axes import in_order
from cka_widget.widgets.run import run_history as known_module
from cka_widget.widgets.run.fingerprint import fingerprint

FEW = {"A": ["body", "head"], "B": ["body", "head"]}
MORE = {"A": ["body", "body.0", "head"], "B": ["body", "head"]}


class Gated(Slow):
    """After some batches, the first by default, it waits for the gate."""

    def __init__(self, batches=8, after=1):
        super().__init__(batches)
        self.after = after
        self.gate = threading.Event()
        self.gate.set()

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == self.after:
                self.gate.wait(30)
            yield batch


def few(models=None):
    """An explorer whose run of few layers has ended, and its loader."""
    loader = Gated()
    explorer = explore(models or ensembles(), loader, layers=FEW)
    explorer.run(block=True)
    return explorer, loader


def run_one_batch(explorer, loader):
    """Run again; comes back, with the result so far, when the first batch is on screen."""
    before = explorer.result
    loader.gate.clear()
    explorer.run(block=False)
    until(lambda: explorer.result is not before)
    with explorer._lock:
        assert explorer.result.batches == 1
        return explorer.result


def end(explorer, loader, how):
    """Open the gate, after a cancel where that is the end."""
    if how == "cancelled":
        explorer.cancel()
    loader.gate.set()
    assert explorer.wait(30) == how


def old_cells(explorer):
    """What is shown of the layers of `FEW`."""
    shown = explorer.heatmap
    rows = [shown.row_labels.index(name) for name in FEW["A"]]
    cols = [shown.col_labels.index(name) for name in FEW["B"]]
    return shown.array()[np.ix_(rows, cols)]


def test_fewer_layers_cut_the_heatmap_without_a_run():
    explorer, loader = few()
    before, given = explorer.heatmap.array().copy(), loader.given
    explorer.layers = {"A": ["head"]}
    np.testing.assert_array_equal(explorer.heatmap.array(), before[1:])
    explorer.layers = FEW
    np.testing.assert_array_equal(explorer.heatmap.array(), before)
    assert loader.given == given
    assert explorer._views.legend.value == ""


def test_more_layers_are_hatched_as_not_computed_beside_what_is_known():
    explorer, loader = few()
    before, given = explorer.heatmap.array().copy(), loader.given
    explorer.layers = MORE
    heatmap = explorer.heatmap
    assert heatmap.row_labels == ["body.0", "body", "head"]
    assert heatmap.row_reasons == ["not computed yet", "", ""]
    assert np.isnan(heatmap.array()[0]).all()
    np.testing.assert_array_equal(old_cells(explorer), before)
    assert loader.given == given
    assert "not computed yet: A body.0. Run again to add it" in explorer._views.legend.value
    heatmap.set_state({"selected": [0, 0]})
    assert explorer.selection == cw.Cell(cw.LayerKey("A", "body.0"), cw.LayerKey("B", "body"))
    assert "Not computed yet" in explorer._views.drill.header.value


def test_a_run_of_more_layers_keeps_the_known_cells_until_it_has_caught_up():
    models = ensembles()
    explorer, loader = few(models)
    before = old_cells(explorer)
    explorer.layers = MORE
    partial = run_one_batch(explorer, loader)
    np.testing.assert_array_equal(old_cells(explorer), before)
    row = explorer.heatmap.row_labels.index("body.0")
    expected = partial.matrix("A", "B").loc["body.0", FEW["B"]]
    np.testing.assert_allclose(explorer.heatmap.array()[row], expected, atol=1e-6)
    legend = explorer._views.legend.value
    assert "4 cells of an earlier run over 256 samples" in legend
    assert "2 cells of the latest run over" in legend
    end(explorer, loader, "done")
    whole = cw.compare(models, Slow(), layers=MORE, progress=False, device="cpu")
    heatmap = explorer.heatmap
    expected = whole.matrix("A", "B").loc[heatmap.row_labels, heatmap.col_labels]
    np.testing.assert_allclose(heatmap.array(), expected, atol=1e-6)
    assert explorer._views.legend.value == ""
    assert len(explorer._known.runs) == 1


def test_a_cancelled_run_leaves_the_known_cells_and_its_own_beside_them():
    explorer, loader = few()
    before, first = old_cells(explorer), explorer.result
    explorer.layers = MORE
    run_one_batch(explorer, loader)
    end(explorer, loader, "cancelled")
    np.testing.assert_array_equal(old_cells(explorer), before)
    assert np.isfinite(explorer.heatmap.array()).all()
    assert explorer.result.samples < first.samples
    known = explorer._known
    old = cw.Cell(cw.LayerKey("A", "head"), cw.LayerKey("B", "head"))
    assert known.run_of(old).result is first
    new = cw.Cell(cw.LayerKey("A", "body.0"), cw.LayerKey("B", "head"))
    assert known.run_of(new).result is explorer.result
    explorer.selection = old
    shown = first.matrix("A", "B").loc["head", "head"]
    assert f"{shown:.2f}"[:3] in explorer._views.drill.header.value
    assert explorer._repr_mimebundle_()["image/png"]


def test_every_other_choice_shows_each_cell_from_a_run_that_had_both_layers():
    explorer, _ = few()
    first = explorer.result
    explorer.layers = {"A": ["body.0"], "B": ["body.0"]}
    explorer.run(block=True)
    second = explorer.result
    explorer.layers = {"A": ["body", "body.0"], "B": ["body", "body.0"]}
    heatmap = explorer.heatmap
    values = heatmap.array()
    at = {name: i for i, name in enumerate(heatmap.row_labels)}
    np.testing.assert_allclose(
        values[at["body"], at["body"]], first.matrix("A", "B").loc["body", "body"], atol=1e-6
    )
    np.testing.assert_allclose(
        values[at["body.0"], at["body.0"]], second.matrix("A", "B").iloc[0, 0], atol=1e-6
    )
    assert np.isnan(values[at["body"], at["body.0"]])
    assert heatmap.reason == "no run has compared these two layers"
    assert "2 cells of layers that no run has together. Run again" in explorer._views.legend.value
    explorer.run(block=True)
    assert np.isfinite(heatmap.array()).all()
    assert heatmap.reason == ""


def test_only_what_the_run_under_way_was_asked_for_is_said_to_come_with_it():
    explorer, loader = few()
    legend = explorer._views.legend
    loader.after = 0
    loader.gate.clear()
    explorer.layers = MORE
    explorer.run(block=False)
    until(lambda: "not computed yet: A body.0. the run under way brings it" in legend.value)
    explorer.layers = {"B": ["body", "body.0", "body.1", "head"]}
    assert "A body.0. the run under way brings it" in legend.value
    later = "B body.0. run again afterwards to add it"
    assert later in legend.value
    end(explorer, loader, "done")
    assert "brings" not in legend.value
    assert later.replace("run again afterwards", "Run again") in legend.value


def test_running_the_same_layers_again_starts_afresh():
    explorer, loader = few()
    partial = run_one_batch(explorer, loader)
    expected = partial.matrix("A", "B")
    np.testing.assert_allclose(explorer.heatmap.array(), expected, atol=1e-6)
    end(explorer, loader, "cancelled")


def test_nothing_is_kept_of_models_that_were_trained_on():
    models = {"A": Net(seed=0), "B": Net(seed=1)}
    explorer, loader = few(models)
    explorer.layers = MORE
    models["A"].head.weight.data.add_(0.5)
    partial = run_one_batch(explorer, loader)
    expected = partial.matrix("A", "B")
    np.testing.assert_allclose(explorer.heatmap.array(), expected, atol=1e-6)
    assert len(explorer._known.runs) == 1
    end(explorer, loader, "cancelled")


def test_more_data_are_refused_where_the_models_were_trained_on():
    models = {"A": Net(seed=0), "B": Net(seed=1)}
    explorer, _ = few(models)
    before, shown = explorer.result, explorer.heatmap.array().copy()
    with torch.no_grad():
        models["B"].body[0].bias += 1
    explorer.add_data(Slow(3), block=True)
    assert explorer.state == "failed"
    assert explorer.failure.sentence.startswith("the models have changed")
    assert explorer.result is before
    np.testing.assert_array_equal(explorer.heatmap.array(), shown)


def test_more_data_after_a_run_that_failed_at_once_join_the_run_on_screen():
    net = Net(seed=1)
    explorer, _ = few({"A": Net(), "B": net})
    explorer.layers = MORE
    net.broken_after = 0
    explorer.run(block=True)
    assert explorer.state == "failed"
    net.broken_after = None
    explorer.add_data(Slow(4), block=True)
    assert explorer.state == "done"
    assert explorer.result.samples == (8 + 4) * 32
    assert explorer.result.layers("A") == FEW["A"]


# the parts --------------------------------------------------------------------------------------
@pytest.mark.parametrize("gone", [{"a"}, {"a.0"}, {"a.1", "b"}, {"a", "b"}, {"a", "a.0", "b"}])
def test_new_layers_stand_where_a_run_of_everything_has_them(gone):
    tree = LayerTree("Net", tuple(LayerNode(name, "Linear") for name in ("a", "a.0", "a.1", "b")))
    everything = ["a.0", "a.1", "a", "b"]
    kept = [name for name in everything if name not in gone]
    assert in_order(kept, sorted(gone), tree) == everything


def test_calls_of_one_module_and_the_models_own_output_keep_their_places():
    tree = LayerTree("Net", tuple(LayerNode(name, "ReLU") for name in ("a", "b", "c")))
    found = in_order(["a", "c#1", "c#2", "(output)"], ["b"], tree)
    assert found == ["a", "b", "c#1", "c#2", "(output)"]


def test_layers_of_a_run_in_another_order_keep_it():
    tree = LayerTree("Net", tuple(LayerNode(name, "ReLU") for name in "abcd"))
    assert in_order(["c", "a"], ["b", "d"], tree) == ["b", "c", "a", "d"]


def test_a_redraw_looks_at_every_layer_a_few_times_however_many_there_are(monkeypatch):
    looks = []

    def counted(label):
        looks.append(label)
        return split_call(label)

    net = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(100)))
    explorer = explore({"A": net}, layers={"A": [f"{i}.0" for i in range(0, 100, 10)]})
    explorer.run(block=True)
    for module in (known_module, shown_module):
        monkeypatch.setattr(module, "split_call", counted)
    explorer.layers = {"A": [node.name for node in explorer._study.trees["A"]]}
    assert len(explorer.heatmap.row_labels) > 200
    assert 0 < len(looks) < 20 * 300


def weights_of(model):
    return fingerprint(run for runs in as_passes({"m": model}, None).values() for run in runs)


def test_a_fingerprint_sees_every_change_of_weights_and_nothing_else():
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    first = weights_of(model)
    assert weights_of(model) == first
    model.eval()(torch.randn(3, 6))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert weights_of(model) == first
    torch.set_num_threads(threads)
    changes = [
        lambda: model[0].weight.data[0, 0].mul_(1.0001),
        lambda: model[0].weight.data.copy_(model[0].weight.data.flip(0)),
        lambda: model[0].weight.data.copy_(model[0].weight.data.roll(1, 1)),
        lambda: model[0].weight.data[0].neg_(),
        lambda: model[0].weight.data.copy_(model[0].weight.data[[1, 0, 2, 3]]),
        lambda: model[1].running_mean.add_(1e-3),
        lambda: model.to(torch.bfloat16),
        lambda: model.load_state_dict(nn.Sequential(nn.Linear(6, 4), norm).state_dict()),
    ]
    seen = [first]
    for change in changes:
        change()
        assert weights_of(model) not in seen
        seen.append(weights_of(model))


def test_stacked_particles_and_unusual_numbers_have_fingerprints():
    nets = [nn.Linear(3, 2) for _ in range(3)]
    params, buffers = torch.func.stack_module_state(nets)
    stacked = cw.StackedParticles(nn.Linear(3, 2, device="meta"), params, buffers)
    before = weights_of(stacked)
    assert weights_of(stacked) == before
    params["bias"].data[1] += 1
    assert weights_of(stacked) != before
    odd = nn.Module()
    for dtype in (torch.complex64, torch.bool, torch.float16, torch.int64):
        odd.register_buffer(str(dtype)[6:], torch.ones(3, dtype=dtype))
    odd.register_buffer("empty", torch.ones(0))
    assert weights_of(odd) == weights_of(odd)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int8])
def test_no_two_weights_can_change_places_unseen(dtype):
    values = torch.arange(-64, 64).to(dtype)
    model = nn.Module()
    model.register_buffer("weight", values.clone())
    first, draw = weights_of(model), torch.Generator().manual_seed(0)
    for _ in range(200):
        i, j = torch.randperm(len(values), generator=draw)[:2].tolist()
        model.weight[[i, j]] = values[[j, i]]
        assert weights_of(model) != first
        model.weight.copy_(values)
    assert weights_of(model) == first


def test_weights_that_cannot_be_read_are_never_the_same():
    model = nn.Linear(2, 2)
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    assert weights_of(model) != weights_of(model)
