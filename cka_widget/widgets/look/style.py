"""The explorer's style sheet, and its colours for charts drawn by other libraries."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import ipywidgets as widgets

LIGHT = {
    "a": "#2563eb",
    "b": "#0f766e",
    "c": "#4c1d95",
    "d": "#5c3a00",
    "e": "#a21caf",
    "odd": "#c8411b",
    "text": "#1f2328",
    "muted": "#656d76",
    "line": "#dfe2e6",
    "pick": "#00b8d4",
}


def color(slot: str) -> str:
    """A palette slot as a CSS colour that follows the theme (a fixed one on old ipywidgets)."""
    fixed = LIGHT[slot]
    # Colour traits learnt CSS variables in ipywidgets 8.
    return fixed if widgets.__version__.startswith("7.") else f"var(--cka-{slot}, {fixed})"


@cache
def css() -> str:
    """Text of explorer.css."""
    return files(__package__).joinpath("explorer.css").read_text(encoding="utf-8")


def stylesheet(more: str = "") -> widgets.HTML:
    """An invisible widget that brings the style sheet along, and `more` rules."""
    sheet = widgets.HTML(f"<style>{css()}{more}</style>")
    sheet.add_class("cka-style")
    return sheet
