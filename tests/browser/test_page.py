"""The exported page in a browser, from the disk: no request, pointer, keyboard, hostile names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browser.axe import violations
from checks import run
from playwright.sync_api import Browser, Page, expect
from torch import nn

import cka_widget as cw
from cka_widget.result.export.page_data import View
from cka_widget.result.result import CKAResult
from cka_widget.widgets.look.format import score

HOSTILE = (
    '<img src=x onerror="document.title=\'hit\'"></script><script>document.title="hit"</script>'
)
PLOT = re.compile(r"^\d")
Opened = Callable[..., Page]


class Noise(nn.Module):
    """With a scale, drowns the input: the particle has nothing in common with the others."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale, self.generator = scale, torch.Generator().manual_seed(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * torch.randn(x.shape, generator=self.generator)


class Zero(nn.Module):
    """Always the same output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x


def net(depth: int, *, noisy: bool = False) -> nn.Module:
    net = nn.Sequential()
    for i in range(depth):
        stage = nn.Sequential(nn.Linear(12, 12), nn.Tanh())
        net.add_module(f"stage{i}", stage)
    net.add_module("noise", Noise(100.0 * noisy))
    net.add_module("fc", nn.Linear(12, 12))
    net.add_module("dead", Zero())
    for weight in filter(lambda p: p.ndim == 2, net.parameters()):
        nn.init.orthogonal_(weight)  # so that the particles agree
    return net


@pytest.fixture(scope="module")
def result() -> CKAResult:
    """Three wide and four deep networks; one deep one is odd from the noise on."""
    torch.manual_seed(0)
    models = {
        "wide net": [net(2) for _ in range(3)],
        "deep net": [net(4, noisy=i == 2) for i in range(4)],
    }
    return run(models, [torch.randn(48, 12) for _ in range(8)])


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens the page of a result from the disk; at the end no request and no error was seen."""
    wrong: list[str] = []
    contexts = []

    def open_page(result: CKAResult, width: int = 1400, scheme: str = "light", **how: Any) -> Page:
        path = tmp_path / "run.html"
        result.to_html(path, **how)
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda r: r.url == path.as_uri() or wrong.append(r.url))
        page.goto(path.as_uri())
        expect(page.locator(".cka-stage").first).to_have_attribute("data-plot", PLOT)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def click(page: Page, result: CKAResult, row: str, col: str) -> None:
    """Click the cell of two layers of the first and the last model."""
    stage = page.locator(".cka-stage").first
    x, y, width, height = map(float, (stage.get_attribute("data-plot") or "").split())
    rows, cols = result.layers(result.models[0]), result.layers(result.models[-1])
    at = {
        "x": x + (cols.index(col) + 0.5) * width / len(cols),
        "y": y + (rows.index(row) + 0.5) * height / len(rows),
    }
    stage.click(position=at)


def test_a_click_opens_what_lies_behind_the_cell(opened: Opened, result: CKAResult) -> None:
    page = opened(result)
    drill = page.get_by_role("region", name="Behind the selected cell")
    expect(drill).to_contain_text("No cell selected")
    click(page, result, "fc", "fc")
    expect(drill.get_by_role("heading", level=2)).to_have_text("fc against fc")
    value = result.matrix("wide net", "deep net").at["fc", "fc"]
    shown = drill.locator(".cka-score strong").inner_text()
    assert float(shown.replace("−", "-")) == pytest.approx(value, abs=0.006)
    expect(drill.locator(".cka-score")).to_contain_text("12 particle pairs")
    expect(drill).to_contain_text("chance (null 0.0")
    expect(drill.get_by_role("status").last).to_contain_text("deep net #2 is the odd one out")
    expect(drill.locator("canvas").first).to_be_visible()
    expect(drill.get_by_role("img")).to_have_count(4)
    drill.get_by_text("table of pairs").click()
    expect(drill.locator("tbody tr")).to_have_count(12)
    expect(drill.locator(".cka-odd-row")).to_have_count(3)


