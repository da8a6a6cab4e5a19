"""The heatmap and the picker alone in a real JupyterLab: pointer, keyboard, themes, kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.lab import Notebook, Server
from playwright.sync_api import expect

SETUP = """
import numpy as np
from cka_widget.widgets.elements.heatmap import Heatmap
from cka_widget.widgets.elements.picker import LayerPicker

blocks = [f"layer{i}.{j}.{k}" for i in (1, 2) for j in (0, 1) for k in ("conv", "bn")]
rows = ["conv1", *blocks, "fc"]
depth = np.linspace(0, 1, 10)
scores = np.exp(-8 * (depth[:, None] - np.linspace(0, 1, 16)[None, :]) ** 2)
scores[3] = np.nan
errors = np.full(scores.shape, 0.01)
"""
HEATMAP = """
heatmap = Heatmap(
    scores, errors, row_labels=rows, col_labels=[f"block.{i}" for i in range(16)],
    row_name="narrow", col_name="deep", row_reasons=["", "", "", "always the same output"],
)
heatmap
"""
PICKER = """
nodes = [{"name": f"layer{i}", "cls": "Sequential", "shape": "8×4×4"} for i in range(3)]
nodes.append({"name": "act", "cls": "ReLU", "calls": 2})
nodes.append({"name": "aux", "status": "never ran", "calls": 0})
picker = LayerPicker(nodes, title="narrow", particles=4, checked=["layer0"])
picker
"""


@pytest.fixture
def heatmap(server: Server, notebook: Notebook) -> Notebook:
    notebook.open(server.add("heatmap.ipynb", [SETUP, HEATMAP]))
    notebook.run_all()
    expect(notebook.page.locator(".cka-stage")).to_be_visible()
    return notebook


def middle(notebook: Notebook, row: int, col: int) -> tuple[float, float]:
    """Where the middle of a cell is on the page."""
    stage = notebook.page.locator(".cka-stage")
    box = stage.bounding_box()
    plot = stage.get_attribute("data-plot")
    assert box is not None
    assert plot is not None
    x, y, width, height = map(float, plot.split())
    return box["x"] + x + (col + 0.5) * width / 16, box["y"] + y + (row + 0.5) * height / 10


def test_hover_shows_the_cell_and_a_click_reaches_the_kernel(
    heatmap: Notebook, screenshots: Path
) -> None:
    page = heatmap.page
    page.mouse.move(*middle(heatmap, 5, 8))
    tip = page.locator(".cka-tip")
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("± 0.010")
    heatmap.wait_for_value("heatmap.hovered == [5, 8]")
    page.mouse.click(*middle(heatmap, 2, 4))
    heatmap.wait_for_value("heatmap.selected == [2, 4]")
    page.mouse.move(*middle(heatmap, 3, 4))
    expect(tip).to_contain_text("layer1.1.conv")
    expect(tip).to_contain_text("always the same output")
    page.screenshot(path=screenshots / "heatmap-hover.png")
    assert heatmap.errors == []


def test_a_drag_is_no_click_and_a_release_outside_is_heard(heatmap: Notebook) -> None:
    page, tip = heatmap.page, heatmap.page.locator(".cka-tip")
    page.mouse.move(*middle(heatmap, 1, 1))
    page.mouse.down()
    page.mouse.move(*middle(heatmap, 4, 4), steps=4)
    page.mouse.up()
    page.mouse.move(*middle(heatmap, 5, 8))
    page.mouse.down()
    x, _ = middle(heatmap, 5, 8)
    page.mouse.move(x, 3, steps=4)  # out of the notebook
    page.mouse.up()
    page.mouse.move(x + 9, 3)
    expect(tip).to_be_hidden()
    page.mouse.move(*middle(heatmap, 1, 2))
    expect(tip).to_be_visible()
    heatmap.wait_for_value("heatmap.hovered == [1, 2]")
    assert heatmap.value("heatmap.selected") == []
    assert heatmap.errors == []


def test_a_double_click_shows_all_and_leaves_the_pin(heatmap: Notebook) -> None:
    page = heatmap.page
    page.mouse.click(*middle(heatmap, 2, 4))
    heatmap.wait_for_value("heatmap.selected == [2, 4]")
    page.locator(".cka-stage").press("+")
    expect(page.get_by_role("button", name="show all")).to_be_visible()
    page.wait_for_timeout(600)  # or the click before would be the first of the double click
    page.mouse.dblclick(*middle(heatmap, 1, 9))
    expect(page.get_by_role("button", name="show all")).to_be_hidden()
    heatmap.wait_for_value("heatmap.selected == [2, 4]")
    page.mouse.dblclick(*middle(heatmap, 1, 9))
    heatmap.wait_for_value("heatmap.selected == [1, 9]")


def test_without_an_error_bar_a_cell_is_unsure_after_the_run_too(heatmap: Notebook) -> None:
    heatmap.execute("heatmap.set_data(scores, np.full(scores.shape, np.nan))")
    tip = heatmap.page.locator(".cka-tip")
    heatmap.page.mouse.move(*middle(heatmap, 5, 8))
    expect(tip).to_contain_text("no error bar: too few batches")
    expect(tip.locator(".cka-unsure")).to_have_count(1)


def test_keys_move_the_pin_and_stay_out_of_jupyterlab(heatmap: Notebook) -> None:
    page = heatmap.page
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.locator(".cka-stage").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    heatmap.wait_for_value("heatmap.selected == [1, 1]")
    for key in ("a", "b", "d", "d", "x", "End"):
        page.keyboard.press(key)
    heatmap.wait_for_value("heatmap.selected == [1, 15]")
    expect(page.locator(".cka-heatmap [role=status]")).to_contain_text(
        "narrow layer1.0.conv vs deep"
    )
    page.keyboard.press("Escape")
    heatmap.wait_for_value("heatmap.selected == []")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_keys_move_the_pin_wherever_the_pointer_rests(heatmap: Notebook) -> None:
    page = heatmap.page
    heatmap.execute("heatmap.selected = [7, 12]")
    page.locator(".cka-stage").focus()
    page.mouse.move(*middle(heatmap, 2, 4))
    expect(page.locator(".cka-tip")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    heatmap.wait_for_value("heatmap.selected == [7, 11]")
    heatmap.wait_for_value("heatmap.hovered == []")
    expect(page.locator(".cka-tip")).to_contain_text("layer2.1.conv")


def test_python_selects_and_data_and_themes_redraw(heatmap: Notebook, screenshots: Path) -> None:
    page = heatmap.page
    heatmap.execute("heatmap.selected = [7, 12]")
    expect(page.locator(".cka-heatmap [role=status]")).to_contain_text("layer2.1.conv")
    heatmap.execute("heatmap.set_data(1 - scores, errors * 20); heatmap.origin = 'bottom'")
    expect(page.locator(".cka-origin")).to_have_attribute(
        "aria-label", "First layer at the bottom: put it on top"
    )
    for theme in ("dark", "light"):
        heatmap.theme(theme)
        expect(page.locator(".cka-heatmap")).to_have_attribute("data-theme", theme)
        page.wait_for_timeout(400)
        page.screenshot(path=screenshots / f"heatmap-{theme}.png")


def test_the_wheel_zooms_after_a_click_and_a_double_click_resets(heatmap: Notebook) -> None:
    page = heatmap.page
    reset = page.locator(".cka-reset")
    page.mouse.move(*middle(heatmap, 5, 8))
    page.mouse.wheel(0, -200)
    expect(reset).to_be_hidden()
    heatmap.page.locator(".cka-stage").scroll_into_view_if_needed()
    page.mouse.click(*middle(heatmap, 5, 8))
    page.mouse.wheel(0, -400)
    expect(reset).to_be_visible()
    page.mouse.dblclick(*middle(heatmap, 5, 8))
    expect(reset).to_be_hidden()


def test_the_picker_by_mouse_and_by_keyboard(server: Server, notebook: Notebook) -> None:
    notebook.open(server.add("picker.ipynb", [SETUP, PICKER]))
    notebook.run_all()
    page = notebook.page
    total = page.locator(".cka-total")
    expect(total).to_have_text("1 row")
    page.get_by_role("treeitem", name="act").click()
    notebook.wait_for_value("picker.checked == ['layer0', 'act']")
    expect(total).to_have_text("3 rows")
    page.get_by_role("searchbox").fill("sequential")
    expect(page.get_by_role("treeitem")).to_have_count(4)
    page.get_by_role("button", name="all", exact=True).click()
    notebook.wait_for_value("picker.rows == 5")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("tree").focus()
    for key in ("Home", "ArrowDown", "Space", "End", "Space"):
        page.keyboard.press(key)
    notebook.wait_for_value("picker.checked == ['layer1', 'layer2', 'act']")
    notebook.execute("picker.checked = []; picker.disabled = True")
    expect(total).to_have_text("0 rows")
    page.get_by_role("treeitem", name="layer1").click(force=True)
    expect(total).to_have_text("0 rows")
    assert notebook.errors == []
