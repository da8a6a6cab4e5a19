"""A result as one safetensors file: arrays, and JSON for all that is text."""

from __future__ import annotations

import json
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cka_widget.engine.result import CKAResult
from cka_widget.engine.rows import ModelRows
from cka_widget.engine.sums import ARRAYS, HsicSums, empty

VERSION = 2
_KEY = "cka_widget"


def save(result: CKAResult, path: str | PathLike[str]) -> None:
    """Write a result with its sums, so that it can be merged later; nothing is pickled."""
    parts = {"": result.sums} | ({"pooled.": result.pooled} if result.pooled else {})
    arrays = {
        prefix + name: np.ascontiguousarray(getattr(sums, name))
        for prefix, sums in parts.items()
        for name in ARRAYS
    }
    text = {
        "version": VERSION,
        "rows": [asdict(rows) for rows in result.rows],
        "row_reasons": result.row_reasons,
        "weight": result.sums.weight,
        "blocks": result.sums.blocks,
        "samples": result.samples,
        "batches": result.batches,
        "warnings": result.warnings,
        "provenance": dict(result.provenance),
    }
    save_file(arrays, path, metadata={_KEY: json.dumps(text)})


def load(path: str | PathLike[str]) -> CKAResult:
    """Read what `CKAResult.save` wrote; torch need not be installed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, or written by a newer version.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ValueError(f"{path} was not written by cka_widget")
    try:
        text = json.loads(metadata[_KEY])
        version = int(text["version"])
        if version <= VERSION:
            return _restore(text, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    raise ValueError(
        f"{path} has format {version}, newer than the {VERSION} this cka_widget reads; upgrade it"
    )


def _restore(text: dict[str, Any], arrays: dict[str, Any]) -> CKAResult:
    rows = tuple(ModelRows(**{**r, "layers": tuple(r["layers"])}) for r in text["rows"])
    if len(text["row_reasons"]) != sum(map(len, rows)):
        raise ValueError("its reasons do not fit its layers")
    sums = _sums("", sum(map(len, rows)), text, arrays)
    pooled = None
    if "pooled.h" in arrays:
        pooled = _sums("pooled.", sum(len(m.layers) for m in rows), text, arrays)
    return CKAResult(
        rows=rows,
        sums=sums,
        pooled=pooled,
        row_reasons=tuple(text["row_reasons"]),
        samples=text["samples"],
        batches=text["batches"],
        warnings=tuple(text["warnings"]),
        provenance=text["provenance"],
    )


def _sums(prefix: str, size: int, text: dict[str, Any], arrays: dict[str, Any]) -> HsicSums:
    found = {name: arrays[prefix + name] for name in ARRAYS if name != "moments"}
    # Files of format 1 have none: what they hold is shown without confidence intervals.
    found["moments"] = arrays.get(prefix + "moments", empty("moments", size))
    if any(a.shape != empty(name, size).shape for name, a in found.items()):
        raise ValueError("its arrays do not fit its layers")
    return HsicSums(text["weight"], text["blocks"], **found)
