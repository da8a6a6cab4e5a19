"""The export menu writes every kind of file that it offers, and overwrites none."""

import pytest
import torch
from torch import nn

import cka_widget as cw


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
    button.click()
    button.click()
    assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 2
    assert "wrote" in menu.message.value


def test_the_page_names_classes_and_escapes_models(explorer, tmp_path):
    next(b for b in explorer._views.menu.children if b.description == "page").click()
    text = (tmp_path / "cka.html").read_text(encoding="utf-8")
    assert "Linear 8" in text
    assert "<b>" not in text


def test_the_saved_result_is_read_again(explorer, tmp_path):
    next(b for b in explorer._views.menu.children if b.description == "result").click()
    again = cw.load(tmp_path / "cka.safetensors")
    assert again.matrix("A", "<b>").equals(explorer.result.matrix("A", "<b>"))