def test_all_by_keyboard(opened: Opened, result: CKAResult) -> None:
    page = opened(result)
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="mean")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="spread")).to_be_checked()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="wide × wide")).to_be_checked()
    expect(page.locator(".cka-model")).to_have_count(1)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox", name="best match per row")).to_be_checked()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.locator(".cka-stage").first).to_be_focused()
    for key in ("Control+Home", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    heading = page.locator(".cka-cell-title")
    rows, cols = (result.layers(name) for name in result.models)
    text = heading.inner_text()
    i, j = rows.index(text.split(" against ")[0]), cols.index(text.split(" against ")[1])
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text(f"{rows[i]} against {cols[j + 1]}")
    live = page.locator(".cka-middle [role=status]")
    expect(live).to_contain_text(f"wide net {rows[i]} vs deep net {cols[j + 1]}")
    page.keyboard.press("Escape")
    expect(page.locator(".cka-drill")).to_contain_text("No cell selected")


def test_an_undefined_cell_says_why(opened: Opened, result: CKAResult) -> None:
    page = opened(result)
    expect(page.locator(".cka-legend")).to_contain_text("deep net dead: always the same output")
    click(page, result, "fc", "dead")
    expect(page.locator(".cka-drill")).to_contain_text("deep net dead: always the same output")
    expect(page.locator(".cka-score strong")).to_have_text("undefined")


def test_a_profile_leads_to_another_layer(opened: Opened, result: CKAResult) -> None:
    page = opened(result)
    click(page, result, "fc", "fc")
    page.locator(".cka-depth.cka-b .cka-spot").first.click()
    first = result.layers("deep net")[0]
    expect(page.locator(".cka-cell-title")).to_have_text(f"fc against {first}")
    page.get_by_text("deep × deep").click()
    expect(page.locator(".cka-cell-title")).to_have_text(f"fc against {first}")
    expect(page.locator(".cka-stage").first).to_have_attribute(
        "aria-label", f"CKA, deep net ({len(result.layers('deep net'))} rows) against deep net "
        f"({len(result.layers('deep net'))} columns)",
    )  # fmt: skip


def test_particles_can_be_ordered(opened: Opened, result: CKAResult) -> None:
    page = opened(result)
    click(page, result, "fc", "fc")
    matrix = page.locator(".cka-particles")
    page.get_by_label("ordered by similarity").check()
    matrix.locator(".cka-stage").focus()
    page.keyboard.press("Control+Home")
    page.keyboard.press("End")
    expect(matrix.get_by_role("status")).to_contain_text("vs deep #2: 0.0")
    page.get_by_label("ordered by similarity").uncheck()
    matrix.locator(".cka-stage").focus()
    page.keyboard.press("Control+Home")
    page.keyboard.press("End")
    expect(matrix.get_by_role("status")).to_contain_text("vs deep #3: 0.8")


def test_hostile_names_stay_text(opened: Opened, result: CKAResult) -> None:
    layers = (HOSTILE, *result.rows[0].layers[1:])
    rows = (replace(result.rows[0], name=HOSTILE, layers=layers), result.rows[1])
    hostile = replace(result, rows=rows, warnings=(HOSTILE,))
    page = opened(hostile)
    click(page, hostile, HOSTILE, "fc")
    expect(page.locator(".cka-cell-title")).to_have_text(f"{HOSTILE} against fc")
    expect(page.locator(".cka-warning")).to_contain_text(HOSTILE)
    assert page.locator("img, main script").count() == 0
    assert page.title() == f"CKA: {HOSTILE} against deep net"


def test_without_particles_the_rest_is_there(opened: Opened, result: CKAResult) -> None:
    page = opened(result, max_particle_bytes=0)
    click(page, result, "fc", "fc")
    drill = page.locator(".cka-drill")
    expect(drill).to_contain_text("were left out of this page")
    expect(drill.get_by_role("img")).to_have_count(2)
    expect(drill.locator(".cka-particles")).to_be_hidden()


def test_one_model_and_three(opened: Opened) -> None:
    batches = [torch.randn(48, 12) for _ in range(6)]
    alone = run({"alone": net(2)}, batches)
    page = opened(alone)
    expect(page.locator("header")).to_have_text("CKAaloneagainstitself")
    click(page, alone, "fc", "fc")
    expect(page.locator(".cka-score")).not_to_contain_text("particle")
    expect(page.locator(".cka-drill .cka-particles")).to_be_hidden()
    three = run({name: net(2) for name in ("one", "two", "three")}, batches)
    page = opened(three)
    page.get_by_role("combobox", name="rows").select_option("two")
    expect(page.locator(".cka-model")).to_have_text(["two", "three"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_another_measure_is_one_choice_away(opened: Opened, scheme: str, screenshots: Path) -> None:
    torch.manual_seed(0)
    models = {"wide net": [net(2) for _ in range(3)], "deep net": [net(4) for _ in range(3)]}
    knn = cw.MutualKNN(k=3, title=HOSTILE)
    batches = [torch.randn(48, 12) for _ in range(8)]
    several = run(models, batches, measures=["cka", "rsa", knn])
    page = opened(several, 360, scheme, measure="mutual_knn")
    choice = page.get_by_role("combobox", name="measure")
    expect(choice.locator("option")).to_have_text(
        [several.of(name).measure.title for name in several.measures]
    )
    page.locator(".cka-stage").first.hover()
    expect(page.locator(".cka-tip").first).to_contain_text(f"{HOSTILE} (by chance .064)")
    click(page, several, "fc", "stage1")
    stage, table = page.locator(".cka-stage").first, page.get_by_role("table").first
    layers = ("wide net", "deep net"), ("fc", "stage1")
    for name in ("mutual_knn", "rsa", "cka"):
        facts = several.of(name).measure
        choice.select_option(facts.title)
        expect(stage).to_have_attribute("aria-label", re.compile(f"^{re.escape(facts.title)}, "))
        value, error = (
            frame(*layers[0], measure=name).at[layers[1]]
            for frame in (several.matrix, several.stderr)
        )
        told = score(value, error)
        expect(page.locator(".cka-score strong")).to_have_text(told)
        expect(page.locator(".cka-shown th")).to_have_text(facts.title)
        expect(table.locator("tr", has=page.get_by_text(facts.title, exact=True))).to_contain_text(
            told
        )
        expect(page.locator(".cka-drill thead th").last).to_have_text(facts.title)
    expect(table.get_by_text("chance")).to_have_text("by chance .064")
    assert page.locator("img, main script").count() == 0
    page.mouse.move(1, 1)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.screenshot(path=screenshots / f"page-measures-{scheme}.png", full_page=True)
    assert not violations(page, "html")


def test_it_opens_on_a_view(opened: Opened, result: CKAResult) -> None:
    """The pair, the measure and the pinned cell that it was given, and the layers kept."""
    cell = cw.Cell(cw.LayerKey("deep net", "fc"), cw.LayerKey("deep net", "stage1"))
    view = View(("deep net", "deep net"), "stderr", cell)
    page = opened(result, layers={"deep net": ["stage1", "fc"]}, view=view)
    stage = page.locator(".cka-stage").first
    expect(stage).to_have_attribute(
        "aria-label", re.compile(r"deep net \(2 rows\) against deep net \(2 columns\)")
    )
    drill = page.get_by_role("region", name="Behind the selected cell")
    expect(drill.get_by_role("heading", level=2)).to_have_text("fc against stage1")
    chosen = page.locator(".cka-toolbar input:checked")
    expect(chosen.first).to_have_attribute("value", "stderr")
    expect(chosen.nth(1)).to_have_attribute("value", "1 1")
    expect(page.get_by_role("checkbox", name="best match per row")).to_be_disabled()


@pytest.mark.parametrize(
    ("scheme", "width"), [(s, w) for s in ("light", "dark") for w in (1400, 700, 360)]
)
def test_it_fits_and_axe_finds_nothing(
    opened: Opened, result: CKAResult, scheme: str, width: int, screenshots: Path
) -> None:
    page = opened(result, width, scheme)
    click(page, result, "fc", "fc")
    page.mouse.move(1, 1)
    expect(page.locator(".cka-drill svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=screenshots / f"page-{width}-{scheme}.png", full_page=True)
    assert not violations(page, "html")
