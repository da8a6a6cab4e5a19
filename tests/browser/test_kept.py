"""Heatmap, picker and exported page look as they did; see `kept.py` for what that means.

After a change of the look, and a look at the new pictures in screenshots/:
    CKA_RENEW=1 .venv/bin/python -m pytest tests/browser/test_kept.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import kept
from browser.scenery import Gate, ensembles
from checks import run
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "cka_widget/static"
SHOW = """async ({ name, demo, script, style, state, dark, move }) => {
    const load = text => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    const [{ default: widget }, models] = await Promise.all([load(script), load(demo)]);
    document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
    await document.fonts.load("12px Boxes");
    const background = dark ? "#111418" : "#fff";
    Object.assign(document.body.style, { margin: `${16 + move}px 16px 0`, background });
    const values = (rows, cols) => {
        const given = models.heatmap(rows, cols).get("values").buffer.slice(0);
        new Float32Array(given).fill(NaN, 9 * cols, 11 * cols);  // two rows without a score
        return new DataView(given);
    };
    const make = {
        heatmap: () => models.heatmap(22, 30, { values: values(22, 30), height: 600, ...state }),
        particles: () => models.heatmap(8, 9, { compact: true, annotate: true, flag_cols: [3],
            row_labels: [..."01234567"].map(i => `#${i}`),
            col_labels: [..."012345678"].map(i => `#${i}`), ...state }),
        picker: () => models.picker(12, state),
    };
    window.shown = make[name]();
    const box = document.body.appendChild(document.createElement("div"));
    if (name === "picker") box.style.width = "300px";
    widget.render({ model: window.shown, el: box });
    await new Promise(done => setTimeout(done, 400));  // fonts, sizes, the theme's second look
}"""
WIDE = (960, 640)
STATES: dict[str, tuple[str, tuple[int, int], dict[str, object]]] = {
    "heatmap": ("heatmap", WIDE, {"selected": [5, 9]}),
    "unsure": ("heatmap", WIDE, {"uncertain_above": 0.008, "colormap": "cividis"}),
    "best": ("heatmap", WIDE, {"best_match": True, "origin": "bottom", "colormap": "viridis"}),
    "particles": ("particles", (480, 320), {"selected": [1, 3]}),
    "picker": ("picker", (336, 512), {"checked": ["block0", "block1.query", "block2.norm1"]}),
}
Show = Callable[..., Page]


@pytest.fixture
def show(chromium: Browser) -> Iterator[Show]:
    """Shows a widget on an empty page, without a kernel."""
    context = chromium.new_context(reduced_motion="reduce", device_scale_factor=1)

    def widget(name: str, theme: str, move: int = 0, **state: object) -> Page:
        script, (width, height), usual = STATES[name]
        state = {**usual, **state, "theme": theme}
        stem = "picker" if script == "picker" else "heatmap"
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        source = {
            "script": (STATIC / f"{stem}.js").read_text(encoding="utf-8"),
            "style": (STATIC / f"{stem}.css").read_text(encoding="utf-8") + kept.font_css(),
            "demo": (ROOT / "js/dev/model.js").read_text(encoding="utf-8"),
        }
        how = {"name": script, "state": state, "dark": theme == "dark", "move": move}
        page.evaluate(SHOW, {**how, **source})
        return page

    yield widget
    context.close()


def picture(page: Page, path: Path | None = None) -> bytes:
    """The page as it stands, nothing moving; kept at a path for eyes too."""
    return page.screenshot(path=path, animations="disabled")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", STATES)
def test_widgets_look_as_they_did(show: Show, screenshots: Path, name: str, theme: str) -> None:
    name = f"{name}-{theme}"
    shot = picture(show(name.rpartition("-")[0], theme), screenshots / f"kept-{name}.png")
    kept.assert_as_kept(name, shot)


def opened(chromium: Browser, tmp_path: Path, theme: str) -> Page:
    """The exported page of two ensembles, with a cell selected."""
    path = tmp_path / "run.html"
    result = run(ensembles(), Gate(6, 6))
    result = replace(result, provenance={**result.provenance, "seconds": 1.0})
    text = result.to_html()
    path.write_text(text.replace("</style>", f"{kept.font_css()}</style>"), encoding="utf-8")
    page = chromium.new_page(
        bypass_csp=True,  # the page itself would load no font
        viewport={"width": 1440, "height": 960},
        color_scheme="dark" if theme == "dark" else "light",
        device_scale_factor=1,
    )
    page.goto(path.as_uri())
    page.locator(".cka-stage").first.focus()
    for key in (*["ArrowDown"] * 14, *["ArrowRight"] * 24, "Enter"):
        page.keyboard.press(key)
    page.evaluate("() => document.activeElement.blur()")
    expect(page.locator(".cka-alarm")).to_contain_text("deep CNN #3")
    page.wait_for_timeout(300)
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_exported_page_looks_as_it_did(
    chromium: Browser, tmp_path: Path, screenshots: Path, theme: str
) -> None:
    page = opened(chromium, tmp_path, theme)
    shot = picture(page, screenshots / f"kept-page-{theme}.png")
    without = "document.querySelector('.cka-rest figure').style.visibility = 'hidden'"
    page.evaluate(f"() => {{ {without} }}")
    poorer = picture(page)
    page.close()
    kept.assert_as_kept(f"page-{theme}", shot)
    assert kept.difference(f"page-{theme}", poorer) > kept.TOLERANCE, "a panel is missing"


def restyle(page: Page, rule: str) -> None:
    """Another style, with a redraw in it."""
    page.add_style_tag(content=rule)
    page.evaluate("() => window.shown.set('theme', 'auto')")  # reads colours and fonts anew
    page.wait_for_timeout(300)


@pytest.mark.parametrize("name", STATES)
def test_a_few_pixels_to_the_side_are_the_same_picture(show: Show, name: str) -> None:
    share = kept.difference(f"{name}-light", picture(show(name, "light", move=2)))
    assert share <= kept.TOLERANCE


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("heatmap", {"colormap": "viridis"}),
        ("heatmap", {"brackets": False, "row_labels": [], "col_labels": []}),
        ("heatmap", {"origin": "bottom"}),
        ("unsure", {"uncertain_above": 1.0}),
        ("particles", {"flag_cols": []}),
        ("picker", {"nodes": []}),
        ("picker", {"checked": []}),
        ("picker", {"color": "a"}),
    ],
    ids=str,
)
def test_what_changed_is_seen(show: Show, name: str, what: dict[str, object]) -> None:
    share = kept.difference(f"{name}-light", picture(show(name, "light", **what)))
    assert share > kept.TOLERANCE


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("heatmap", ".cka-root { --cka-hatch: #fff !important }"),
        ("heatmap", ".cka-root { --cka-bg: #111418 !important }"),
        ("picker", ".cka-presets { visibility: hidden }"),
    ],
)
def test_broken_style_is_seen(show: Show, name: str, rule: str) -> None:
    page = show(name, "light")
    restyle(page, rule)
    share = kept.difference(f"{name}-light", picture(page))
    assert share > kept.TOLERANCE
