"""What stands in a cell's output: the widget, and a picture for places that cannot show it."""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Callable
from html import escape
from typing import Any
from uuid import uuid4

from IPython.display import display

CAPTION = "A picture of the result: run the cell again for the live explorer."
KEPT = 8
"""Displays of one widget that get new pictures; of those before them the picture stays."""
VIEW = "application/vnd.jupyter.widget-view+json"
log = logging.getLogger(__name__)


def mimebundle(model_id: str, text: str, picture: bytes | None) -> dict[str, Any]:
    """A widget for those who show widgets, else its picture (PNG) or a line of text."""
    view = {"version_major": 2, "version_minor": 0, "model_id": model_id}
    bundle: dict[str, Any] = {"text/plain": text, VIEW: view}
    if picture is not None:
        bundle["image/png"] = _base64(picture)
    return bundle


class CellOutput:
    """Displays a widget, and under it a picture that is only seen where the widget is not.

    On GitHub, in nbconvert, or in a notebook reopened without the widget's state nothing but the
    picture is left. It has an output of its own, so that its coming does not draw the widget
    anew; `style`, which the widget carries, hides it wherever the widget is shown.
    """

    def __init__(self) -> None:
        self._mark = f"cka-picture-{uuid4().hex[:8]}"
        self._places: deque[Any] = deque(maxlen=KEPT)
        self._picture = self._text = ""

    @property
    def style(self) -> str:
        """A rule that hides the picture."""
        return f".{self._mark} {{ display: none !important; }}"

    def show(self, bundle: dict[str, Any]) -> None:
        """Display the widget of this MIME bundle, and the place of its picture."""
        self._picture, self._text = bundle.get("image/png", ""), bundle["text/plain"]
        display({k: v for k, v in bundle.items() if k != "image/png"}, raw=True)
        place = display(self._bundle(), raw=True, display_id=True)
        if place is not None:
            self._places.append(place)

    def leave(self, picture: Callable[[], bytes], text: str) -> None:
        """Put a new picture (PNG) into every output, with `text` for those who cannot see it."""
        if not self._places:
            return
        try:
            self._picture, self._text = _base64(picture()), text
            for place in self._places:
                place.update(self._bundle(), raw=True)
        except Exception:  # the run is done all the same
            log.exception("no picture could be left in the output")

    def _bundle(self) -> dict[str, Any]:
        if not self._picture:
            return {"text/plain": "", "text/html": f'<span class="{self._mark}"></span>'}
        image = (
            f'<figure class="{self._mark}" style="margin: 0">'
            f'<img alt="{escape(self._text, quote=True)}" '
            f'src="data:image/png;base64,{self._picture}">'
            f"<figcaption>{escape(self._text)}. {CAPTION}</figcaption></figure>"
        )
        return {"text/plain": self._text, "text/html": image, "image/png": self._picture}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
