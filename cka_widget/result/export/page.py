"""A result as one HTML file: heatmap and drill-down without kernel, network or installation."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cka_widget.names import writable
from cka_widget.result.export.page_data import View, page_data

if TYPE_CHECKING:
    from cka_widget.result.result import CKAResult

STATIC = Path(__file__).resolve().parents[2] / "static"
MAX_PARTICLE_BYTES = 2_000_000
"""Room in the page for the scores of all pairs of particles, with their errors."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="cka_widget {version}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>{title}: this page draws its numbers by JavaScript, which is switched off.</noscript>
<main id="cka-page"></main>
<script type="application/json" id="cka-data">{data}</script>
<script type="module">{heatmap}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def to_html(
    result: CKAResult,
    path: str | PathLike[str] | None = None,
    *,
    title: str | None = None,
    info: Mapping[str, Mapping[str, str]] | None = None,
    layers: Mapping[str, Sequence[str]] | None = None,
    view: View | None = None,
    max_particle_bytes: int = MAX_PARTICLE_BYTES,
    measure: str | None = None,
) -> str:
    """The interactive page of a result, in one file that asks for nothing else.

    It has all measures of the result, each with its own matrices.

    Args:
        result: of a run.
        path: file to write; none is written where None.
        title: of the page; the models' names where None.
        info: what the tooltips add to a layer, by model and layer, such as "Conv2d 64×8×8".
        layers: labels to keep, by model; a model that is not named keeps all, one without any is
            left out.
        view: what the page shows first; the first model against the last one where None.
        max_particle_bytes: the scores of all pairs of particles are left out where they take
            more than this, of several measures first those that come last; the page then says so.
        measure: which of `result.measures` is shown first; the first one where None.

    Returns:
        The page's text.

    Raises:
        KeyError: no such measure.
        FileNotFoundError: the JavaScript was not built.
    """
    from cka_widget import __version__

    heading = title or (result.measure.title if len(result.measures) == 1 else "Similarity")
    heatmap, script, style = _shared(_built("heatmap.js")), _built("page.js"), _built("page.css")
    page = _PAGE.format(
        policy=_policy(heatmap, script),
        version=__version__,
        title=escape(title or f"{heading}: {' against '.join(result.models)}"),
        style=style,
        data=_json(
            page_data(result, heading, info or {}, layers or {}, view, max_particle_bytes, measure)
        ),
        heatmap=heatmap,
        script=script,
    )
    page = writable(page)
    if path is not None:
        Path(path).write_text(page, encoding="utf-8", newline="\n")
    return page


def _built(name: str) -> str:
    path = STATIC / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} was not built: run `python hatch_build.py` in the clone")
    return path.read_text(encoding="utf-8").strip()


def _shared(module: str) -> str:
    """The widget's own module, its exports where the page's script finds them."""
    body, export, names = module.rpartition("export{")
    if not export or not names.endswith("};"):
        raise ValueError("heatmap.js does not end with its exports: build it again")
    pairs = [name.split(" as ") for name in names[:-2].split(",")]
    return f"{body}globalThis.ckaHeatmap={{{','.join(f'{b}:{a}' for a, b in pairs)}}};"


def _policy(*scripts: str) -> str:
    """No request, and no script but these; the canvas views place themselves by style."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in, whatever the names hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
