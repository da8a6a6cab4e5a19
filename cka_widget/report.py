"""A result as one HTML file: heatmap and drill-down without kernel, network or installation."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from itertools import combinations_with_replacement
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from cka_widget.engine.result import CKAResult

STATIC = Path(__file__).resolve().parent / "static"
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
    max_particle_bytes: int = MAX_PARTICLE_BYTES,
) -> str:
    """The interactive page of a result, in one file that asks for nothing else.

    Args:
        result: of a run.
        path: file to write; none is written where None.
        title: of the page; the models' names where None.
        info: what the tooltips add to a layer, by model and layer, such as "Conv2d 64×8×8".
        max_particle_bytes: the scores of all pairs of particles are left out where they take
            more than this; the page then says so.

    Returns:
        The page's text.

    Raises:
        FileNotFoundError: the JavaScript was not built.
    """
    from cka_widget import __version__

    heatmap, script, style = _shared(_built("heatmap.js")), _built("page.js"), _built("page.css")
    page = _PAGE.format(
        policy=_policy(heatmap, script),
        version=__version__,
        title=escape(title or f"CKA: {' against '.join(result.models)}"),
        style=style,
        data=_json(_data(result, title or "CKA", info or {}, max_particle_bytes)),
        heatmap=heatmap,
        script=script,
    )
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


def _data(
    result: CKAResult, title: str, info: Mapping[str, Mapping[str, str]], max_particle_bytes: int
) -> dict[str, Any]:
    provenance = result.provenance
    return {
        "title": title,
        "models": [
            {
                "name": name,
                "particles": result.n_particles(name),
                "layers": result.layers(name),
                "info": [info.get(name, {}).get(layer, "") for layer in result.layers(name)],
                "reasons": [reason or "" for reason in result.reasons(name)],
            }
            for name in result.models
        ],
        "matrices": _matrices(result),
        **_particles(result, max_particle_bytes),
        "samples": result.samples,
        "batches": result.batches,
        "seconds": float(provenance.get("seconds") or 0),
        "setting": _setting(provenance),
        "footnote": _footnote(result),
        "warnings": list(result.warnings),
    }


def _matrices(result: CKAResult) -> dict[str, str]:
    """Upper halves (with the diagonal) of symmetric matrices over the layers of all models."""
    kinds = {"mean": result.matrix, "stderr": result.stderr, "spread": result.spread}
    if max(map(result.n_particles, result.models)) == 1:
        del kinds["spread"]
    if result.provenance.get("unbiased", True) and result.blocks:
        kinds |= {"null": result.null, "above": result.above_chance}
    return {name: _wire(_joined(result, kind)) for name, kind in kinds.items()}


def _joined(result: CKAResult, kind: Any) -> np.ndarray:
    ends = np.cumsum([0, *(len(result.layers(name)) for name in result.models)])
    place = {name: slice(*ends[i : i + 2]) for i, name in enumerate(result.models)}
    full = np.full((ends[-1], ends[-1]), np.nan)
    for row, col in combinations_with_replacement(result.models, 2):
        frame: pd.DataFrame = kind(row, col)
        full[place[row], place[col]] = frame.to_numpy(float)
    return full


def _wire(full: np.ndarray) -> str:
    """The upper half, row by row, as base64 of little-endian float32."""
    half = full[np.triu_indices(len(full))].astype("<f4")
    return base64.b64encode(half.tobytes()).decode("ascii")


def _particles(result: CKAResult, limit: int) -> dict[str, Any]:
    """Scores and errors between all rows of all particles, or why they are not there."""
    if max(map(result.n_particles, result.models)) == 1:
        return {"particles": None, "particles_note": ""}
    rows = len(result.sums.h)
    size = 2 * (rows * (rows + 1) // 2 * 4) * 4 // 3
    if size > limit:
        note = (
            f"The scores of single pairs of particles ({size / 1e6:.1f} MB) were left out of this "
            "page to keep it small; to_html(max_particle_bytes=...) puts them in."
        )
        return {"particles": None, "particles_note": note}
    wired = {"scores": _wire(result._cka), "stderr": _wire(result._stderr)}
    return {"particles": wired, "particles_note": ""}


def _setting(provenance: Mapping[str, Any]) -> str:
    estimator = "unbiased" if provenance.get("unbiased", True) else "biased"
    parts = [provenance.get("device"), f"{estimator}, {provenance.get('kernel', 'linear')}"]
    batch = provenance.get("hsic_batch_size")
    parts.append(f"HSIC batch {batch}" if batch else None)
    return " · ".join(str(part) for part in parts if part)


def _footnote(result: CKAResult) -> list[str]:
    from cka_widget import __version__

    known, parts = result.provenance, []
    bandwidth = known.get("bandwidth")
    if bandwidth is not None:
        parts.append(f"RBF bandwidth {bandwidth:g} × median distance")
    if known.get("reduce"):
        parts.append(f"features: {known['reduce']}")
    parts.append(f"{result.blocks:,} HSIC blocks")
    parts += [f"{name} {known[name]}" for name in ("torch", "python") if known.get(name)]
    return [*parts, f"cka_widget {__version__}"]
