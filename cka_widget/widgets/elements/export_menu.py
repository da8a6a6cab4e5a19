"""The menu that takes a result away: pictures, numbers, the result itself."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ipywidgets as widgets

from cka_widget.layer_tree import LayerTree
from cka_widget.names import writable
from cka_widget.result.export.page_data import View
from cka_widget.widgets.comparison.axes import layer_info
from cka_widget.widgets.look.format import tag
from cka_widget.widgets.notebook import static_picture

MAX_LINK = 4_000_000
"""Largest file (bytes) that is offered as a download too."""


class ExportMenu(widgets.HBox):
    """Writes files beside the notebook, and offers them as a download where they are small.

    Args:
        kinds: label of the button -> (file name, function that gives the file's bytes).
        lock: held while the menu is written.
        threaded: write in a thread, so that the kernel stays free.
    """

    def __init__(
        self,
        kinds: Mapping[str, tuple[str, Callable[[], bytes]]],
        lock: Any,
        threaded: bool = True,
    ) -> None:
        self._buttons: list[widgets.Button] = []
        self._lock, self._threaded = lock, threaded
        self._writer: threading.Thread | None = None
        self.message = widgets.HTML(tag("span", "save beside the notebook", class_="cka-muted"))
        for label, (name, make) in kinds.items():
            button = widgets.Button(description=label, tooltip=f"Write {name}")
            button.on_click(lambda _, name=name, make=make: self._start(name, make))
            self._buttons.append(button)
        super().__init__([*self._buttons, self.message])
        self.add_class("cka-export")
        self.open = False
        self.add_class("cka-hidden")

    def toggle(self) -> None:
        """Open the menu, or close it."""
        self.open = not self.open
        (self.remove_class if self.open else self.add_class)("cka-hidden")

    def wait(self) -> None:
        """Block until the last file is written."""
        if self._writer is not None:
            self._writer.join()

    def _start(self, name: str, make: Callable[[], bytes]) -> None:
        with self._lock:
            if self._buttons[0].disabled:
                return  # a second click, on its way before the first one was seen
            self._say(tag("span", f"writing {name} …", class_="cka-muted", role="status"), True)
        if self._threaded:
            self._writer = threading.Thread(target=self._write, args=(name, make))
            self._writer.start()
        else:
            self._write(name, make)

    def _say(self, message: str, busy: bool) -> None:
        self.message.value = message
        for button in self._buttons:
            button.disabled = busy

    def _write(self, name: str, make: Callable[[], bytes]) -> None:
        try:
            message = _written(name, make())
        except Exception as error:  # shown where the reader looks, instead of in a log
            message = tag("span", f"{name} could not be written: {error}", role="alert")
        with self._lock:
            self._say(message, False)


def _written(name: str, data: bytes) -> str:
    """Write the file; what to say of it, with a download where it is small."""
    path = _free(Path(name))
    path.write_bytes(data)
    link = ""
    if len(data) <= MAX_LINK:
        source = base64.b64encode(data).decode("ascii")
        link = (
            f' · <a download="{escape(path.name, quote=True)}" '
            f'href="data:application/octet-stream;base64,{source}">download</a>'
        )
    return f"{tag('span', f'wrote {path.name}', role='status')}{link}"


def kinds(
    drawing: Callable[[], Any],
    result: Callable[[], Any],
    shown: Callable[[], tuple[dict[str, list[str]], View, str]],
    trees: Mapping[str, LayerTree],
) -> dict[str, tuple[str, Callable[[], bytes]]]:
    """What an explorer offers: label -> (file name, function that gives the file's bytes).

    Args:
        drawing: gives the static picture.
        result: gives the result.
        shown: gives the layers on screen, by model, what is shown of them, and by which measure.
        trees: of the models.
    """
    return {
        "PNG": ("cka.png", lambda: static_picture.png(drawing(), static_picture.PRINT)),
        "SVG": ("cka.svg", lambda: static_picture.svg(drawing())),
        "CSV": ("cka.csv", lambda: writable(result().to_frame().to_csv(index=False)).encode()),
        "page": ("cka.html", lambda: _page(result(), *shown(), trees)),
        "result": ("cka.safetensors", lambda: saved(result())),
    }


def _page(
    result: Any,
    layers: Mapping[str, list[str]],
    view: View,
    measure: str,
    trees: Mapping[str, LayerTree],
) -> bytes:
    info = {
        model: {label: layer_info(trees[model], label) for label in result.layers(model)}
        for model in result.models
    }
    text: str = result.to_html(info=info, layers=layers, view=view, measure=measure)
    return text.encode()


def saved(result: Any) -> bytes:
    """The file that `result.save` writes; `cka_widget.load` reads it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cka.safetensors"
        result.save(path)
        return path.read_bytes()


def _free(path: Path) -> Path:
    """`path`, or the same with a number: nothing is overwritten."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
