"""The explorer in every state: a picture to look at, nothing cut off, and axe, light and dark.

In the light theme it also looks as it did: `kept.py` says what that means. After a change of the
look, and a look at the new pictures in screenshots/:
    CKA_RENEW=1 .venv/bin/python -m pytest tests/browser/test_states.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import kept
from browser.axe import violations
from browser.lab import Notebook, Server
from browser.serving import SECOND
from playwright.sync_api import Browser, Locator, expect

SCENERY = Path(__file__).with_name("scenery.py").read_text(encoding="utf-8")
NEW = """
gate = Gate({batches}, {let})
explorer = cw.CKAExplorer({models}, gate, device="cpu")
explorer.add_class("cka-now-{name}")
explorer
"""
AROUND = 168  # pixels of JupyterLab beside the output
CUT = """root => [...root.querySelectorAll("*")].filter(el => {
    const style = getComputedStyle(el), box = el.getBoundingClientRect();
    if (box.width <= 1 || style.visibility === "hidden" || style.position === "fixed") return false;
    const wide = style.overflowX === "hidden" && style.textOverflow !== "ellipsis"
        && el.scrollWidth > el.clientWidth + 1;
    const column = el.parentElement.classList.contains("cka-body");
    return wide || (column && box.bottom > root.getBoundingClientRect().bottom);
}).map(el => `${el.className}: ${el.scrollWidth} x ${el.scrollHeight} in ` +
    `${el.clientWidth} x ${el.clientHeight}`)"""


# All text in boxes; what the clock decides is left out.
PLAIN = f"""{kept.font_css()} .cka-explorer, .cka-explorer * {{ font-family: Boxes !important; }}
    .cka-state, .cka-cost, .cka-plan dl {{ visibility: hidden !important; }}"""


class Stage:
    """One notebook, and one explorer after the other in it."""

    def __init__(self, notebook: Notebook, screenshots: Path) -> None:
        self.notebook, self.page, self.screenshots = notebook, notebook.page, screenshots
        self.name = ""

    def put(self, name: str, models: str, let: int = 1, batches: int = 16) -> Locator:
        """Put an explorer on screen whose loader lets `let` batches through."""
        if self.name:
            self.notebook.execute(
                "gate.let(99); explorer.cancel(); explorer.wait(); explorer.close()"
            )
        self.name = name
        self.notebook.run_new_cell(NEW.format(name=name, models=models, let=let, batches=batches))
        explorer = self.page.locator(f".cka-now-{name}")
        self.notebook.show(explorer)
        return explorer

    def run(self) -> None:
        """Run to the end."""
        self.notebook.execute("explorer.run()")
        self.notebook.wait_for_value("explorer.state == 'done'")

    def run_to(self, batches: int) -> None:
        """Run until so many batches are on screen; the next one waits at the gate."""
        self.notebook.execute(f"gate.let({batches - 1}); explorer.run()")
        self.notebook.wait_for_value(f"explorer.progress * len(gate) > {batches - 1.5}")
        self.notebook.execute(f"gate.let({batches})")
        self.notebook.wait_for_value(f"explorer.result.batches == {batches}")

    def select(self, row: str, col: str) -> None:
        """Pin a cell of the pair on screen."""
        self.notebook.execute(
            f"explorer.selection = cw.Cell(*map(cw.LayerKey, explorer.pair, ({row!r}, {col!r})))"
        )
        expect(self.page.locator(f".cka-now-{self.name} .cka-cell-title")).to_contain_text(col)

    def look(
        self, name: str = "", themes: tuple[str, ...] = ("dark", "light"), keep: bool = True
    ) -> None:
        """Take the pictures of a state; nothing is cut off, and axe finds nothing."""
        where = f".cka-now-{self.name}"
        explorer = self.page.locator(where)
        self.page.mouse.move(2, 2)
        for theme in themes:
            self.notebook.theme(theme)
            expect(explorer.locator(".cka-picker").first).to_have_attribute("data-theme", theme)
            self.page.wait_for_timeout(SECOND)  # host style sheets and charts settle
            self.notebook.show(explorer)
            path = self.screenshots / f"state-{name or self.name}-{theme}.png"
            explorer.screenshot(path=path, animations="disabled")
            assert explorer.evaluate(CUT) == []
            assert violations(self.page, where) == []
        if keep and len(themes) > 1:
            self.compare(name or self.name, explorer)
        assert self.notebook.errors == []

    def compare(self, name: str, explorer: Locator) -> None:
        """The explorer, in the theme that is on now, looks as it did."""
        style = self.page.add_style_tag(content=PLAIN)
        self.page.evaluate("() => document.fonts.load('12px Boxes')")
        self.page.wait_for_timeout(SECOND)  # canvases measure their labels anew
        shot = explorer.screenshot(animations="disabled")
        style.evaluate("element => element.remove()")
        kept.assert_as_kept(f"state-{name}", shot)


@pytest.fixture(scope="module")
def stage(server: Server, chromium: Browser, screenshots: Path) -> Iterator[Stage]:
    """A notebook with the networks."""
    context = chromium.new_context(
        viewport={"width": 1500, "height": 1200}, reduced_motion="reduce"
    )
    notebook = Notebook(server, context.new_page())
    notebook.open(server.add("states.ipynb", [SCENERY, "import cka_widget as cw"]))
    notebook.run_all()
    yield Stage(notebook, screenshots)
    notebook.close()
    context.close()


def test_empty_and_picking(stage: Stage) -> None:
    explorer = stage.put("empty", "ensembles()")
    expect(explorer).to_contain_text("Ready to compare")
    stage.look()
    picker = explorer.locator(".cka-picker").first
    picker.get_by_role("button", name="none", exact=True).click()
    picker.get_by_role("searchbox").fill("conv")
    found = picker.get_by_role("treeitem").filter(has_text="conv")
    found.nth(0).click()
    found.nth(4).click(modifiers=["Shift"])
    stage.notebook.wait_for_value("'layer2.1.conv' in explorer.layers['wide CNN']")
    assert "layer3.0.conv" not in stage.notebook.value("explorer.layers['wide CNN']")
    stage.look("picking")
    picker.get_by_role("button", name="by class").click()
    stage.look("menu")
    stage.page.keyboard.press("Escape")


def test_running_paused_cancelled(stage: Stage) -> None:
    explorer = stage.put("running", "ensembles()")
    stage.run_to(6)
    stage.select("layer2.1.bn", "layer3.1.conv")
    stage.look()
    explorer.get_by_role("button", name="Pause").click()
    stage.notebook.execute("gate.let(7)")
    stage.notebook.wait_for_value("explorer.state == 'paused'")
    expect(explorer.get_by_role("button", name="Resume")).to_be_visible()
    stage.look("paused")
    explorer.get_by_role("button", name="Cancel").click()
    stage.notebook.wait_for_value("explorer.state == 'cancelled'")
    stage.look("cancelled")


def test_done_with_ensembles(stage: Stage) -> None:
    explorer = stage.put("ensembles", "ensembles()", let=99)
    stage.run()
    stage.select("layer2.1.bn", "layer3.1.conv")
    expect(explorer.locator(".cka-drill .cka-alarm")).to_contain_text("deep CNN #3")
    stage.look()
    usual = stage.page.viewport_size
    for name, width, height in (
        ("narrow", 600, 3700),
        ("middling", 900, 2000),
        ("wide", 2400, 1300),
    ):
        stage.page.set_viewport_size({"width": width + AROUND, "height": height})
        stage.look(f"ensembles-{name}", ("light",))
        box = explorer.bounding_box()
        assert box
        assert abs(box["width"] - width) < 20, "AROUND is what JupyterLab has beside it"
    # Zooming to 200% halves the pixels of the page and doubles those of the screen.
    stage.page.set_viewport_size({"width": 750, "height": 2100})
    session = stage.page.context.new_cdp_session(stage.page)
    zoom = {"width": 750, "height": 2100, "deviceScaleFactor": 2, "mobile": False}
    session.send("Emulation.setDeviceMetricsOverride", zoom)
    stage.look("ensembles-zoomed", ("light",))
    session.send("Emulation.clearDeviceMetricsOverride")
    stage.page.set_viewport_size(usual)


def test_done_with_one_model_each(stage: Stage) -> None:
    stage.put("pair", '{"wide CNN": wide(0), "deep CNN": deep(10)}', let=99)
    stage.run()
    stage.select("layer2.1.bn", "layer2.1.conv")
    stage.look()


def test_failed(stage: Stage) -> None:
    models = '{"wide CNN": wide(0), "deep CNN": deep(10, layer2=Broken())}'
    explorer = stage.put("failed", models)
    stage.run_to(6)
    stage.notebook.execute("Broken.now = True; gate.let(99); explorer.wait(); Broken.now = False")
    expect(explorer.get_by_role("alert")).to_contain_text('layer "after2" failed')
    stage.select("layer2.1.bn", "layer2.1.conv")
    stage.look()
    explorer.get_by_text("traceback", exact=True).click()
    stage.look("failed-traceback", keep=False)  # it has the paths of this machine


def test_undefined_cells(stage: Stage) -> None:
    models = '{"wide CNN": wide(0, layer1=Aside()), "deep CNN": deep(10)}'
    explorer = stage.put("undefined", models, let=99)
    stage.run()
    expect(explorer.locator(".cka-legend")).to_contain_text("after1.same: always the same output")
    stage.select("after1.same", "layer2.1.conv")
    stage.look()


def test_five_hundred_layers(stage: Stage) -> None:
    models = '{"ViT": transformer(71), "ViT, tuned": transformer(71, 0.03)}'
    explorer = stage.put("large", models, let=8, batches=8)
    stage.run()
    expect(explorer.locator(".cka-middle .cka-stage")).to_have_attribute(
        "aria-label", "CKA, ViT (500 rows) against ViT, tuned (500 columns)"
    )
    stage.select("blocks.40.query", "blocks.45.value")
    stage.look()
