"""The export menu writes every kind of file that it offers, and overwrites none."""

import json
import struct
import threading

import pytest
import torch
from torch import nn

import cka_widget as cw
from cka_widget.widgets.elements.export_menu import ExportMenu


@pytest.fixture
def explorer(tmp_path, monkeypatch):
    """Of two small networks, after its run; files go to a folder of their own."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    nets = {
        name: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)) for name in ("A", "<b>")
    }
    explorer = cw.CKAExplorer(nets, [torch.randn(32, 6) for _ in range(6)], device="cpu")
    explorer.run(block=True)
    return explorer


def press(explorer, label):
    """Write a file, and wait for it."""
    menu = explorer._views.menu
    next(button for button in menu.children if button.description == label).click()
    menu.wait()


@pytest.mark.parametrize(
    ("label", "name", "start"),
    [
        ("PNG", "cka.png", b"\x89PNG"),
        ("SVG", "cka.svg", b"<?xml"),
        ("CSV", "cka.csv", b"model_row,"),
        ("page", "cka.html", b"<!doctype html>"),
    ],
)
def test_each_kind_is_written_beside_the_notebook(explorer, tmp_path, label, name, start):
    menu = explorer._views.menu
    button = next(one for one in menu.children if getattr(one, "description", "") == label)
    for _ in range(2):
        button.click()
        menu.wait()
    assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 2
    assert "wrote" in menu.message.value


@pytest.mark.parametrize("label", ["PNG", "SVG", "CSV", "page", "result"])
def test_a_name_that_no_file_can_hold_is_written_with_a_sign_in_its_place(
    tmp_path, monkeypatch, label
):
    monkeypatch.chdir(tmp_path)
    nets = {name: nn.Sequential(nn.Linear(6, 8), nn.Tanh()) for name in ("A", "half \ud83d")}
    explorer = cw.CKAExplorer(nets, [torch.randn(32, 6) for _ in range(6)], device="cpu")
    explorer.run(block=True)
    press(explorer, label)
    assert "wrote" in explorer._views.menu.message.value
    if label in ("CSV", "page"):
        (written,) = tmp_path.iterdir()
        assert "half \ufffd" in written.read_text(encoding="utf-8")


def test_the_page_names_classes_and_escapes_models(explorer, tmp_path):
    press(explorer, "page")
    text = (tmp_path / "cka.html").read_text(encoding="utf-8")
    assert "Linear 8" in text
    assert "<b>" not in text


def test_the_saved_result_is_read_again(explorer, tmp_path):
    press(explorer, "result")
    again = cw.load(tmp_path / "cka.safetensors")
    assert again.matrix("A", "<b>").equals(explorer.result.matrix("A", "<b>"))


def test_the_page_stays_free_while_a_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gate, lock = threading.Event(), threading.RLock()

    def slow():
        gate.wait(30)
        return b"1"

    menu = ExportMenu({"CSV": ("cka.csv", slow)}, lock)
    button = menu.children[0]
    for _ in range(2):  # the second click says nothing new
        button.click()
    assert "writing cka.csv" in menu.message.value
    assert button.disabled
    gate.set()
    menu.wait()
    assert "wrote cka.csv" in menu.message.value
    assert not button.disabled
    assert [path.name for path in tmp_path.iterdir()] == ["cka.csv"]


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    menu = ExportMenu({"CSV": ("cka.csv", lambda: 1 / 0)}, threading.RLock(), threaded=False)
    menu.children[0].click()
    assert "cka.csv could not be written: division by zero" in menu.message.value
    assert not menu.children[0].disabled


def test_the_png_is_for_print(explorer, tmp_path):
    press(explorer, "PNG")
    width, height = struct.unpack(">II", (tmp_path / "cka.png").read_bytes()[16:24])
    preview = struct.unpack(">II", explorer._png()[16:24])
    assert min(width, height) > 1000
    assert width == pytest.approx(preview[0] * 300 / 110, rel=0.01)


@pytest.mark.parametrize("label", ["PNG", "SVG"])
def test_a_models_name_is_no_formula(tmp_path, monkeypatch, label):
    monkeypatch.chdir(tmp_path)
    nets = {r"cost $\foo": nn.Sequential(nn.Linear(6, 4), nn.Tanh())}
    explorer = cw.CKAExplorer(nets, [torch.randn(32, 6)], device="cpu")
    explorer.run(block=True)
    press(explorer, label)
    assert "wrote" in explorer._views.menu.message.value


def test_the_page_holds_what_is_on_screen(explorer, tmp_path):
    explorer.layers = {"A": ["0", "2"], "<b>": ["1"]}
    explorer.pair = ("<b>", "A")
    explorer.statistic = "stderr"
    explorer.selection = (("<b>", "1"), ("A", "2"))
    press(explorer, "page")
    text = (tmp_path / "cka.html").read_text(encoding="utf-8")
    data = json.loads(text.split('id="cka-data">')[1].split("</script>")[0])
    assert [model["layers"] for model in data["models"]] == [["0", "2"], ["1"]]
    shown = {"row": 1, "col": 0, "measure": 0, "metric": "stderr", "selected": [0, 1]}
    assert data["start"] == shown
