"""A kernel that is busy, and a host that shows nothing that a thread sends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from browser.lab import Notebook, Server
from browser.serving import SECOND
from playwright.sync_api import Locator, expect

SETUP = """
import threading, time
import ipywidgets as widgets
import torch
from torch import nn
import cka_widget as cw

torch.set_num_threads(1)

class Slow:
    batch_size = 32
    step = 0.25
    more = threading.Event()
    more.set()

    def __len__(self):
        return 40

    def __iter__(self):
        for seed in range(40):
            time.sleep(self.step)
            if seed == 39:
                self.more.wait()
            yield torch.randn(32, 6, generator=torch.Generator().manual_seed(seed))

def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

slow = Slow()
explorer = cw.CKAExplorer({"A": net(0), "B": net(1)}, slow)
explorer
"""
DEAF = """
send = widgets.Widget._send

def only_answers(self, message, buffers=None):
    if not threading.current_thread().name.startswith("cka-"):
        send(self, message, buffers)

widgets.Widget._send = only_answers
"""


@pytest.fixture
def explorer(server: Server, notebook: Notebook) -> Locator:
    """An explorer of two small networks and 40 batches, one every quarter of a second."""
    notebook.open(server.add("busy.ipynb", [SETUP]))
    notebook.run_all()
    explorer = notebook.page.locator(".cka-explorer")
    notebook.show(explorer)
    expect(explorer.locator(".cka-waiting")).to_have_count(1)
    return explorer


def occupy(notebook: Notebook) -> Callable[[], None]:
    """Give the kernel a cell that sleeps until what is returned is called, however long that is."""
    word = notebook.server.root / "let-go"
    notebook.page.evaluate(
        """() => { window.busy = window.jupyterapp.shell.currentWidget.sessionContext.session
            .kernel.requestExecute({ code: `import os, time
while not os.path.exists("let-go"): time.sleep(0.05)` }).done; }"""
    )

    def let_go() -> None:
        word.touch()
        notebook.page.evaluate("() => window.busy")
        word.unlink()

    return let_go


def test_a_cell_that_sleeps_stops_neither_the_bar_nor_a_click(
    notebook: Notebook, explorer: Locator
) -> None:
    """Clicks act at once, or say that they wait: that is for the kernel's version to decide."""
    notebook.execute("slow.step = 0.5; explorer.run()")
    notebook.wait_for_value("explorer.progress > 0")
    bar = explorer.get_by_role("progressbar")
    let_go = occupy(notebook)
    for _ in range(4):  # it goes on moving
        at = bar.get_attribute("aria-valuenow") or ""
        expect(bar).not_to_have_attribute("aria-valuenow", at, timeout=3 * SECOND)

    waiting, state = explorer.locator(".cka-waiting"), explorer.locator(".cka-state")
    explorer.get_by_role("button", name="Cancel").click()
    waits = waiting.filter(has_text="another cell is running")
    expect(waits.or_(state.filter(has_text="cancelled"))).to_be_visible(timeout=2 * SECOND)
    let_go()
    expect(state).to_contain_text("cancelled")
    expect(waiting).to_be_empty()
    assert notebook.value("explorer.state") == "cancelled"


def test_run_in_a_busy_kernel_says_that_it_waits(notebook: Notebook, explorer: Locator) -> None:
    waiting = explorer.locator(".cka-waiting")
    let_go = occupy(notebook)
    explorer.get_by_role("button", name="Run").first.click()
    waits = waiting.filter(has_text="another cell is running")
    expect(waits.or_(explorer.get_by_role("button", name="Pause"))).to_be_visible()
    let_go()
    expect(explorer.get_by_role("button", name="Pause")).to_be_visible()
    expect(waiting).to_be_empty()
    expect(explorer.locator(".cka-live-text").get_by_text("is running")).to_have_count(1)


