"""The quickstart without a mouse, and what axe says about it, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.axe import violations
from browser.lab import Notebook, Server
from browser.serving import SECOND
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]
FOCUS = """async () => {
    for (const _ of [1, 2]) await new Promise(requestAnimationFrame);  // a tree draws its line
    const at = document.activeElement;
    return { inside: at.closest(".cka-explorer") !== null,
             name: at.getAttribute("aria-label") ?? at.textContent.trim().slice(0, 60),
             role: at.getAttribute("role") ?? at.localName,
             place: at.closest("[class*=cka-start], .cka-header, .cka-drill, .cka-picker")
                 ?.className ?? "",
             outlined: getComputedStyle(at).outlineStyle !== "none"
                 || at.querySelector(".cka-active") !== null };
}"""


def cells() -> list[str]:
    """The quickstart up to the explorer; one epoch will do."""
    notebook = json.loads((ROOT / "notebooks/quickstart.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    until = next(i for i, source in enumerate(sources) if source.startswith("explorer.run()"))
    return [s.replace("EPOCHS, BATCH = 10", "EPOCHS, BATCH = 1") for s in sources[:until]]


@pytest.fixture(scope="module")
def quickstart(server: Server, chromium: Browser) -> Iterator[Notebook]:
    """The quickstart with its explorer on screen, not run yet; the tests go on from each other."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1200})
    notebook = Notebook(server, context.new_page())
    notebook.open(server.add("keyboard.ipynb", cells()))
    notebook.run_all(timeout=300)
    expect(notebook.page.locator(".cka-start").get_by_role("button", name="Run")).to_be_visible()
    yield notebook
    notebook.close()
    context.close()


def tab_to(page: Page, role: str, name: str, place: str = "", back: bool = False) -> list[str]:
    """Press Tab until the focus is there; returns the stops inside the explorer on the way."""
    stops: list[str] = []
    for _ in range(80):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        at = page.evaluate(FOCUS)
        if not at["inside"]:
            continue
        assert at["outlined"], f"the focus cannot be seen on {at}"
        if at["role"] == role and name in at["name"] and place in at["place"]:
            return stops
        stops.append(f"{at['role']} {at['name']}")
    raise AssertionError(f"Tab does not reach {role} {name!r}, only {stops}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_before_the_run(quickstart: Notebook, theme: str) -> None:
    quickstart.theme(theme)
    quickstart.page.wait_for_timeout(SECOND)  # colours follow the host's style sheet
    assert violations(quickstart.page, ".cka-explorer") == []


def test_the_whole_flow_by_keys_alone(quickstart: Notebook) -> None:
    page, press = quickstart.page, quickstart.page.keyboard.press
    ticked = quickstart.value("explorer.layers['shallow CNN']")
    shown = page.locator(".jp-Notebook .jp-Cell").count()
    page.evaluate("() => document.activeElement.blur()")

    tab_to(page, "tree", "shallow CNN")
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowRight", "Space"):
        press(key)
    quickstart.wait_for_value(f"len(explorer.layers['shallow CNN']) == {len(ticked) - 1}")
    left = set(ticked) - set(quickstart.value("explorer.layers['shallow CNN']"))
    assert left == {"block1.conv"}

    tab_to(page, "button", "Run", "cka-start")
    press("Space")
    quickstart.wait_for_value("explorer.state == 'done'", timeout=120)
    tab_to(page, "application", "")
    press("ArrowDown")  # shows where one is
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        press(key)
    expect(page.locator(".cka-middle .cka-tip")).to_be_visible()
    press("Enter")
    quickstart.wait_for_value("explorer.selection is not None")
    row, col = quickstart.value("explorer.selection")
    at = quickstart.value("explorer.heatmap.selected")
    assert at == [1, 2]
    assert row == ["shallow CNN", quickstart.value("explorer.heatmap.row_labels")[1]]
    assert col == ["deep CNN", quickstart.value("explorer.heatmap.col_labels")[2]]
    spoken = page.locator(".cka-middle .cka-heatmap [role=status]")
    expect(spoken).to_contain_text(row[1])
    expect(spoken).to_contain_text("plus or minus")
    drill = page.locator(".cka-drill")
    expect(drill).to_contain_text(f"{row[1]} against {col[1]}")

    press("Escape")
    quickstart.wait_for_value("explorer.selection is None")
    press("ArrowDown")
    press("Enter")
    quickstart.wait_for_value("explorer.selection is not None")
    assert page.locator(".jp-Notebook .jp-Cell").count() == shown, "keys reached JupyterLab"
    assert quickstart.errors == []


def test_the_drill_down_and_the_export_menu_are_within_reach(quickstart: Notebook) -> None:
    page, press = quickstart.page, quickstart.page.keyboard.press
    tab_to(page, "application", "", "cka-drill")
    press("ArrowRight")
    expect(page.locator(".cka-drill .cka-heatmap [role=status]").first).to_contain_text("#")
    tab_to(page, "button", "Export", "cka-header", back=True)
    press("Space")
    menu = page.locator(".cka-export")
    expect(menu.get_by_role("button", name="CSV")).to_be_visible()
    tab_to(page, "button", "CSV")
    press("Enter")
    expect(menu.get_by_role("status")).to_contain_text("wrote cka")
    assert (quickstart.server.root / "cka.csv").read_text().startswith("model_row,")


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
@pytest.mark.parametrize("host", ["light", "dark"])
def test_axe_after_the_run(quickstart: Notebook, screenshots: Path, host: str, theme: str) -> None:
    assert quickstart.value("explorer.state") == "done"
    quickstart.theme(host)
    quickstart.execute(f"explorer.theme = {theme!r}")
    quickstart.page.wait_for_timeout(SECOND)
    if theme not in ("auto", host):
        explorer = quickstart.page.locator(".cka-explorer")
        explorer.screenshot(path=screenshots / f"explorer-{theme}-in-{host}.png")
    assert violations(quickstart.page, ".cka-explorer") == []
    # axe does not look at placeholders, and hosts colour them with a strong rule.
    colours = quickstart.page.locator(".cka-picker").first.evaluate(
        """root => [getComputedStyle(root.querySelector("input"), "::placeholder").color,
                    getComputedStyle(root.querySelector(".cka-total")).color]"""
    )
    assert colours[0] == colours[1]
