"""The explorer in Notebook 7 and Voila, single widgets in marimo: drawn, run, clicked."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser.lab import Notebook
from browser.serving import SECOND, UP, served, visit
from browser.test_busy import DEAF
from playwright.sync_api import Browser, Locator, Page, expect

OLD = Path(__file__).parents[2] / ".venv-old/bin/python"
EXPLORER = """
import torch
from torch import nn
import cka_widget as cw

torch.set_num_threads(1)

def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

batches = [torch.randn(32, 6, generator=torch.Generator().manual_seed(i)) for i in range(20)]
explorer = cw.CKAExplorer({"A": [net(0), net(1)], "B": [net(2), net(3)]}, batches)
explorer
"""
MARIMO = """
import marimo

app = marimo.App()

@app.cell
def _():
    import marimo as mo
    import torch
    from torch import nn
    import cka_widget as cw

    torch.set_num_threads(1)
    torch.manual_seed(0)
    nets = {name: nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))) for name in "AB"}
    explorer = cw.CKAExplorer(nets, [torch.randn(32, 6) for _ in range(6)], device="cpu")
    explorer.run(block=True)
    heatmap = mo.ui.anywidget(explorer.heatmap)
    picker = mo.ui.anywidget(explorer.pickers["A"])
    mo.vstack([heatmap, picker])
    return explorer, heatmap, mo, picker

@app.cell
def _(explorer, heatmap, mo, picker):
    heatmap.value, picker.value  # run again when they change
    mo.md(f"cell {explorer.heatmap.selected}, layers {explorer.layers['A']}")
    return

if __name__ == "__main__":
    app.run()
"""


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of 1400 x 1000 pixels."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    yield context.new_page()
    context.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the explorer's notebook."""
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content: dict[str, Any] = {
        "cells": [{**cell, "id": "explorer", "source": EXPLORER}],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "explorer.ipynb").write_text(json.dumps(content))
    return tmp_path


def run_and_click(page: Page) -> Locator:
    """Run by the button, wait, pin the first cell; the drill-down shows its four pairs."""
    explorer = page.locator(".cka-explorer")
    start = explorer.locator(".cka-start").get_by_role("button", name="Run")
    start.click(timeout=UP * SECOND)
    expect(explorer.locator(".cka-state")).to_contain_text("done", timeout=60 * SECOND)
    stage = explorer.locator(".cka-middle .cka-stage")
    click(stage, 0.16, 0.16)
    drill, timeout = explorer.locator(".cka-drill"), 30 * SECOND  # charts load with the first run
    expect(drill).to_contain_text("4 particle pairs", timeout=timeout)
    expect(drill.locator(".cka-heatmap canvas").first).to_be_visible(timeout=timeout)
    expect(drill.locator(".bqplot svg").first).to_be_visible(timeout=timeout)
    page.mouse.move(2, 2)
    page.wait_for_timeout(1.5 * SECOND)  # charts settle
    return explorer


def click(stage: Locator, right: float, down: float) -> None:
    """Click at a share of the matrix's width and height."""
    stage.scroll_into_view_if_needed()
    x, y, width, height = map(float, (stage.get_attribute("data-plot") or "").split())
    stage.click(position={"x": x + right * width, "y": y + down * height})


