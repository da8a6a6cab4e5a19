"""What is left of the explorer after a reload, in a second view, and when its kernel is gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.lab import Notebook, Server
from browser.serving import SECOND
from browser.test_hosts import EXPLORER, click
from playwright.sync_api import Locator, Page, expect

GONE = re.compile("^The kernel is gone")


@pytest.fixture
def explorer(server: Server, notebook: Notebook) -> Locator:
    """The explorer of two ensembles after its run, a cell pinned, the notebook saved."""
    notebook.open(server.add("survival.ipynb", [EXPLORER, "explorer.run(); explorer.wait()"]))
    notebook.run_all()
    explorer = notebook.page.locator(".cka-explorer")
    pin(explorer)
    notebook.command("docmanager:save")
    return explorer


def pin(explorer: Locator) -> None:
    """Click the first cell, and see what lies behind it."""
    expect(explorer.locator(".cka-state")).to_contain_text("done", timeout=60 * SECOND)
    click(explorer.locator(".cka-middle .cka-stage"), 0.16, 0.16)
    expect(explorer.locator(".cka-drill")).to_contain_text("4 particle pairs")


def stands(explorer: Locator) -> None:
    """The heatmap is drawn, and answers the pointer."""
    stage = explorer.locator(".cka-middle .cka-stage")
    stage.scroll_into_view_if_needed(timeout=60 * SECOND)
    x, y, width, height = map(float, (stage.get_attribute("data-plot") or "").split())
    pixels = """stage => { const canvas = stage.querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(data).size; }"""
    assert stage.evaluate(pixels) > 20
    stage.hover(position={"x": x + 0.9 * width, "y": y + 0.5 * height})
    expect(explorer.locator(".cka-middle .cka-tip")).to_contain_text("±")
    explorer.page.mouse.move(2, 2)


def test_a_reload_brings_everything_back_and_a_second_view_too(
    notebook: Notebook, explorer: Locator, screenshots: Path
) -> None:
    page = notebook.page
    page.reload(wait_until="commit")
    notebook.wait_until_ready()
    expect(explorer.locator(".cka-state")).to_contain_text("done", timeout=60 * SECOND)
    expect(explorer.locator(".cka-drill")).to_contain_text("4 particle pairs")
    stands(explorer)
    click(explorer.locator(".cka-middle .cka-stage"), 0.84, 0.84)
    notebook.wait_for_value("explorer.selection == (('A', '2'), ('B', '2'))")

    notebook.run_new_cell("explorer")
    expect(explorer).to_have_count(2)
    second = explorer.nth(1)
    stands(second)
    click(second.locator(".cka-middle .cka-stage"), 0.16, 0.84)
    notebook.wait_for_value("explorer.selection == (('A', '2'), ('B', '0'))")
    for one in (explorer.nth(0), second):
        expect(one.locator(".cka-drill .cka-cell-title")).to_have_text(re.compile("2.*against.*0"))
        expect(one.locator(".cka-waiting")).to_be_empty()
    assert notebook.errors == []


def restart(notebook: Notebook) -> None:
    notebook.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
    )


def shut_down(notebook: Notebook) -> None:
    notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def die(notebook: Notebook) -> None:
    notebook.page.evaluate(
        """() => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
            .requestExecute({ code: "import os; os._exit(1)" }).done.catch(() => {}); }"""
    )


@pytest.mark.parametrize("how", [restart, shut_down, die])
def test_without_its_kernel_the_heatmap_stands_and_says_so(
    notebook: Notebook, explorer: Locator, screenshots: Path, how: Callable[[Notebook], None]
) -> None:
    how(notebook)
    expect(explorer.locator(".cka-waiting")).to_have_text(GONE, timeout=30 * SECOND)
    notebook.page.keyboard.press("Escape")
    dismiss(notebook.page)
    expect(explorer.get_by_role("button", name="Run")).to_be_hidden()
    stands(explorer)
    click(explorer.locator(".cka-middle .cka-stage"), 0.84, 0.84)
    for theme in ("dark", "light"):
        notebook.theme(theme)
        notebook.page.wait_for_timeout(400)
        explorer.screenshot(path=screenshots / f"gone-{how.__name__}-{theme}.png")
    assert notebook.errors == []


@pytest.fixture
def saving(server: Server, notebook: Notebook) -> Iterator[None]:
    """JupyterLab saves the widgets' state with the notebook."""
    toggle = "@jupyter-widgets/jupyterlab-manager:saveWidgetState"
    notebook.open(server.add("settings.ipynb", ["1"]))
    notebook.command(toggle)
    yield
    notebook.command(toggle)


def reopened(notebook: Notebook) -> None:
    """Save, end the kernel, and open the notebook with a new one."""
    notebook.command("docmanager:save")
    notebook.close()
    notebook.open("survival.ipynb")


@pytest.mark.usefixtures("saving")
def test_a_saved_state_opens_without_the_kernel_that_made_it(
    notebook: Notebook, explorer: Locator, screenshots: Path
) -> None:
    reopened(notebook)
    expect(explorer.locator(".cka-waiting")).to_have_text(GONE, timeout=60 * SECOND)
    expect(explorer.locator(".cka-state")).to_contain_text("640 samples")
    expect(explorer.locator(".cka-drill")).to_contain_text("4 particle pairs")
    stands(explorer)
    expect(notebook.page.locator("[class^=cka-picture] img")).to_be_hidden()
    explorer.screenshot(path=screenshots / "gone-reopened.png")
    assert notebook.errors == []


def test_without_a_saved_state_the_picture_stands(
    notebook: Notebook, explorer: Locator, screenshots: Path
) -> None:
    picture = notebook.page.locator("[class^=cka-picture] img")
    expect(picture).to_be_hidden()
    reopened(notebook)
    expect(picture).to_be_visible(timeout=60 * SECOND)
    assert picture.evaluate("img => img.naturalWidth") > 300
    caption = notebook.page.locator("[class^=cka-picture] figcaption")
    expect(caption).to_contain_text("run the cell again for the live explorer")
    notebook.page.screenshot(path=screenshots / "picture.png")


def dismiss(page: Page) -> None:
    """Close what JupyterLab says of its own."""
    for button in page.locator(".jp-Dialog button.jp-mod-accept").all():
        button.click()
