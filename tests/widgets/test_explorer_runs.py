"""CKAExplorer without a page: its runs, from the first batch to the last."""

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets as t
from explorers import Net, Slow, ensembles, explore, hidden, until

import cka_widget as cw


# the run ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("block", [False, True])
def test_a_run_gives_what_compare_gives(block):
    models = ensembles()
    explorer = explore(models)
    explorer.run(block=block)
    assert explorer.wait(30) == "done"
    expected = cw.compare(models, Slow(), progress=False, device="cpu").matrix("A", "B")
    np.testing.assert_allclose(explorer.result.matrix("A", "B"), expected, atol=1e-12)
    np.testing.assert_allclose(explorer.heatmap.array(), expected, atol=1e-6)
    assert explorer.heatmap.row_labels == list(expected.index)
    assert explorer.heatmap.settled
    assert explorer.progress == 1.0
    assert not hidden(explorer._views.result)


def test_states_and_progress_can_be_observed():
    explorer, states, shares = explore(loader=Slow(12, 0.01)), [], []
    explorer.observe(lambda change: states.append(change["new"]), "state")
    explorer.observe(lambda change: shares.append(change["new"]), "progress")
    explorer.run()
    until(lambda: explorer.result is not None)
    explorer.pause()
    explorer.resume()
    explorer.wait(30)
    assert states == ["running", "paused", "running", "done"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_pause_holds_the_loader_and_shows_all_that_was_computed():
    loader = Slow(200, 0.01)
    explorer = explore(loader=loader)
    loader.given = 0  # one batch was looked at
    explorer.run()
    until(lambda: explorer.result is not None)
    explorer.pause()
    time.sleep(0.1)
    given = loader.given
    time.sleep(0.1)
    assert loader.given == given
    until(lambda: explorer.result.batches == given)
    assert "paused" in explorer._views.line.line.value
    assert explorer._views.header.pause.description == "Resume"
    explorer.cancel()
    assert explorer.wait(10) == "cancelled"


def test_cancel_keeps_the_partial_result_and_leaves_the_models_as_found():
    loader, models = Slow(500, 0.005), ensembles()
    models["A"][0].train()
    explorer = explore(models, loader)
    explorer.run()
    until(lambda: explorer.result is not None)
    given = loader.given
    explorer.cancel()
    assert explorer.wait(10) == "cancelled"
    assert loader.given <= given + 2
    assert explorer.result.samples >= 32
    assert not any(m._forward_hooks for nets in models.values() for n in nets for m in n.modules())
    assert models["A"][0].training
    assert not hidden(explorer._views.header.run)


def test_a_failure_is_a_sentence_with_the_partial_heatmap_kept():
    models = {"A": Net(), "B": Net(seed=1, broken_after=8)}
    explorer = explore(models, Slow(40))
    explorer.run()
    assert explorer.wait(30) == "failed"
    notes = explorer._views.line.notes.value
    assert "sensor &lt;unplugged&gt;" in notes
    assert "<details>" in notes
    assert "Traceback" in explorer.failure.traceback
    assert explorer.result.samples >= 32
    assert explorer.heatmap.shape == [3, 3]
    assert "The comparison failed" in explorer._views.line.live.value


def test_a_second_run_after_a_failure_clears_the_message():
    net = Net(seed=1, broken_after=4)
    explorer = explore({"A": Net(), "B": net})
    explorer.run()
    assert explorer.wait(30) == "failed"
    net.broken_after = None
    explorer.run()
    assert explorer.wait(30) == "done"
    assert "failed" not in explorer._views.line.notes.value


def test_running_twice_at_once_and_without_layers_is_refused():
    explorer = explore(loader=Slow(50, 0.01))
    explorer.run()
    with pytest.raises(RuntimeError, match="under way"):
        explorer.run()
    explorer.cancel()
    explorer.wait(10)
    explorer.layers = {"A": []}
    with pytest.raises(ValueError, match='tick at least one layer of "A"'):
        explorer.run()
    explorer._views.header.run.click()
    assert "tick at least one layer" in explorer._views.line.notes.value
    explorer.layers = {"A": ["head"]}
    assert "tick at least one layer" not in explorer._views.line.notes.value


def test_groups_go_through_and_a_list_of_them_is_of_one_loader():
    explorer = explore(loader=Slow(6), groups=lambda batch: batch[:, 0])
    explorer.run(block=True)
    assert explorer.result.provenance["groups"]
    explorer.add_data(Slow(2), block=True)
    assert explorer.result.samples == 256
    assert "largest error bar" in explorer._views.line.line.value
    explorer = explore(loader=Slow(6), groups=[i % 32 for i in range(192)])
    explorer.run(block=True)
    assert "no error bars<" in explorer._views.line.line.value
    with pytest.raises(ValueError, match="groups= as a function of the batch"):
        explorer.add_data(Slow(2))


def test_more_data_sharpens_a_finished_run():
    explorer = explore(loader=Slow(6))
    with pytest.raises(ValueError, match="run"):
        explorer.add_data(Slow(2))
    explorer.run(block=True)
    before = explorer.result
    torch.manual_seed(5)
    explorer.add_data([torch.randn(32, 6) for _ in range(6)])
    assert explorer.wait(30) == "done"
    assert explorer.result.samples == 2 * before.samples
    assert "<b>384</b> in all" in explorer._views.line.line.value
    assert explorer.result.worst_stderr() < before.worst_stderr() * 1.5
    assert before.samples == 6 * 32


def test_the_button_adds_more_data_once_a_result():
    explorer = explore(loader=Slow(6), more_data=Slow(4))
    more = explorer._views.header.more
    assert hidden(more)
    explorer.run(block=True)
    assert not hidden(more)
    assert "128 more samples" in more.tooltip
    for _ in range(2):
        more.click()
        explorer.wait(30)
        assert explorer.result.samples == (6 + 4) * 32
        assert hidden(more)
    assert "no more data" in explorer._views.line.notes.value
    explorer.run(block=True)
    assert explorer.result.samples == 6 * 32
    assert not hidden(more)


def test_a_function_gives_more_data_as_long_as_there_are_any():
    batches = [Slow(2), Slow(3), None]
    explorer = explore(loader=Slow(6), more_data=lambda: batches.pop(0))
    more = explorer._views.header.more
    explorer.run(block=True)
    for samples in (8, 11, 11):
        assert not hidden(more)
        assert "more data" in more.tooltip
        more.click()
        explorer.wait(30)
        assert explorer.result.samples == samples * 32
    assert hidden(more)


def test_a_function_that_fails_is_told_on_the_page():
    explorer = explore(more_data=lambda: 1 / 0)
    explorer.run(block=True)
    explorer._views.header.more.click()
    assert (
        "more_data failed: ZeroDivisionError: division by zero" in explorer._views.line.notes.value
    )
    assert explorer.state == "done"


def test_without_more_data_there_is_no_such_button():
    explorer = explore()
    explorer.run(block=True)
    assert hidden(explorer._views.header.more)
    with pytest.raises(TypeError, match="cannot be iterated"):
        explore(more_data=3)


def test_the_first_result_can_be_exported_while_the_run_goes_on():
    explorer = explore(loader=Slow(500, 0.005))
    export = explorer._views.header.export
    explorer.run()
    until(lambda: not hidden(export))
    assert explorer.state == "running"
    assert explorer.result is not None
    explorer.cancel()
    explorer.wait(10)


def test_good_enough_ends_as_done_before_the_data_do():
    loader = Slow(3000, 0.001)
    explorer = explore(loader=loader)
    explorer.run()
    until(lambda: explorer.result is not None and explorer.result.blocks >= 8)
    explorer.stop_at_stderr = 0.2
    assert explorer.wait(30) == "done"
    assert loader.given < 3000
    explorer = explore(loader=Slow(3000), stop_at_stderr=0.2)
    explorer.run(block=True)
    assert explorer.result.worst_stderr() <= 0.2


def test_the_main_thread_stays_free_while_a_run_goes_on():
    explorer = explore(loader=Slow(30, 0.01))
    start = time.monotonic()
    explorer.run()
    assert time.monotonic() - start < 1.0
    assert explorer.state == "running"
    explorer.cancel()
    explorer.wait(10)


# what may come between ----------------------------------------------------------------------------
def test_no_thread_is_left_when_wait_returns():
    """A thread that frees tensors while the interpreter ends would abort it."""
    explorer = explore()
    explorer.run()
    explorer.wait(30)
    assert not [one.name for one in threading.enumerate() if one.name.startswith("cka-")]
    script = "from explorers import explore; e = explore(); e.run(); e.wait()"
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], cwd=tests, check=True, timeout=120)


