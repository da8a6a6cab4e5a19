"""The picture that stands in a cell's output where no widget is shown."""

import base64

import pytest
from explorers import explore

from cka_widget.widgets.notebook import cell_output as module
from cka_widget.widgets.notebook.cell_output import CAPTION, KEPT, VIEW, CellOutput


class Screen:
    """Takes what is displayed."""

    def __init__(self):
        self.bundles = []

    def display(self, bundle, raw, display_id=False):
        self.bundles.append(bundle)
        return Place(self.bundles, len(self.bundles) - 1) if display_id else None


class Place:
    def __init__(self, bundles, at):
        self.bundles, self.at = bundles, at

    def update(self, bundle, raw):
        self.bundles[self.at] = bundle


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(module, "display", screen.display)
    return screen


@pytest.mark.parametrize("block", [True, False])
def test_each_run_leaves_its_picture_beside_every_display(screen, block):
    explorer = explore()
    explorer._ipython_display_()
    explorer._ipython_display_()
    widget, place = screen.bundles[:2]
    assert widget[VIEW]["model_id"] == explorer.model_id
    assert "image/png" not in place
    explorer.run(block=block)
    explorer.wait(30)
    first = [bundle["image/png"] for bundle in screen.bundles[1::2]]
    assert len(set(first)) == 1
    assert base64.b64decode(first[0]).startswith(b"\x89PNG")
    assert screen.bundles[0] == widget, "the widget is not drawn anew"
    explorer.layers = {"A": ["head"]}
    explorer.run(block=block)
    explorer.wait(30)
    assert screen.bundles[1]["image/png"] != first[0]
    assert screen.bundles[1]["text/plain"] == repr(explorer)


def test_a_display_after_the_run_has_the_picture_at_once(screen):
    explorer = explore()
    explorer.run(block=True)
    explorer._ipython_display_()
    assert "image/png" not in screen.bundles[0]
    assert "image/png" in screen.bundles[1]


def test_the_explorers_own_style_hides_its_picture_and_no_others(screen):
    explorer, other = explore(), explore()
    for one in (explorer, other):
        one._ipython_display_()
        one.run(block=True)
    own, others = (bundle["text/html"] for bundle in screen.bundles[1::2])
    sheet = explorer.children[0].value
    mark = own.split('class="')[1].split('"')[0]
    assert f".{mark} {{ display: none !important; }}" in sheet
    assert mark not in others


def test_a_picture_that_cannot_be_drawn_is_told_to_the_log(screen, caplog):
    output = CellOutput()
    output.show({"text/plain": "x"})
    output.leave(lambda: 1 / 0, "x")
    assert "no picture" in caplog.text


def test_the_pictures_words_are_text(screen):
    output = CellOutput()
    output.show({"text/plain": "x"})
    output.leave(lambda: b"png", '<b>"A"</b>')
    html = screen.bundles[1]["text/html"]
    assert "<b>" not in html
    assert f"&lt;b&gt;&quot;A&quot;&lt;/b&gt;. {CAPTION}</figcaption>" in html


def test_only_the_latest_displays_get_new_pictures(screen):
    output = CellOutput()
    for _ in range(KEPT + 2):
        output.show({"text/plain": "x"})
    output.leave(lambda: b"png", "x")
    assert ["image/png" in bundle for bundle in screen.bundles[1::2]] == [False] * 2 + [True] * KEPT
