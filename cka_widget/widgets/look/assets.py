"""What every front-end part shares: where its built files lie, and the themes it knows."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path

import traitlets

STATIC = Path(__file__).resolve().parents[2] / "static"
SLOTS = ("a", "b", "c", "d", "e")
"""Places of the palette that models have, one each."""
THEMES = ("auto", "light", "dark")
COLOR_MAPS = ("magma", "cividis", "viridis")


def script(name: str) -> str:
    """The built module of a widget, or one that says that it was not built.

    As text and no path: of a path anywidget watches the file on behalf of every instance, and
    keeps all instances for that.

    Args:
        name: file name below `cka_widget/static`, such as `"heatmap.js"`.
    """
    path = STATIC / name
    if path.is_file():
        return path.read_text(encoding="utf-8")
    said = json.dumps(
        f"{name} was not built: run `npm ci && npm run build` in js/, then import again."
    )
    return f"export default {{ render({{ el }}) {{ el.textContent = {said}; }} }};"


def styles(name: str) -> str:
    """The built style sheet of a widget, or an empty one where it was not built."""
    path = STATIC / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def known_keywords(widget: type[traitlets.HasTraits], keywords: Iterable[str]) -> None:
    """Refuse keywords that are no traits; traitlets itself would drop a misspelt one.

    Raises:
        TypeError: with the nearest trait's name.
    """
    names = widget.class_trait_names()
    for word in keywords:
        if word not in names:
            near = difflib.get_close_matches(word, [n for n in names if n[0] != "_"], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{widget.__name__} has no option {word!r}{hint}")