def test_a_pause_that_is_told_late_does_not_outlive_the_run():
    explorer = explore(loader=Slow(6, 0.02))
    tell = explorer._runner._changed

    def late():
        if explorer._runner.state == "paused":
            explorer._runner.cancel()
            explorer._runner.wait(10)
        tell()

    explorer._runner._changed = late
    explorer.run()
    until(lambda: explorer.result is not None)
    explorer.pause()
    assert explorer.state == "cancelled"
    explorer.run()
    assert explorer.wait(10) == "done"


def test_who_observes_the_state_may_start_the_next_run():
    explorer, loader = explore(), Slow(100, 0.01)

    def again(change):
        if change["new"] == "done" and loader.given == 0:
            explorer.add_data(loader)

    explorer.observe(again, "state")
    explorer.run()
    until(lambda: loader.given)
    assert explorer.state == "running"
    assert hidden(explorer._views.header.run)
    assert not hidden(explorer._views.header.pause)
    explorer.cancel()
    explorer.wait(10)


def test_linked_explorers_move_together_from_two_threads():
    first, second = explore(), explore()
    for explorer in (first, second):
        explorer.run(block=True)
    for trait in ("selection", "pair", "hover"):
        t.link((first, trait), (second, trait))
    cells = [cw.Cell(cw.LayerKey(m, "head"), cw.LayerKey(n, "head")) for m, n in ("AB", "AA", "BB")]

    def by_code():
        for at in range(300):
            with suppress(t.TraitError):  # the other thread moved it meanwhile
                first.selection = cells[at % 3]

    def by_page():
        for at in range(300):
            with suppress(t.TraitError):
                second.heatmap.set_state({"selected": [at % 2, at % 3]})

    threads = [threading.Thread(target=move, daemon=True) for move in (by_code, by_page)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
        assert not thread.is_alive(), "they wait for each other"
    first.selection = cells[1]
    assert second.selection == cells[1]
    assert second.pair == ("A", "A")
    first.hover = cells[1]
    assert second.heatmap.hovered == second.heatmap.selected != []
    first.hover = None
    assert second.heatmap.hovered == []


def test_data_that_cannot_be_added_fail_the_run_and_lose_nothing():
    """The net leaves out its head for wider inputs, so that the new result has other rows."""

    class Varied(Net):
        def forward(self, x):
            y = self.body(x)
            return y if x[0, 0] > 50 else self.head(torch.tanh(y))

    explorer = explore({"A": Varied(seed=0), "B": Net(seed=1)})
    explorer.run(block=True)
    before = explorer.result
    explorer.add_data([torch.randn(32, 6) + 100 for _ in range(3)])
    assert explorer.wait(30) == "failed"
    assert "these data cannot be added: merge needs the same" in explorer.failure.sentence
    assert explorer.result.samples == before.samples


def test_a_goal_may_be_given_up_while_the_run_goes_on():
    loader = Slow(40, 0.01)
    explorer = explore(loader=loader, stop_at_stderr=1e-6)
    explorer.run()
    until(lambda: explorer.result is not None)
    explorer.stop_at_stderr = None
    assert explorer.wait(30) == "done"
    assert explorer.result.batches == 40


def test_closing_ends_the_run():
    loader = Slow(500, 0.01)
    explorer = explore(loader=loader)
    explorer.run()
    explorer.close()
    assert explorer.wait(10) == "cancelled"
    assert loader.given < 500


# observers that fail ------------------------------------------------------------------------------
@pytest.mark.parametrize("trait", ["state", "result", "progress"])
@pytest.mark.parametrize("block", [True, False])
def test_an_observer_that_fails_ends_no_run_and_is_told(trait, block, caplog):
    nets = {name: torch.nn.Linear(6, 4) for name in ("a", "b")}
    explorer = cw.CKAExplorer(nets, [torch.randn(16, 6) for _ in range(6)], device="cpu")

    def failing(change):
        raise ValueError("the observer's own")

    explorer.observe(failing, trait)
    explorer.run(block=block)
    assert explorer.wait(20) == "done"
    assert explorer.result.samples == 96
    assert explorer.heatmap.shape == [1, 1]
    assert f'"{trait}"' in caplog.text
    assert "the observer's own" in caplog.text
