"""A closed explorer, or one whose notebook cell ran again, keeps nothing alive."""

import gc
import os
import subprocess
import sys
import weakref

import ipywidgets as widgets
import psutil
import pytest
import torch
import traitlets as t
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cka_widget as cw
from cka_widget.widgets.notebook import notebook_cells


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def models():
    return {"a": net(), "b": [net() for _ in range(3)], "c": net()}


def batches(n=6):
    return [torch.randn(32, 6) for _ in range(n)]


def alive():
    """Widgets that ipywidgets keeps, by its own list (of version 8, then of 7)."""
    known = getattr(widgets.widget, "_instances", None)
    return len(widgets.Widget.widgets if known is None else known)


def used(found, loader):
    """An explorer that has shown much."""
    explorer = cw.CKAExplorer(found, loader, device="cpu")
    explorer.run()
    explorer.wait()
    explorer.selection = (("a", "0"), ("b", "0"))
    explorer.pair = ("b", "c")
    explorer.selection = (("b", "2"), ("c", "2"))
    explorer.pair = ("a", "c")
    return explorer


def test_everything_of_a_closed_explorer_is_freed():
    gc.collect()
    before, found, loader = alive(), models(), DataLoader(torch.randn(96, 6), batch_size=32)
    explorer = used(found, loader)
    assert alive() > before + 100
    refs = [weakref.ref(one) for one in (found["a"], found["b"][2], loader, explorer)]
    result = weakref.ref(explorer.result)
    explorer.close()
    assert alive() == before
    del found, loader, explorer
    gc.collect()
    assert [ref() for ref in (*refs, result)] == [None] * 5


def test_a_closed_explorer_that_is_still_held_keeps_its_result_alone():
    found, loader = models(), batches()
    model, first = weakref.ref(found["a"]), weakref.ref(loader[0])
    explorer = used(found, loader)
    explorer.close()
    explorer.close()
    del found, loader
    gc.collect()
    assert model() is None
    assert first() is None
    assert explorer.result.samples == 192
    assert "closed" in repr(explorer)
    for use in (explorer.run, explorer.add_data, lambda: explorer.heatmap):
        with pytest.raises(RuntimeError, match=r"was closed.*make a new one"):
            use()
    assert explorer.wait(1) == "done"


def test_an_explorer_closed_in_mid_run_lets_go_when_its_batch_is_through():
    found, loader = models(), batches(400)
    explorer = cw.CKAExplorer(found, loader, device="cpu")
    explorer.run()
    explorer.close()
    assert explorer.wait(20) == "cancelled"
    model = weakref.ref(found["a"])
    assert not any(module._forward_hooks for module in found["a"].modules())
    del found, loader
    gc.collect()
    assert model() is None


def test_what_is_linked_to_a_closed_explorer_goes_on():
    one, two = used(models(), batches()), used(models(), batches())
    t.link((one, "selection"), (two, "selection"))
    t.link((one, "pair"), (two, "pair"))
    one.close()
    two.selection = (("a", "0"), ("c", "2"))
    assert two.selection.col.layer == "2"
    two.close()


def test_workers_of_a_loader_end_with_the_explorer():
    process = psutil.Process(os.getpid())
    before = {child.pid for child in process.children(recursive=True)}
    loader = DataLoader(
        TensorDataset(torch.randn(96, 6)), batch_size=32, num_workers=1, persistent_workers=True
    )
    explorer = used(models(), loader)
    explorer.close()
    del explorer, loader
    gc.collect()
    left = {child.pid for child in process.children(recursive=True)} - before
    _, running = psutil.wait_procs([psutil.Process(pid) for pid in left], timeout=10)
    assert not running


@pytest.fixture
def cell(monkeypatch):
    """Executes "a cell" that displays an explorer, as a front end tells of it."""
    shell = InteractiveShell()
    monkeypatch.setattr(notebook_cells, "get_ipython", lambda: shell)
    monkeypatch.setattr(notebook_cells, "_CELLS", notebook_cells.Cells())
    number = iter(range(100))

    def execute(explorer):
        header = {"header": {"msg_id": str(next(number))}, "metadata": {"cellId": "one"}}
        monkeypatch.setattr(shell, "parent_header", header, raising=False)
        explorer._ipython_display_()

    execute.variables = shell.user_ns
    yield execute
    shell.reset(new_session=False)
    InteractiveShell.clear_instance()


def test_an_explorer_whose_cell_ran_again_is_freed(cell):
    found = models()
    model, first = weakref.ref(found["a"]), used(found, batches())
    cell.variables["_"] = cell.variables["_1"] = first  # IPython's history is nobody's variable
    cell.variables["explorer"] = first
    cell(first)
    second = used(models(), batches())
    cell.variables["explorer"] = second
    cell(second)
    del found
    gc.collect()
    assert model() is None
    second.close()


@pytest.mark.parametrize("held", [lambda e: e, lambda e: [e], lambda e: {"one": e}])
def test_an_explorer_that_a_variable_holds_can_be_shown_again(cell, held):
    first, second = used(models(), batches()), used(models(), batches())
    cell.variables["mine"] = held(first)
    cell(first)
    cell(second)
    first.run()
    assert first.wait() == "done"
    cell(first)
    for explorer in (first, second):
        explorer.close()


MANY = """
import gc, os, psutil, torch
import cka_widget as cw
from torch import nn

data, process = [torch.randn(32, 6) for _ in range(6)], psutil.Process(os.getpid())
for number in range(230):
    if number == 30:  # by then what is made once has been made
        gc.collect()
        before = process.memory_info().rss
    nets = {k: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)) for k in "ab"}
    nets["c"] = [nn.Linear(6, 8) for _ in range(3)]
    explorer = cw.CKAExplorer(nets, data, device="cpu")
    explorer.run()
    explorer.wait()
    explorer.selection = (("a", "0"), ("b", "0"))
    explorer.pair = ("b", "c")
    explorer.close()
    del explorer
gc.collect()
print(process.memory_info().rss - before)
"""


@pytest.mark.slow
def test_two_hundred_explorers_leave_no_memory():
    """In a process of their own, which holds nothing of other tests."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MANY], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 10e6