def test_a_double_click_runs_once_and_to_the_end(notebook: Notebook, explorer: Locator) -> None:
    """The buttons change under the pointer: what stands there then was not meant."""
    notebook.execute("slow.more.clear(); explorer.run()")  # that ends when it is told to
    notebook.wait_for_value("explorer.progress > 0")
    explorer.get_by_role("button", name="Cancel").click()
    again = explorer.get_by_role("button", name="Run again")
    box = again.bounding_box()
    assert box is not None
    mouse = notebook.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    first = time.monotonic()
    while time.monotonic() - first < 0.6:  # a later one would be another click
        mouse.down()
        mouse.up()
        notebook.page.wait_for_timeout(150)
    notebook.wait_for_value("explorer.progress > 0.1")
    assert notebook.value("explorer.state") == "running"
    enough = explorer.get_by_role("button", name="Good enough")
    enough.click()
    notebook.execute("slow.more.set()")
    expect(explorer.locator(".cka-state")).to_contain_text("done")


def test_a_click_on_a_cell_says_that_it_waits(notebook: Notebook, explorer: Locator) -> None:
    notebook.execute("explorer.run()")
    notebook.wait_for_value("explorer.progress > 0.1")
    notebook.execute("explorer.cancel(); explorer.wait()")
    waiting, stage = explorer.locator(".cka-waiting"), explorer.locator(".cka-stage").first
    let_go = occupy(notebook)
    x, y, w, h = (float(n) for n in (stage.get_attribute("data-plot") or "").split())
    stage.click(position={"x": x + w / 4, "y": y + h / 4})
    waits = waiting.filter(has_text="another cell is running")
    told = explorer.locator(".cka-drill").filter(has_not_text="No cell selected")
    expect(waits.or_(told).first).to_be_visible(timeout=2 * SECOND)
    let_go()
    expect(told).to_be_visible()
    expect(waiting).to_be_empty()


def test_a_refused_run_is_an_alert_and_waits_for_nothing(
    notebook: Notebook, explorer: Locator
) -> None:
    notebook.execute("explorer.layers = {'A': []}")
    explorer.get_by_role("button", name="Run").first.click()
    expect(explorer.get_by_role("alert")).to_contain_text("tick at least one layer")
    notebook.page.wait_for_timeout(SECOND)
    expect(explorer.locator(".cka-waiting")).to_be_empty()


def test_a_cell_run_again_ends_the_run_that_it_showed(
    notebook: Notebook, explorer: Locator
) -> None:
    notebook.execute("old = explorer; old.run()")
    notebook.wait_for_value("old.progress > 0")
    notebook.run_all()
    notebook.wait_for_value("explorer is not old and old.state == 'cancelled'")
    notebook.execute("explorer.run()")
    notebook.wait_for_value("explorer.progress > 0")
    assert notebook.value("explorer.state") == "running"


def test_a_pause_is_taken_back(notebook: Notebook, explorer: Locator) -> None:
    notebook.execute("explorer.run()")
    notebook.wait_for_value("explorer.progress > 0")
    waiting = explorer.locator(".cka-waiting")
    explorer.get_by_role("button", name="Pause").click()
    resume = explorer.get_by_role("button", name="Resume")
    expect(resume).to_be_visible()
    assert notebook.value("explorer.state") == "paused"
    resume.click()
    expect(explorer.get_by_role("button", name="Pause")).to_be_visible()
    expect(waiting).to_be_empty()


def test_cancel_in_a_long_batch_says_that_it_ends_the_batch(
    notebook: Notebook, explorer: Locator
) -> None:
    notebook.execute("slow.step = 3; explorer.run()")
    explorer.get_by_role("button", name="Cancel").click()
    waiting = explorer.locator(".cka-waiting")
    expect(waiting).to_have_text("waiting for the batch under way")
    expect(explorer.locator(".cka-state")).to_contain_text("cancelled", timeout=8 * SECOND)
    expect(waiting).to_be_empty()


def test_the_page_asks_where_threads_are_not_shown(notebook: Notebook, explorer: Locator) -> None:
    notebook.execute(DEAF)
    notebook.execute("explorer.run(block=False)")
    bar = explorer.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[1-9]"), timeout=20 * SECOND)
    expect(explorer.locator(".cka-middle .cka-stage")).to_be_visible()
    expect(explorer.locator(".cka-state")).to_contain_text("done", timeout=30 * SECOND)
    expect(bar).to_have_attribute("aria-valuenow", "100")
    expect(explorer.locator(".cka-state")).to_contain_text("1,280 samples")
    assert notebook.errors == []
