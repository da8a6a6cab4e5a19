"""The main job as a person does it: the quickstart in JupyterLab, run, watched, clicked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.lab import Notebook, Server
from browser.serving import SECOND
from playwright.sync_api import Browser, Locator, expect

WATCH = """() => {
    const small = Object.assign(document.createElement("canvas"), { width: 24, height: 24 });
    const pen = small.getContext("2d", { willReadFrequently: true });
    window.seen = { progress: [], pictures: [] };
    const add = (list, value) => { if (value && list.at(-1) !== value) list.push(value); };
    setInterval(() => {
        const explorer = document.querySelector(".cka-explorer");
        if (!explorer) return;
        const bar = explorer.querySelector("[role=progressbar]");
        add(window.seen.progress, bar?.getAttribute("aria-valuenow"));
        const canvas = explorer.querySelector(".cka-heatmap canvas");
        if (!canvas?.width) return;
        pen.clearRect(0, 0, 24, 24);
        pen.drawImage(canvas, 0, 0, 24, 24);
        add(window.seen.pictures, pen.getImageData(0, 0, 24, 24).data.join());
    }, 20);
}"""

SLOW = """
import time

class Slow:
    \"\"\"The same batches, one every 0.4 s; counts what it handed out.\"\"\"

    def __init__(self, loader):
        self.loader, self.given = loader, 0

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            time.sleep(0.4)
            self.given += 1
            yield batch

slow = Slow(loader)
second = cw.CKAExplorer({"shallow CNN": shallow, "deep CNN": deep}, slow)
second
"""


HELD = """
import threading
import time

class Held:
    \"\"\"The same batches; after the seventh they wait.\"\"\"

    def __init__(self, loader):
        self.loader, self.go_on = loader, threading.Event()

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for number, batch in enumerate(self.loader):
            time.sleep(0.1)
            if number == 7:
                self.go_on.wait()
            yield batch

held = Held(loader)
fourth = cw.CKAExplorer({"shallow CNN": shallow, "deep CNN": deep}, held)
fourth.run()
fourth
"""


@pytest.fixture(scope="module")
def quickstart(server: Server, chromium: Browser) -> Iterator[Notebook]:
    """The quickstart after Run All, watched meanwhile; the tests of this file share it."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1200})
    notebook = Notebook(server, context.new_page())
    notebook.open("quickstart.ipynb")
    notebook.page.evaluate(WATCH)
    notebook.run_all(timeout=300)
    yield notebook
    notebook.close()
    context.close()


@pytest.fixture
def explorer(quickstart: Notebook) -> Locator:
    """The quickstart's explorer, scrolled into view."""
    explorer = quickstart.page.locator(".cka-explorer").first
    quickstart.show(explorer)
    return explorer


def plot(explorer: Locator) -> Locator:
    """What takes the pointer in the large heatmap."""
    return explorer.locator(".cka-middle .cka-heatmap .cka-stage")


def labels(quickstart: Notebook, name: str = "explorer") -> dict[str, Any]:
    """The traits that say what the heatmap shows."""
    result: dict[str, Any] = quickstart.value(
        f"{{key: getattr({name}.heatmap, key) for key in ('row_labels', 'col_labels', 'selected')}}"
    )
    return result


def test_progress_and_heatmap_moved_while_it_ran(quickstart: Notebook) -> None:
    seen = quickstart.page.evaluate("() => window.seen")
    progress = [int(value) for value in seen["progress"]]
    assert progress == sorted(progress)
    assert progress[-1] == 100
    assert sum(0 < value < 100 for value in progress) >= 3, progress
    assert len(seen["pictures"]) >= 4, "the heatmap was drawn once and stayed as it was"
    assert quickstart.value("explorer.state") == "done"
    assert quickstart.errors == []


def test_a_click_pins_a_cell_and_opens_what_is_behind(
    quickstart: Notebook, explorer: Locator
) -> None:
    before = quickstart.value("explorer.selection")
    stage = plot(explorer)
    box = stage.bounding_box()
    assert box is not None
    at = (box["x"] + 0.40 * box["width"], box["y"] + 0.25 * box["height"])
    quickstart.page.mouse.move(*at)
    tip = explorer.locator(".cka-tip").first
    expect(tip).to_contain_text("±")
    quickstart.page.mouse.click(*at)
    quickstart.wait_for_value(f"list(explorer.selection or ()) != {before!r}")

    row, col = quickstart.value("explorer.selection")
    shown = labels(quickstart)
    assert row == ["shallow CNN", shown["row_labels"][shown["selected"][0]]]
    assert col == ["deep CNN", shown["col_labels"][shown["selected"][1]]]
    drill = explorer.locator(".cka-drill")
    expect(drill).to_contain_text(row[1])
    expect(drill).to_contain_text(col[1])
    expect(drill).to_contain_text("16 particle pairs")
    expect(drill.locator(".cka-heatmap canvas").first).to_be_visible()
    expect(drill.locator("svg.svg-figure, .bqplot svg").first).to_be_visible()


def test_the_keyboard_moves_the_cell_and_python_names_it(
    quickstart: Notebook, explorer: Locator
) -> None:
    quickstart.execute(
        "explorer.selection = cw.Cell("
        "row=cw.LayerKey('shallow CNN', 'block1'), col=cw.LayerKey('deep CNN', 'block1'))"
    )
    quickstart.page.mouse.move(2, 2)  # a resting pointer has a cell of its own
    expect(explorer.locator(".cka-drill")).to_contain_text("block1 against block1")
    before = labels(quickstart)["selected"]
    plot(explorer).focus()
    quickstart.page.keyboard.press("ArrowDown")
    quickstart.page.keyboard.press("Enter")
    quickstart.wait_for_value(f"explorer.heatmap.selected == [{before[0] + 1}, {before[1]}]")
    names = labels(quickstart)["row_labels"]
    assert quickstart.value("explorer.selection.row.layer") == names[before[0] + 1]