def test_notebook_7(home: Path, page: Page, screenshots: Path) -> None:
    token = secrets.token_hex(16)
    options = [
        *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=PORT"),
        f"--IdentityProvider.token={token}",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    with served(["notebook", *options], home, f"/api/status?token={token}") as url:
        notebook = Notebook(SimpleNamespace(url=url, token=token), page)
        visit(page, f"{url}/notebooks/explorer.ipynb?token={token}")
        page.wait_for_function(
            """() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel
                ?.status === "idle" """,
            timeout=UP * SECOND,
        )
        own = len(notebook.errors)  # what the host itself stumbled over while it started
        notebook.run_all()
        explorer = run_and_click(page)
        notebook.wait_for_value("explorer.selection == (('A', '0'), ('B', '0'))")
        explorer.screenshot(path=screenshots / "notebook7.png")
        assert notebook.errors[own:] == []


def test_voila(home: Path, page: Page, screenshots: Path) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    options = ["--no-browser", "--port=PORT", "--Voila.ip=127.0.0.1"]
    with served(["voila", "explorer.ipynb", *options], home, "/voila/static/none") as url:
        visit(page, url)
        run_and_click(page).screenshot(path=screenshots / "voila.png")
        assert errors == []


def start_classic(page: Page, url: str) -> None:
    """Open a notebook and run it, once its manager has asked the new kernel for widgets.

    The manager asks when it starts. Widgets that are made before the answer are in it too: each
    gets a second model, and part of their messages goes to the one that nobody sees.
    """
    answers: list[object] = []

    def hear(message: str | bytes) -> None:
        if "comm_info_reply" in str(message):
            answers.append(message)

    page.on("websocket", lambda socket: socket.on("framereceived", hear))
    visit(page, url)
    for _ in range(1200):
        if answers:
            break
        page.wait_for_timeout(0.1 * SECOND)
    page.evaluate("() => Jupyter.notebook.execute_all_cells()")


def test_ipywidgets_7_in_the_classic_notebook(home: Path, page: Page, screenshots: Path) -> None:
    if not OLD.exists():
        pytest.skip("no .venv-old: make test-old")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    token = secrets.token_hex(16)
    options = [
        *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=PORT"),
        f"--IdentityProvider.token={token}",
        "--ServerApp.jpserver_extensions={'notebook_shim': True}",  # finds the widgets' scripts
    ]
    with served(["nbclassic", *options], home, f"/api/status?token={token}", str(OLD)) as url:
        start_classic(page, f"{url}/nbclassic/notebooks/explorer.ipynb?token={token}")
        explorer = run_and_click(page)
        explorer.screenshot(path=screenshots / "classic.png")

        # Colab's case: the page hears nothing that a thread sends, so it asks.
        page.evaluate("code => { Jupyter.notebook.kernel.execute(code); }", DEAF)
        more = "explorer.add_data(batches, block=False)"
        page.evaluate("code => { Jupyter.notebook.kernel.execute(code); }", more)
        expect(explorer.locator(".cka-state")).to_contain_text(
            re.compile("done.*1,280 in all"), timeout=20 * SECOND
        )

        page.evaluate("() => { Jupyter.notebook.kernel.restart(); }")
        expect(explorer.locator(".cka-waiting")).to_contain_text(
            "The kernel is gone", timeout=30 * SECOND
        )
        expect(explorer.locator(".cka-middle .cka-stage")).to_be_visible()
        assert errors == []


def test_marimo_shows_single_widgets(tmp_path: Path, page: Page, screenshots: Path) -> None:
    """An explorer's heatmap and picker, each alone; what is clicked there reaches the explorer."""
    (tmp_path / "app.py").write_text(MARIMO)
    options = ["--headless", "--host", "127.0.0.1", "--port", "PORT", "--no-token"]
    with served(["marimo", "run", "app.py", *options], tmp_path, "/health") as url:
        visit(page, url)
        stage = page.locator(".cka-stage")
        expect(stage).to_be_visible(timeout=UP * SECOND)
        # Before its last cell has run, marimo may put its widgets up once more.
        expect(page.get_by_text("cell []")).to_be_visible(timeout=UP * SECOND)
        click(stage, 0.6, 0.4)
        expect(page.get_by_text("cell [1, 2]")).to_be_visible(timeout=UP * SECOND)
        page.get_by_role("treeitem", name=re.compile("^2 ")).click()
        expect(page.get_by_text("layers ['0', '1', '3']")).to_be_visible(timeout=UP * SECOND)
        page.screenshot(path=screenshots / "marimo.png")
