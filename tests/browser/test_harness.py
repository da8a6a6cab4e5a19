"""The stack under the widgets: cells, widget clicks, themes and the kernel, without our code."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.lab import Notebook, Server
from playwright.sync_api import expect

COUNTER = '''
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = """
    export default { render({ model, el }) {
        const button = document.createElement("button");
        const show = () => { button.textContent = `count ${model.get("count")}`; };
        button.className = "counter";
        button.onclick = () => {
            model.set("count", model.get("count") + 1);
            model.save_changes();
        };
        model.on("change:count", show);
        show();
        el.append(button);
    } };
    """
    count = traitlets.Int(0).tag(sync=True)

counter = Counter()
counter
'''


@pytest.fixture
def counter(server: Server, notebook: Notebook) -> Notebook:
    notebook.open(server.add("counter.ipynb", [COUNTER]))
    notebook.run_all()
    return notebook


def test_click_reaches_the_kernel_and_a_change_the_page(counter: Notebook) -> None:
    button = counter.page.locator("button.counter")
    expect(button).to_have_text("count 0")
    button.click()
    counter.wait_for_value("counter.count == 1")
    counter.execute("counter.count = 41")
    expect(button).to_have_text("count 41")
    assert counter.errors == []


def test_a_new_cell_runs_and_themes_switch(counter: Notebook, screenshots: Path) -> None:
    assert counter.run_new_cell("answer = 6 * 7") < 30
    assert counter.value("answer") == 42
    for theme in ("dark", "light"):
        counter.theme(theme)
        counter.page.screenshot(path=screenshots / f"harness-{theme}.png")


def test_an_error_in_a_cell_raises(server: Server, notebook: Notebook) -> None:
    notebook.open(server.add("fails.ipynb", ["1 / 0"]))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        notebook.run_all()
    with pytest.raises(AssertionError, match="NameError"):
        notebook.execute("nobody")