def test_the_odd_particle_is_named(quickstart: Notebook, explorer: Locator) -> None:
    quickstart.execute(
        "explorer.selection = cw.Cell("
        "row=cw.LayerKey('shallow CNN', 'block3'), col=cw.LayerKey('deep CNN', 'block6'))"
    )
    expect(explorer.locator(".cka-drill")).to_contain_text("odd one out")
    expect(explorer.locator(".cka-drill .cka-callout.cka-alarm")).to_contain_text("#2")


@pytest.mark.parametrize("width", [1400, 900])
def test_pictures_to_look_at(
    quickstart: Notebook, explorer: Locator, screenshots: Path, width: int
) -> None:
    quickstart.execute(
        "explorer.selection = cw.Cell("
        "row=cw.LayerKey('shallow CNN', 'block3'), col=cw.LayerKey('deep CNN', 'block6'))"
    )
    page = quickstart.page
    page.evaluate("() => document.activeElement.blur()")  # no focus ring, no tooltip
    page.mouse.move(2, 2)
    page.set_viewport_size({"width": width, "height": 1900 if width < 1200 else 1200})
    for theme in ("dark", "light"):
        quickstart.theme(theme)
        quickstart.show(explorer)
        page.wait_for_timeout(SECOND)  # charts animate
        explorer.screenshot(path=screenshots / f"explorer-{width}-{theme}.png")
        page.screenshot(path=screenshots / f"quickstart-{width}-{theme}.png")
        wider = explorer.evaluate(
            """root => [root, ...root.querySelectorAll(".cka-body, .cka-middle, .cka-drill")]
                .filter(el => el.scrollWidth > el.clientWidth + 1).map(el => el.className)"""
        )
        assert wider == [], "nothing scrolls sideways"


def test_the_kernel_stays_free_and_cancel_acts_within_a_batch(quickstart: Notebook) -> None:
    page = quickstart.page
    page.set_viewport_size({"width": 1400, "height": 1200})
    quickstart.run_new_cell(SLOW)
    second = page.locator(".cka-explorer").last
    quickstart.show(second)
    second.get_by_role("button", name="Run", exact=True).first.click()
    quickstart.wait_for_value("second.state == 'running' and second.progress > 0")

    took = quickstart.run_new_cell("between = (second.state, slow.given)")
    assert took < 2, "another cell waited for the run"
    assert quickstart.value("between[0]") == "running"
    bar = second.get_by_role("progressbar")
    earlier = bar.get_attribute("aria-valuenow")
    expect(bar).not_to_have_attribute("aria-valuenow", earlier or "", timeout=10 * SECOND)

    quickstart.show(second)
    second.get_by_role("button", name="Pause").click()
    quickstart.wait_for_value("second.state == 'paused'")
    page.wait_for_timeout(SECOND)
    given = quickstart.value("slow.given")
    page.wait_for_timeout(SECOND)
    assert quickstart.value("slow.given") == given, "a paused run took another batch"
    second.get_by_role("button", name="Resume").click()
    quickstart.wait_for_value(f"slow.given > {given}")

    asked = quickstart.value("slow.given")
    second.get_by_role("button", name="Cancel").click()
    quickstart.wait_for_value("second.state == 'cancelled'")
    assert quickstart.value("slow.given") <= asked + 2, "one under way, one to notice"
    expect(second).to_contain_text("cancelled")
    assert quickstart.value("second.result.samples") > 0
    assert quickstart.errors == []


def test_cancel_from_python_takes_no_further_batch(quickstart: Notebook) -> None:
    quickstart.execute("third = cw.CKAExplorer({'a': shallow[0]}, slow); third.run()")
    quickstart.wait_for_value("third.progress > 0")
    quickstart.execute("asked = slow.given; third.cancel(); third.wait()")
    assert quickstart.value("third.state") == "cancelled"
    assert quickstart.value("slow.given - asked") <= 1
    hooks = "sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in shallow[0].modules())"
    assert quickstart.value(hooks) == 0


def test_a_picture_of_a_run(quickstart: Notebook, screenshots: Path) -> None:
    page = quickstart.page
    page.set_viewport_size({"width": 1400, "height": 1200})
    quickstart.run_new_cell(HELD)
    quickstart.wait_for_value("fourth.result and fourth.result.batches == 7")
    quickstart.execute(
        "fourth.selection = cw.Cell("
        "row=cw.LayerKey('shallow CNN', 'block3'), col=cw.LayerKey('deep CNN', 'block6'))"
    )
    explorer = page.locator(".cka-explorer").last
    expect(explorer.locator(".cka-drill")).to_contain_text("16 particle pairs")
    for theme in ("dark", "light"):
        quickstart.theme(theme)
        quickstart.show(explorer)
        page.wait_for_timeout(SECOND)
        box = plot(explorer).bounding_box()
        assert box
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        expect(explorer.locator(".cka-tip").first).to_contain_text("±")
        explorer.screenshot(path=screenshots / f"explorer-running-{theme}.png")
    quickstart.execute("held.go_on.set(); fourth.cancel(); fourth.wait()")
